"""Where the tasks of a stage run: in processes of this machine, on a Ray cluster, or as Slurm job arrays.

All are datatrove executors: a task that became whole leaves a marker, and only the others are run. A task holds a lock
on its shard, so that one that is started again (a node that was lost, a job put back in the queue) waits until the one
before is gone, and then finds what that left. datatrove's log stays off the terminal: the commands have progress bars.

Local and Ray are our own loops on datatrove's base class. Its local one goes through a manager process that outlives a
killed run, and waits for ever when a worker dies. Its Ray one forks inside of its actors, so that the children of an
actor that died go on writing; waits for ever when a node dies while it is being reserved; and keeps errors to itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.utils.logging import logger

from inftythink._process import end_with
from inftythink.errors import InftyThinkError, InputError, UsageError, describe, missing


class Executor(PipelineExecutor):  # type: ignore[misc]
    """What all three share. ``log``: the folder of markers, on a file system that all workers see."""

    def __init__(self, steps: Sequence[Any], tasks: int, workers: int, log: Path) -> None:
        super().__init__(list(steps), str(log.absolute()))
        self.pipeline: list[Any] = list(steps)
        self.tasks, self.workers, self.log = tasks, workers, log.absolute()

    @property
    def world_size(self) -> int:
        """The number of tasks."""
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """Return what datatrove wants in the environment of a task."""
        names = ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node", "executor")
        return {f"datatrove_{name}": "" for name in names}

    def run_rank(self, rank: int) -> None:
        """Run one task to its end, unless it is whole already."""
        logger.disable("datatrove")
        with alone(self.log / "locks" / f"{rank:05d}"):
            # Steps keep statistics: each task begins with its own.
            kept, self.pipeline = self.pipeline, deepcopy(self.pipeline)
            try:
                self._run_for_rank(rank, local_rank=1)
            finally:
                self.pipeline = kept


class LocalExecutor(Executor):
    """Runs tasks in this process when ``workers`` is 1, else in as many of their own."""

    def run(self) -> None:
        """Run the tasks that are not whole. Raises what a task raises, ``InputError`` when a worker is killed."""
        waiting = deque(self.get_incomplete_ranks())
        if self.workers == 1:
            while waiting:
                self.run_rank(waiting.popleft())
            return
        # Spawned, not forked: a tokenizer's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        workers: dict[Connection, Any] = {}
        try:
            for _ in range(min(self.workers, len(waiting))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(self, theirs, os.getpid()), daemon=True)
                with _alive(process):
                    process.start()
                    theirs.close()
                    workers[ours] = process
                    ours.send(waiting.popleft())
            self._attend(workers, waiting)
        finally:
            for pipe, process in workers.items():
                pipe.close()
                process.terminate()
                process.join()

    def _attend(self, workers: Mapping[Connection, Any], waiting: deque[int]) -> None:
        """Give tasks to workers until all are done."""
        busy = set(workers)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                with _alive(workers[pipe]):
                    error = pipe.recv()
                if error is not None:
                    raise error
                if waiting:
                    with _alive(workers[pipe]):
                        pipe.send(waiting.popleft())
                else:
                    busy.discard(pipe)


@contextlib.contextmanager
def _alive(process: Any) -> Iterator[None]:
    """Say what a broken pipe to a worker means; it breaks when the worker was killed, at whatever point."""
    try:
        yield
    except (EOFError, ConnectionError):
        if process.pid is not None:  # else it was gone before it could be told what to do
            process.join()
        raise InputError(
            f"a worker process ended with code {process.exitcode} in the middle of a task (out of "
            "memory?); run the same command again, with fewer --workers or more --tasks"
        ) from None


def _work(executor: LocalExecutor, pipe: Connection, parent: int) -> None:
    """Do what a worker does: the tasks that come through the pipe, until it is closed."""
    end_with(parent)
    one_core()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            rank = pipe.recv()
            try:
                executor.run_rank(rank)
            except Exception as error:
                pipe.send(error if isinstance(error, InftyThinkError) else _told(rank, error))
            else:
                pipe.send(None)


def _told(rank: int, error: BaseException) -> InputError:
    return InputError(f"task {rank} failed: {type(error).__name__}: {describe(error)}")


class RayExecutor(Executor):
    """Runs tasks on a Ray cluster, ``workers`` at once; one whose node or process died is run again elsewhere.

    ``address`` is that of the cluster; None takes the one around, or starts one on this machine. ``options`` are those
    of ``ray.remote`` for a task (``num_cpus``, ``num_gpus``, ``memory``, ``resources``, ``max_retries``, ...).
    """

    RETRIES = 8
    """How often a task may lose its node or its process."""

    def __init__(
        self,
        steps: Sequence[Any],
        tasks: int,
        workers: int,
        log: Path,
        *,
        address: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(steps, tasks, workers, log)
        self.address = address
        self.options = {"num_cpus": 1, "max_retries": self.RETRIES, "scheduling_strategy": "SPREAD"} | dict(
            options or {}
        )

    def run(self) -> None:
        """Run the tasks that are not whole. Raises what a task raises, ``InputError`` when Ray gives up on one."""
        try:
            import ray
        except ImportError as error:
            raise missing("ray", "ray") from error
        waiting = deque(self.get_incomplete_ranks())
        if not waiting:
            return
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(f"no Ray cluster at {self.address or 'hand'}: {error}") from error
        running: set[Any] = set()
        try:
            task = ray.remote(_run_rank).options(**self.options)
            executor = ray.put(self)
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.add(task.remote(executor, waiting.popleft()))
                done, _ = ray.wait(list(running), num_returns=1)
                running.difference_update(done)
                for each in done:
                    ray.get(each)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, InftyThinkError) else None
            raise cause or InputError(f"a task failed: {describe(error.cause or error)}") from error
        except ray.exceptions.RayError as error:
            raise InputError(f"Ray gave up on a task: {error}. Run the same command again") from error
        finally:
            for each in running:
                ray.cancel(each, force=True)
            if ours:
                ray.shutdown()


def _run_rank(executor: RayExecutor, rank: int) -> None:
    one_core()
    executor.run_rank(rank)


def one_core(cores: int = 1) -> None:
    """Have the tokenizers of this process take so many cores: the others are other tasks'. Call it before they load."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(cores))


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody else has a file locked, and keep it locked meanwhile; the system frees it with the process.

    Raises ``UsageError`` when the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise UsageError(f"{path}: cannot be locked ({error.strerror}); use a file system with locks") from error
        yield
    finally:
        os.close(descriptor)
