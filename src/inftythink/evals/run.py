"""Runs an evaluation: problems to trajectories, trajectories to grades, each on record as soon as it is there.

    RUN/problems.jsonl      {"id": "TASK/PROBLEM", "task", "group", "problem", "answer"}
    RUN/trajectories.jsonl  finished trajectories; the grades are written into them when all are there
    RUN/grades.jsonl        {"id", "sample", "correct", "extracted", "reason"}
    RUN/metrics.json        every figure

Grading goes on beside generating, in processes of its own, and what is graded is graded once: a run that was killed
goes on where it was, in both.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from inftythink.errors import UsageError
from inftythink.evals.rows import GRADES, Row, read_grades, row_of
from inftythink.grade.base import Grade
from inftythink.grade.pool import GradePool
from inftythink.protocol import Outcome, Problem, Trajectory
from inftythink.reasoner import Journal, Reasoner
from inftythink.store import JsonLines, RunFolder, lock, read_trajectories, write_grades, write_json_lines
from inftythink.tasks.base import Item

Key = tuple[str, int]
Told = Callable[[Row], None]
"""Called with each graded sample, those of an earlier run of the same command first."""

_UNGRADED = 256
"""Most trajectories that wait for their grade, so that a slow grader does not fill the memory."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem of a task, as a run asks it: its id is ``TASK/PROBLEM``."""

    task: str
    item: Item

    @property
    def id(self) -> str:
        """The id in the run."""
        return f"{self.task}/{self.item.problem.id}"

    @property
    def problem(self) -> Problem:
        """The problem with that id."""
        return dataclasses.replace(self.item.problem, id=self.id)

    def to_json(self) -> dict[str, Any]:
        """Return a line of ``problems.jsonl``."""
        problem = self.item.problem
        texts = {"problem": problem.question, "answer": problem.answer}
        return {"id": self.id, "task": self.task, "group": self.item.group} | texts


async def evaluate(
    reasoner: Reasoner,
    asked: Iterable[Asked],
    samples: int,
    folder: RunFolder,
    pool: GradePool,
    told: Told,
    journal: Journal | None = None,
) -> None:
    """Generate and grade what is missing in a run folder; the reasoner is started already.

    ``journal`` stands between the reasoner and the folder, where calls are not to begin at nothing.

    Raises ``UsageError`` when a problem of the same id was another one when the run was started.
    """
    known = {one.id: one for one in asked}
    folder.keep_problems(one.to_json() for one in known.values())
    lines = JsonLines(folder.path / GRADES)
    grades = read_grades(folder.path)

    async def trajectories() -> AsyncGenerator[tuple[Trajectory, Asked], None]:
        """Those on record, then those that are missing."""
        for trajectory in folder.trajectories():
            one = known.get(trajectory.problem.id)
            if one is not None and trajectory.sample < samples:
                yield trajectory, one
        runs = reasoner.run((one.problem for one in known.values()), samples, journal or folder)
        async with aclosing(cast(Any, runs)) as new:
            async for trajectory in new:
                yield trajectory, known[trajectory.problem.id]

    try:
        async with aclosing(_graded(trajectories(), pool, grades)) as graded:
            async for trajectory, grade in graded:
                key = (trajectory.problem.id, trajectory.sample)
                if key not in grades and trajectory.outcome is not Outcome.FAILED:
                    lines.append({"id": key[0], "sample": key[1]} | grade)
                    grades[key] = grade
                told(row_of(dataclasses.replace(trajectory, grade=grade), known[key[0]].item.group))
    finally:
        lines.close()
    folder.write_grades(grades)


async def grade_again(run: Path, asked: Iterable[Asked], pool: GradePool, told: Told) -> int:
    """Grade all trajectories of a run folder anew; return how many verdicts changed. Nothing is generated.

    Raises ``UsageError`` when a trajectory's problem is not among ``asked``, or another process has the folder open.
    """
    known, before = {one.id: one for one in asked}, read_grades(run)

    async def trajectories() -> AsyncGenerator[tuple[Trajectory, Asked], None]:
        for trajectory in read_trajectories(run):
            if trajectory.problem.id not in known:
                raise UsageError(
                    f"{run}: the tasks have no problem {trajectory.problem.id!r} any more; nothing changed"
                )
            yield trajectory, known[trajectory.problem.id]

    grades: dict[Key, dict[str, Any]] = {}
    descriptor = lock(run)
    try:
        async with aclosing(_graded(trajectories(), pool, {})) as graded:
            async for trajectory, grade in graded:
                key = (trajectory.problem.id, trajectory.sample)
                if trajectory.outcome is not Outcome.FAILED:
                    grades[key] = grade
                told(row_of(dataclasses.replace(trajectory, grade=grade), known[key[0]].item.group))
        named = ({"id": name, "sample": sample} | grade for (name, sample), grade in grades.items())
        write_json_lines(run / GRADES, named)
        write_grades(run, grades)
    finally:
        os.close(descriptor)
    return sum(grade["correct"] != before.get(key, {}).get("correct") for key, grade in grades.items())


async def _graded(
    trajectories: AsyncGenerator[tuple[Trajectory, Asked], None], pool: GradePool, known: Mapping[Key, dict[str, Any]]
) -> AsyncGenerator[tuple[Trajectory, dict[str, Any]], None]:
    """Yield trajectories with their grades, in their order; many are graded at once."""
    waiting: deque[tuple[Trajectory, asyncio.Future[Grade] | None]] = deque()

    async def first() -> tuple[Trajectory, dict[str, Any]]:
        trajectory, future = waiting.popleft()
        if future is None:
            return trajectory, known[trajectory.problem.id, trajectory.sample]
        return trajectory, (await future).to_json()

    async with aclosing(trajectories):
        async for trajectory, asked in trajectories:
            done = (trajectory.problem.id, trajectory.sample) in known
            waiting.append((trajectory, None if done else _verdict(trajectory, asked, pool)))
            while waiting and (len(waiting) > _UNGRADED or (waiting[0][1] is None or waiting[0][1].done())):
                yield await first()
        while waiting:
            yield await first()


def _verdict(trajectory: Trajectory, asked: Asked, pool: GradePool) -> asyncio.Future[Grade]:
    """Grade an answer; what ended otherwise is wrong without a grader, and a failed trajectory is no answer at all."""
    if trajectory.outcome is Outcome.ANSWERED:
        return asyncio.wrap_future(pool.submit(asked.item.grader, asked.item.ask(trajectory.conclusion)))
    verdict: asyncio.Future[Grade] = asyncio.get_running_loop().create_future()
    failed = trajectory.outcome is Outcome.FAILED
    verdict.set_result(
        Grade(None, None, f"failed: {trajectory.reason}") if failed else Grade(False, None, trajectory.outcome.value)
    )
    return verdict
