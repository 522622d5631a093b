"""Stages as Slurm job arrays, each after the one before, and a last job that checks the books.

    DIR/work/slurm.json                    the jobs that were submitted
    DIR/work/finish.slurm                  the script of the last job
    DIR/work/STAGE/log/launch_script.slurm the script of a stage's array
    DIR/work/STAGE/log/slurm_logs/         what its tasks printed

The tasks are run by datatrove: ``launch_pickled_pipeline`` unpacks the executor in the job. Submitting is ours:
datatrove's lets a later stage begin when the last of several arrays is whole, whatever became of the first ones, and
would change the list of tasks under an array that still waits in the queue.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dill  # type: ignore[import-untyped]
from datatrove.executor.slurm import SlurmPipelineExecutor

from inftythink.data.executor import alone, one_core
from inftythink.errors import InputError, UsageError


@dataclass(frozen=True)
class Slurm:
    """What jobs are asked for with. ``memory``: GiB a core. ``environment``: a shell command in place of ``venv``.

    ``max_array``: most tasks in an array of this cluster. ``sbatch``: further arguments, by name.
    """

    partition: str
    time: str = "24:00:00"
    cpus: int = 1
    memory: int = 4
    qos: str | None = None
    environment: str | None = None
    venv: Path | None = None
    max_array: int = 1001
    sbatch: Mapping[str, str] = field(default_factory=dict)


class SlurmExecutor(SlurmPipelineExecutor):  # type: ignore[misc]
    """The tasks of a stage as job arrays; in a job it runs the one that the job is for."""

    def __init__(self, steps: Sequence[Any], tasks: int, workers: int, log: Path, slurm: Slurm) -> None:
        activate = None if slurm.venv is None else slurm.venv.absolute() / "bin" / "activate"
        super().__init__(
            list(steps),
            tasks,
            slurm.time,
            slurm.partition,
            cpus_per_task=slurm.cpus,
            mem_per_cpu_gb=slurm.memory,
            workers=min(workers, tasks),
            job_name=f"inftythink-{log.parent.name}",
            qos=slurm.qos,
            env_command=slurm.environment,
            venv_path=None if activate is None else shlex.quote(str(activate)),
            sbatch_args={"chdir": os.getcwd()} | dict(slurm.sbatch),
            max_array_size=slurm.max_array,
            logging_dir=str(log.absolute()),
        )
        self.log = log.absolute()

    def _run_for_rank(self, rank: int, *arguments: Any, **options: Any) -> Any:
        one_core(self.cpus_per_task)
        with alone(self.log / "locks" / f"{rank:05d}"):
            return super()._run_for_rank(rank, *arguments, **options)

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """Return what datatrove wants in the environment of a task; no task here has several nodes."""
        names = ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node", "executor")
        return {f"datatrove_{name}": "" for name in names}

    def script(self, command: str, array: int | None) -> str:
        """Return a job's script: an array of so many, or one job."""
        arguments = self.get_sbatch_args(array or 1)
        if array is None:
            del arguments["array"]
        return str(self.get_launch_file_contents(arguments, command))

    def launch(self, after: Sequence[str], queue: Queue) -> list[str]:
        """Submit the tasks that are not whole, to begin when the jobs ``after`` were successful; return the jobs.

        Arrays of one stage run one after the other, so that ``workers`` is the most tasks at once.
        """
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return []
        pickled = self.log / "executor.pik"
        pickled.write_bytes(dill.dumps(self, fmode=dill.CONTENTS_FMODE))
        (self.log / "ranks_to_run.json").write_text(json.dumps(ranks))
        size = min(len(ranks), self.max_array_size) if self.max_array_size > 0 else len(ranks)
        place = self.log / "launch_script.slurm"
        place.write_text(self.script(f"srun -l -n 1 launch_pickled_pipeline {shlex.quote(str(pickled))}", size))
        jobs: list[str] = []
        for offset in range(math.ceil(len(ranks) / size)):
            before = [*dependency("afterok", after), *dependency("afterany", jobs[-1:])]
            jobs.append(queue.submit(place, [f"--export=ALL,RUN_OFFSET={offset}"], before))
        return jobs


