"""Folders of ``inftythink rl``: the curve of a training, and the runs that show what was answered before and after.

    RUN/history.jsonl          figures of every step and every examination
    RUN/examinations/000000/   what was answered before the first step: a run folder
    RUN/rollouts/000001/       what step 1 sampled: a run folder

The history is written when a training ends. Of one that goes on, or was killed, the figures are made from its folders,
as the training makes them; what only the trainer knows (masked share, entropy) is then missing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inftythink.errors import InputError, UsageError
from inftythink.report.read import Run, label_folders, open_run, samples, settings_of, sound
from inftythink.store import read_json_lines
from inftythink.train.rollout import figures

Record = dict[str, Any]

EXAMINED = "eval_"
"""Beginning of the names of an examination's figures."""

_KINDS = {"examinations": "after step", "rollouts": "step"}
"""Folders of runs in a training, the ones to compare first, and what a run of theirs is called."""


@dataclass(frozen=True, slots=True)
class Training:
    """A folder of ``inftythink rl``; ``runs`` are what it answered first and last, or as much as there is of that."""

    path: Path
    label: str
    runs: tuple[Run, ...]


def open_folders(paths: Sequence[Path]) -> tuple[list[Run], list[Training]]:
    """Return the runs of folders in their order, those inside trainings too, and the trainings.

    Raises ``UsageError`` for a folder given twice, none at all, or two runs of one name; ``InputError`` for one that is
    neither a run nor a training.
    """
    runs: list[Run] = []
    trainings: list[Training] = []
    for path, label in zip(paths, label_folders(paths), strict=True):
        if not (path / "trajectories.jsonl").is_file() and _is_training(path):
            trainings.append(_open(path, label))
            runs += trainings[-1].runs
        else:
            runs.append(open_run(path, label))
    for label, count in Counter(run.label for run in runs).items():
        if count > 1:
            raise UsageError(f"{count} runs would be called {label!r}; rename a folder")
    return runs, trainings


def _is_training(path: Path) -> bool:
    return (path / "history.jsonl").is_file() or any((path / kind).is_dir() for kind in _KINDS)


def _open(path: Path, label: str) -> Training:
    told = {kind: _steps(path / kind) for kind in _KINDS}
    kind = next((kind for kind in _KINDS if len(told[kind]) > 1), next((kind for kind in _KINDS if told[kind]), None))
    if kind is None:
        raise InputError(f"{path}: no step and no examination of this training is on record")
    ends = dict.fromkeys((told[kind][0], told[kind][-1]))
    settings = settings_of(path)
    return Training(path, label, tuple(_run(path, label, kind, step, settings) for step in ends))


def _steps(folder: Path) -> list[int]:
    """Return the numbers of the run folders in ``folder``, in order."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(run.name) for run in found if run.name.isdecimal() and (run / "trajectories.jsonl").is_file())


def _run(path: Path, label: str, kind: str, step: int, settings: Record) -> Run:
    name = f"{_KINDS[kind]} {step}"
    return Run(path / kind / f"{step:06d}", f"{label}, {name}", _flat(settings, kind, f"{sound(path.name)}, {name}"))


def _flat(settings: Record, kind: str, model: str) -> Record:
    """Return a training's settings under the names that an evaluation has for them."""

    def part(*names: str) -> Record:
        found: Any = settings
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}

    asked, sampled = part("train" if kind == "rollouts" else "examine"), part("group")
    how = sampled if kind == "rollouts" else asked
    rounds = part("rounds") | {"max_rounds": part("rounds").get("phi"), "model": model, "seed": settings.get("seed")}
    return rounds | {"task": asked.get("task"), "samples": how.get("samples"), "temperature": how.get("temperature")}


def history(training: Training, reject: Callable[[str], None]) -> tuple[list[Record], list[Record]]:
    """Return the figures of every step, and those of every examination under the same names.

    A record has ``run``, ``step`` and what the history holds of the step; what is no finite number is None. A line that
    cannot be read is told to ``reject`` and left out.
    """
    steps: list[Record] = []
    examinations: list[Record] = []
    for entry in _entries(training, reject):
        about = {"run": training.label, "step": entry["step"]}
        told = {name: _finite(value) for name, value in entry.items() if name != "step" and _is_number(value)}
        examined = {name[len(EXAMINED) :]: value for name, value in told.items() if name.startswith(EXAMINED)}
        trained = {name: value for name, value in told.items() if not name.startswith(EXAMINED)}
        steps += [about | trained] if trained else []
        examinations += [about | examined] if examined else []
    return steps, examinations


def _entries(training: Training, reject: Callable[[str], None]) -> Iterator[Record]:
    path = training.path / "history.jsonl"
    if not path.is_file():
        yield from _made(training, reject)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line.decode("utf-8"))
            except ValueError as error:
                reject(f"history.jsonl:{number}: not a line of JSON ({error})")
                continue
            if isinstance(entry, dict) and _is_number(entry.get("step")) and math.isfinite(entry["step"]):
                yield entry
            else:
                reject(f"history.jsonl:{number}: no figures of a step")


def _made(training: Training, reject: Callable[[str], None]) -> Iterator[Record]:
    """Make the figures of a training that has not ended from what its steps and examinations left."""
    for kind in _KINDS:
        for step in _steps(training.path / kind):
            run = _run(training.path, training.label, kind, step, {})
            place = f"{kind}/{step:06d}/trajectories.jsonl"

            def tell(line: int, why: str, place: str = place) -> None:
                reject(f"{place}:{line}: {why}")

            told = figures([trajectory for trajectory, _ in samples(run, tell)])
            if kind == "examinations":
                yield {"step": step} | {EXAMINED + name: value for name, value in told.items()}
                continue
            rewards = [line.get("reward") for line in read_json_lines(run.path / "rewards.jsonl")]
            known = [float(reward or 0.0) for reward in rewards if _is_number(reward)]
            yield {"step": step, "reward": sum(known) / max(1, len(known))} | told


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
