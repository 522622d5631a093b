"""Reads run folders for the report: one trajectory at a time, with the row that the metrics see of it.

A line that cannot be read is told and left out, so that the report of a run that still goes on, or was killed, can be
looked at; nothing is left out in silence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from inftythink.errors import InputError, UsageError
from inftythink.evals.rows import Row, read_grades, row_of
from inftythink.protocol import Trajectory
from inftythink.store import read_json_lines

Reject = Callable[[int, str], None]
"""Called with the line number of ``trajectories.jsonl`` and what is wrong with it."""

NO_TASK = "questions"
"""The task of a problem whose id names none: those of ``inftythink solve``."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder; ``label`` is its name in the report, ``settings`` what its ``config.yaml`` holds."""

    path: Path
    label: str
    settings: Mapping[str, Any]

    @property
    def eta(self) -> int | None:
        """Most tokens of thought in a round, where the run's settings tell it."""
        eta = self.settings.get("eta")
        return eta if isinstance(eta, int) else None

    @property
    def joins_rounds(self) -> bool:
        """Whether anything crosses a round boundary: False for one chain of thought."""
        return self.settings.get("carry") != "none"


def label_folders(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders in the report. Raises ``UsageError`` for a folder given twice, or none at all."""
    if not paths:
        raise UsageError("no run was given: inftythink report RUN… --output DIR")
    places = [path.resolve() for path in paths]
    for path, count in Counter(places).items():
        if count > 1:
            raise UsageError(f"{path}: given {count} times")
    return _labels(places)


def open_run(path: Path, label: str) -> Run:
    """Return the run of a folder. Raises ``InputError`` for one that is no run folder."""
    if not (path / "trajectories.jsonl").is_file():
        raise InputError(f"{path}: not a run folder (it has no trajectories.jsonl)")
    return Run(path, label, settings_of(path))


def samples(run: Run, reject: Reject) -> Iterator[tuple[Trajectory, Row]]:
    """Yield the trajectories of a run, graded where a grade is on record, in the order of the file."""
    groups = {line["id"]: line.get("group", "") for line in read_json_lines(run.path / "problems.jsonl")}
    grades = read_grades(run.path)
    seen: set[tuple[str, int]] = set()
    with (run.path / "trajectories.jsonl").open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                trajectory = _trajectory(line)
            except (KeyError, TypeError, ValueError) as error:
                reject(number, f"not a trajectory ({type(error).__name__}: {error})")
                continue
            key = (trajectory.problem.id, trajectory.sample)
            if key in seen:
                reject(number, f"sample {key[1]} of {key[0]!r} stands before already")
                continue
            seen.add(key)
            if trajectory.grade is None and key in grades:
                trajectory = replace(trajectory, grade=grades[key])
            row = row_of(trajectory, groups.get(key[0], ""))
            yield trajectory, row if "/" in key[0] else replace(row, task=NO_TASK, problem=key[0])


def _trajectory(line: bytes) -> Trajectory:
    data = json.loads(line.decode("utf-8", "surrogatepass"))
    if not isinstance(data, dict):
        raise TypeError(f"a JSON object was expected, not {type(data).__name__}")
    return Trajectory.from_json(data)


def settings_of(path: Path) -> dict[str, Any]:
    """Return what a run's ``config.yaml`` holds; empty when there is none."""
    file = path / "config.yaml"
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a configuration ({error})") from error
    if not isinstance(found, dict):
        return {}
    model = found.get("model")  # of a folder its name: where it lay is nobody's business
    return found | {"model": Path(model).name} if isinstance(model, str) and Path(model).is_absolute() else found


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, with as many folders above them as it takes to tell them apart."""
    labels = [sound(path.name) for path in paths]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        equal = {label for label, count in Counter(labels).items() if count > 1}
        if not equal:
            break
        pairs = zip(paths, labels, strict=True)
        labels = [sound("/".join(path.parts[-depth:])) if label in equal else label for path, label in pairs]
    return labels


def sound(name: str) -> str:
    """Return a file's name as text that UTF-8 can hold."""
    return name.encode("utf-8", "replace").decode()
