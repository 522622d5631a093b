"""What the adapters share: problems by their ids, and grading in processes that can be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import Any

from inftythink.errors import UsageError
from inftythink.grade.pool import GradePool
from inftythink.tasks.base import Item, TaskSettings
from inftythink.train.rl_run import read_items
from inftythink.train.rl_settings import Rounds, fit_rounds
from inftythink.train.rollout import grade_in

WORKERS = 2
"""Processes that grade, of each process that asks."""


@lru_cache(maxsize=8)
def items_of(tasks: str, settings: TaskSettings) -> Mapping[str, Item]:
    """Return the problems of tasks (a comma between) by their ids, ``TASK/PROBLEM``; a process reads them once."""
    return {item.problem.id: item for item in read_items(tasks, settings)}


def task_settings(given: Mapping[str, Any] | None) -> TaskSettings:
    """Return task settings of plain values. Raises ``UsageError`` for a name that there is not."""
    try:
        return TaskSettings(**_values(given))
    except TypeError as error:
        raise UsageError(f"settings of the task: {error}") from error


def rounds_of(given: Mapping[str, Any] | None, model: str | None) -> Rounds:
    """Return how a question is reasoned about, of plain values; eta and gamma are the model's own unless given.

    Raises ``UsageError`` for a name that there is not, and when nothing tells eta and gamma.
    """
    try:
        rounds = Rounds(**_values(given))
    except TypeError as error:
        raise UsageError(f"rounds: {error}") from error
    return fit_rounds(rounds, model)


def _values(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return values as settings hold them: what is a list elsewhere is a tuple."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in (given or {}).items()}


def grade(item: Item, conclusion: str | None) -> Future[dict[str, Any]]:
    """Grade in a process of its own; the result is the ``grade`` of a trajectory."""
    return grade_in(_pool())(item, conclusion)


@lru_cache(maxsize=1)
def _pool() -> GradePool:
    return GradePool(WORKERS)
