"""One graded sample as the metrics see it: what came of it and what it cost, without its text.

RUN/problems.jsonl      {"id": "TASK/PROBLEM", "task": …, "group": …}, one problem a line
RUN/trajectories.jsonl  finished trajectories with their grades
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inftythink.protocol import Outcome, Trajectory
from inftythink.store import read_json_lines, read_trajectories

GRADES = "grades.jsonl"


@dataclass(frozen=True, slots=True)
class RoundRow:
    """What a round cost: tokens, seconds, and the characters that it thought and carried on."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    seconds: float
    peak_context: int
    thought_chars: int
    summary_chars: int


@dataclass(frozen=True, slots=True)
class Row:
    """One graded sample.

    ``correct`` is None for a FAILED trajectory or a failed grade: in no denominator, counted beside every number.
    ``extracted`` is the answer in the form in which votes are counted. ``tokens`` are those generated over all rounds,
    ``seconds`` the sum of the rounds' generation times.
    """

    task: str
    problem: str
    sample: int
    group: str
    outcome: str
    correct: bool | None
    extracted: str | None
    reason: str | None
    rounds: tuple[RoundRow, ...]
    tokens: int
    peak_context: int
    seconds: float


def row_of(trajectory: Trajectory, group: str = "") -> Row:
    """Return the row of a graded trajectory, whose problem's id is ``TASK/PROBLEM``."""
    task, _, problem = trajectory.problem.id.partition("/")
    verdict, sums = trajectory.grade or {}, trajectory.totals
    return Row(
        task=task,
        problem=problem,
        sample=trajectory.sample,
        group=group,
        outcome=trajectory.outcome.value,
        correct=None if trajectory.outcome is Outcome.FAILED else verdict.get("correct"),
        extracted=verdict.get("extracted"),
        reason=verdict.get("reason", "not graded"),
        rounds=tuple(
            RoundRow(
                r.prompt_tokens,
                r.completion_tokens,
                r.cached_tokens,
                r.seconds,
                r.peak_context,
                len(r.thought),
                len(r.summary or ""),
            )
            for r in trajectory.rounds
        ),
        tokens=sums["completion_tokens"],
        peak_context=sums["peak_context"],
        seconds=sums["seconds"],
    )


def rows(run: Path) -> Iterator[Row]:
    """Yield the rows of a run folder. Raises ``InputError`` naming file and line when one cannot be read."""
    groups = {line["id"]: line["group"] for line in read_json_lines(run / "problems.jsonl")}
    grades = read_grades(run)
    for trajectory in read_trajectories(run):
        if trajectory.grade is None:
            trajectory = replace(trajectory, grade=grades.get((trajectory.problem.id, trajectory.sample)))
        yield row_of(trajectory, groups.get(trajectory.problem.id, ""))


def read_grades(run: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the grades on record, by problem and sample."""
    names = ("correct", "extracted", "reason")
    return {
        (line["id"], line["sample"]): {name: line[name] for name in names} for line in read_json_lines(run / GRADES)
    }