def dependency(kind: str, jobs: Sequence[str]) -> list[str]:
    """Return the condition that ``jobs`` have ended, as ``sbatch`` has it; nothing for none."""
    return [":".join([kind, *jobs])] if jobs else []


class Queue:
    """Slurm's commands. ``dry``: show what would be submitted, submit nothing."""

    def __init__(self, dry: bool = False) -> None:
        self._dry = dry
        self._shown = 0

    def submit(self, script: Path, arguments: Sequence[str], before: Sequence[str]) -> str:
        """Submit a script, and return the job. Raises ``InputError`` when Slurm does not take it."""
        conditions = [f"--dependency={','.join(before)}", "--kill-on-invalid-dep=yes"] if before else []
        command = ["sbatch", "--parsable", *arguments, *conditions, str(script)]
        if self._dry:
            self._shown += 1
            print(f"$ {shlex.join(command)}\n{script.read_text()}")
            return f"JOB{self._shown}"
        return _call(command, "is Slurm on this machine?").strip().split(";")[0]

    def there(self, jobs: Sequence[str]) -> list[str]:
        """Return those of ``jobs`` that still wait or run."""
        # %F is the array's own number; its tasks have others.
        asked = ["squeue", "--noheader", "--format=%F", f"--jobs={','.join(jobs)}"]
        try:
            told = _call(asked, "is Slurm on this machine?")
        except InputError as error:
            if "Invalid job id" in str(error):  # Slurm has forgotten all of them
                return []
            raise
        return sorted(set(told.split()) & set(jobs))


def _call(command: Sequence[str], hint: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be called ({error.strerror}); {hint}") from error
    if done.returncode:
        raise InputError(f"{command[0]} failed with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def submit(folder: Path, executors: Sequence[SlurmExecutor], finish: Sequence[str], dry: bool = False) -> list[str]:
    """Submit stages, each to begin when the one before is whole, and then the command ``finish`` as a job.

    Returns the jobs, the last of which is that of ``finish``.
    """
    queue, jobs, after = Queue(dry), list[str](), list[str]()
    record = folder / "work" / "slurm.json"
    for executor in executors:
        after = executor.launch(after, queue) or after
        jobs += [job for job in after if job not in jobs]
        if not dry:
            record.write_text(json.dumps({"jobs": jobs}))
    script = folder / "work" / "finish.slurm"
    last = executors[-1]
    last.job_name, last.cpus_per_task = "inftythink-finish", 1
    script.write_text(last.script(f"srun -n 1 {shlex.join(finish)}", None))
    jobs.append(queue.submit(script, [], dependency("afterok", after)))
    if not dry:
        record.write_text(json.dumps({"jobs": jobs}))
    return jobs


def refuse_beside_jobs(folder: Path) -> None:
    """Raise ``UsageError`` when jobs that were submitted for a folder still wait or run."""
    record = folder / "work" / "slurm.json"
    if not record.exists():
        return
    jobs = json.loads(record.read_text())["jobs"]
    try:
        there = Queue().there(jobs) if jobs else []
    except InputError as error:
        raise UsageError(
            f"{folder}: jobs {', '.join(jobs)} were submitted for it, and Slurm cannot be asked for them ({error}). "
            f"Once they have ended, delete {record}"
        ) from error
    if there:
        raise UsageError(
            f"{folder}: its jobs {', '.join(there)} still wait or run; wait for them, or end them with "
            f"'scancel {' '.join(there)}'"
        )


def command(verb: str, config: Path) -> list[str]:
    """Return the command line that checks what the tasks of a command have written."""
    return [sys.executable, "-m", "inftythink", "data", verb, "--config", str(config.absolute()), "--finish"]
