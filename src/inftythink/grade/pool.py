"""Grades in worker processes that can be killed: a grader that hangs or crashes costs only its own grade.

Each worker is driven by a thread of its own, so results can be waited for from threads and from asyncio alike
(``asyncio.wrap_future``). A worker ends with the thread that started it, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO, Any

from inftythink.errors import UsageError
from inftythink.grade.base import Ask, Grade, Grader

LOADING = 120.0
"""Most seconds in which a worker starts and loads a grader; not part of a grade's time."""

_CLOSING = 2.0
"""Seconds for a worker that hung up to end by itself."""

_BOOT = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from inftythink.grade.worker import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
"""What a worker runs: it finds the same modules as this process, and does not run this one's main module again."""

_STOPPED = Grade(None, None, "grader stopped: the pool was closed")

_Job = tuple[Future[Grade], str, Ask, "float | None"]


class GradePool:
    """Worker processes that grade; a context manager.

    A grade that takes longer than ``timeout`` seconds (or than the grader's own ``timeout``) is given up: its worker is
    killed and replaced, and the grade says "timed out after N s".
    """

    def __init__(self, workers: int = 2, timeout: float = 10.0) -> None:
        if workers < 1 or timeout <= 0:
            raise UsageError(f"grading needs at least one worker and a time above 0, not {workers} and {timeout:g} s")
        self._timeout = timeout
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: set[Future[Grade]] = set()
        self._workers = [_Worker() for _ in range(workers)]
        # Daemons: a program that ends without closing the pool is not held up; the workers end with their threads.
        self._threads = [Thread(target=self._serve, args=(worker,), daemon=True) for worker in self._workers]
        self._closed = False
        for thread in self._threads:
            thread.start()

    def submit(self, grader: Grader, ask: Ask) -> Future[Grade]:
        """Grade in a worker; the future never raises but ``CancelledError``: whatever fails is in the grade.

        Raises ``UsageError`` for a closed pool, and for a grader that a worker cannot import by its name.
        """
        if self._closed:
            raise UsageError("this pool of graders is closed")
        future: Future[Grade] = Future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._jobs.put((future, _name_of(grader), ask, getattr(grader, "timeout", None)))
        return future

    def close(self) -> None:
        """Give up what is not graded yet, and end all workers. May be called twice."""
        self._closed = True
        for future in list(self._waiting):
            future.cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for worker in self._workers:
            worker.stopping = True
            worker.kill()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> GradePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, worker: _Worker) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                future, name, ask, own = job
                if future.set_running_or_notify_cancel():
                    future.set_result(worker.grade(name, ask, own or self._timeout))
        finally:
            worker.end()


class _Worker:
    """One process that grades, replaced whenever it was killed; used by one thread."""

    def __init__(self) -> None:
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._connection: Connection | None = None
        self._killed = False

    def grade(self, name: str, ask: Ask, timeout: float) -> Grade:
        """Return the grade, or one that says what went wrong.

        Whoever killed the process (most often the kernel, which was out of memory) did not judge the answer, which gets
        one more chance.
        """
        grade = self._grade(name, ask, timeout)
        return self._grade(name, ask, timeout) if self._killed and not self.stopping else grade

    def _grade(self, name: str, ask: Ask, timeout: float) -> Grade:
        if self.stopping:
            return _STOPPED
        self._killed = False
        try:
            connection = self._connection or self._start()
            connection.send((name, ask))
            if not connection.poll(LOADING):
                return self._failed(f"grader crashed: {name} was not loaded within {LOADING:g} s")
            if (trouble := connection.recv()) is not None:
                return Grade(None, None, f"grader failed: {trouble}")
            if not connection.poll(timeout):
                return self._failed(f"timed out after {timeout:g} s")
            answer = connection.recv()
        except (EOFError, OSError) as error:
            return self._failed(f"grader crashed: {self._how_it_ended(error)}")
        except Exception as error:  # a question that cannot be pickled, an answer that cannot be read
            return self._failed(f"grader failed: {type(error).__name__}: {error}")
        return answer if isinstance(answer, Grade) else Grade(None, None, f"grader failed: {answer}")

    def _start(self) -> Connection:
        here, there = Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        arguments = [json.dumps(sys.path), str(there.fileno()), str(os.getpid())]
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[there.fileno()],
                # A group of its own: Ctrl-C reaches this process only, and a grader's own children end with it.
                start_new_session=True,
            )
        self._connection = here
        if self.stopping:  # closed while it started
            self.kill()
        return here

    def _failed(self, reason: str) -> Grade:
        self.end()
        return _STOPPED if self.stopping else Grade(None, None, reason)

    def _how_it_ended(self, error: BaseException) -> str:
        """Say how the process ended, with the last line that it wrote."""
        if self._process is None or self._errors is None:
            return f"its process could not be started: {error}"
        with suppress(subprocess.TimeoutExpired):  # it hung up, so it is about to end
            self._process.wait(_CLOSING)
        self.kill()
        code = self._process.wait()
        self._killed = code == -signal.SIGKILL
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 1000))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        return f"its process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def kill(self) -> None:
        """Kill the process and its group; from any thread."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process and forget it; the next grade starts another."""
        self.kill()
        if self._process is not None:
            self._process.wait()
        for thing in (self._connection, self._errors):
            if thing is not None:
                thing.close()
        self._process = self._errors = self._connection = None


def _name_of(grader: Grader) -> str:
    """Return ``module:function``; raise ``UsageError`` when that does not lead to the grader."""
    module, name = getattr(grader, "__module__", None), getattr(grader, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    if module == "__main__" or not name.isidentifier() or getattr(found, name, None) is not grader:
        raise UsageError(f"{grader!r} cannot be sent to a worker process: it must be a function of a module")
    return f"{module}:{name}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
