"""Where the tasks of the data commands run: the settings, and carrying stages out there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from inftythink.config import dump, option
from inftythink.errors import InputError, UsageError, missing

if TYPE_CHECKING:
    from inftythink.data.build import StageRun
    from inftythink.data.slurm import Slurm


@dataclass(frozen=True)
class SlurmSettings:
    """What Slurm jobs are asked for with."""

    partition: str | None = option(None, "partition of the jobs")
    time: str = option("24:00:00", "time limit of a task")
    cpus: int = option(1, "cores a task")
    memory: int = option(4, "GiB of memory a core")
    qos: str | None = option(None, "quality of service")
    venv: Path | None = option(None, "virtual environment of the jobs; the one of this command when not given")
    environment: str | None = option(None, "shell command that prepares a job, in place of a virtual environment")
    max_array: int = option(1001, "most tasks in a job array of this cluster")
    sbatch: dict[str, str] = option({}, "further argument of sbatch, for example account=lab")


@dataclass(frozen=True)
class RaySettings:
    """Which Ray cluster, and what a task needs there."""

    address: str | None = option(None, "address of the cluster; the one around, or a new one here, when not given")
    option: dict[str, str] = option({}, "option of ray.remote for a task, its value as YAML, for example num_cpus=2")


@dataclass(frozen=True)
class Where:
    """Settings of every command that runs tasks."""

    executor: Literal["local", "ray", "slurm"] = option("local", "where tasks run", identity=False)
    workers: int = option(max(1, min(8, os.cpu_count() or 1)), "tasks at work at once", identity=False)
    slurm: SlurmSettings = option(SlurmSettings(), "jobs of Slurm", identity=False)
    ray: RaySettings = option(RaySettings(), "the Ray cluster", identity=False)
    dry_run: bool = option(False, "show the jobs for Slurm and submit none", identity=False)
    finish: bool = option(False, "run nothing: check what tasks have written, and write the manifest", identity=False)


@dataclass(frozen=True)
class Step:
    """A stage to be carried out; ``facts`` go to the manifest, ``source`` is the folder of the stages before."""

    run: StageRun
    facts: dict[str, Any]
    source: Path | None = None


def carry_out(verb: str, config: Where, steps: Sequence[Step], written: Callable[[Step], None]) -> bool:
    """Run stages of one folder, one after the other; ``written`` is told of each that is whole.

    Returns False when they were submitted, and are still to be run. Raises ``UsageError`` when another command, or jobs
    that were submitted before, are at work in the folder.
    """
    if config.workers < 1:
        raise UsageError(f"--workers {config.workers}: nothing would ever be run")
    if config.dry_run and config.executor != "slurm":
        raise UsageError("--dry-run shows jobs: give --executor slurm with it")
    folder = steps[0].run.folder
    with held(folder, patience=60.0 if config.finish else 0.0):
        if not config.finish:
            _refuse_beside_jobs(folder)
        if config.executor == "slurm" and not config.finish and not all(step.run.whole() for step in steps):
            _submit(verb, config, steps, folder)
            return False
        for step in steps:
            _carry_out(config, step.run)
            written(step)
        (folder / "work" / "slurm.json").unlink(missing_ok=True)
    return True


def _carry_out(config: Where, stage: StageRun) -> None:
    from inftythink.cli._data_tables import progress

    if config.finish or config.executor == "slurm":
        stage.prepare()
        stage.check()
        return
    with progress(stage.stages) as tell:
        stage.run(tell, None if config.executor == "local" else _on_ray(config.ray))


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Have a folder for this command alone; wait ``patience`` seconds for another one to end."""
    from inftythink.store import lock

    deadline = time.monotonic() + patience
    while True:
        try:
            descriptor = lock(folder)
            break
        except UsageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    try:
        yield
    finally:
        os.close(descriptor)


def _on_ray(settings: RaySettings) -> Callable[..., Any]:
    try:
        from inftythink.data.executor import RayExecutor
    except ImportError as error:
        raise missing("datatrove", "data") from error
    try:
        options = {name: yaml.safe_load(text) for name, text in settings.option.items()}
    except yaml.YAMLError as error:
        raise UsageError(f"--ray-option: not YAML: {' '.join(str(error).split())}") from error
    return partial(RayExecutor, address=settings.address, options=options)


def _refuse_beside_jobs(folder: Path) -> None:
    if (folder / "work" / "slurm.json").exists():
        from inftythink.data.slurm import refuse_beside_jobs

        refuse_beside_jobs(folder)


def _submit(verb: str, config: Where, steps: Sequence[Step], folder: Path) -> None:
    """Submit stages, and this command with ``--finish`` behind them."""
    try:
        from inftythink.data.slurm import SlurmExecutor, command, submit
    except ImportError as error:
        raise missing("datatrove", "data") from error
    slurm = _slurm(config.slurm)
    executors = []
    for step in steps:
        step.run.prepare()
        step.run.log.mkdir(parents=True, exist_ok=True)
        executors.append(SlurmExecutor(step.run.steps, step.run.tasks, step.run.workers, step.run.log, slurm))
    saved = folder / "work" / f"{verb}.yaml"
    dump(replace(config, dry_run=False), saved)
    jobs = submit(folder, executors, command(verb, saved), config.dry_run)
    if not config.dry_run:
        print(f"submitted jobs {', '.join(jobs)}; the last one writes {folder}/manifest.json", file=sys.stderr)
        print("should one of them fail, give the same command again once none of them is left", file=sys.stderr)


def _slurm(settings: SlurmSettings) -> Slurm:
    from inftythink.data.slurm import Slurm

    if settings.partition is None:
        raise UsageError("--executor slurm needs --slurm-partition; 'sinfo' lists those of the cluster")
    here = Path(sys.prefix) if sys.prefix != sys.base_prefix else None
    values = {name: getattr(settings, name) for name in Slurm.__dataclass_fields__}
    if settings.environment is None and settings.venv is None:
        values["venv"] = here
    if values["venv"] is not None and not (values["venv"] / "bin" / "activate").exists():
        raise InputError(f"{values['venv']}: no virtual environment (it has no bin/activate)")
    return Slurm(**values)
