"""What a task is: problems, each with the grader of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inftythink.config import Count, option
from inftythink.errors import InputError, UsageError
from inftythink.grade.base import Ask, Grader
from inftythink.protocol import Problem
from inftythink.tasks.prompts import PRESETS
from inftythink.tasks.read import Row


@dataclass(frozen=True, slots=True)
class Item:
    """A problem with its grader.

    ``data`` is what the grader is told besides question and reference; it survives JSON. ``group`` is the subject,
    level or family that results are broken down by; it may be empty.
    """

    problem: Problem
    grader: Grader
    data: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    def ask(self, conclusion: str | None) -> Ask:
        """Return what the grader is asked about a conclusion."""
        return Ask(self.problem.question, self.problem.answer, conclusion, self.data)


@dataclass(frozen=True)
class TaskSettings:
    """Which problems of a task, and how they are put to the model.

    ``seed`` decides the order of the options of a multiple choice, and which problems are drawn where they are made.
    """

    data: str | None = option(None, "a local file or folder, or a Hugging Face data set, instead of the task's own")
    split: str | None = option(None, "split of the Hugging Face data set (default: the task's own, else test)")
    limit: Count | None = option(None, "only the first of the problems")
    prompt: str | None = option(
        None, "preset of the prompt instead of the task's own", choices=[preset.name for preset in PRESETS]
    )
    group: str | None = option(None, "column that results are broken down by (default: the task's own)")
    problems: Count = option(100, "how many problems a task draws that makes its own")
    lines: tuple[int, int] = option((20, 60), "fewest and most lines of reasoning of a puzzle", metavar="N")
    seed: int = 0

    def drawn(self, task: str) -> int:
        """Return how many problems ``task`` makes. Raises ``UsageError`` for none, and when there is a file."""
        if self.data is not None:
            raise UsageError(f"{task} makes its own problems: leave --data out")
        number = self.problems if self.limit is None else min(self.problems, self.limit)
        if number == 0:
            raise UsageError("--problems 0, --limit 0: at least 1 problem is needed")
        return number


class Task(Protocol):
    """A named set of problems."""

    @property
    def name(self) -> str:
        """What ``--task`` calls it."""
        ...

    @property
    def about(self) -> str:
        """One line: what it asks, and where it comes from."""
        ...

    def items(self, settings: TaskSettings) -> list[Item]:
        """Return the problems, in an order that depends on the settings only.

        Raises ``InputError`` for data that is not as it should be, naming file, line and columns; ``UsageError`` for
        settings that cannot work; ``MissingDependencyError`` where an optional package is needed.
        """
        ...


def collect(rows: Iterable[Row], settings: TaskSettings, make: Callable[[Row], Item]) -> list[Item]:
    """Make the items of the first ``settings.limit`` rows.

    Raises ``InputError`` for an id that comes twice, and when there is no row; ``UsageError`` for a limit of 0.
    """
    if settings.limit == 0:
        raise UsageError("--limit 0: at least 1 problem is needed")
    items: list[Item] = []
    places: dict[str, str] = {}
    source = settings.data or "the data set"
    for row in rows:
        if len(items) == settings.limit:
            break
        item = make(row)
        first = places.setdefault(item.problem.id, row.place)
        if first != row.place:
            raise InputError(f"{row.place}: the id {item.problem.id!r} stands at {first} already; ids are to be unique")
        items.append(item)
    if not items:
        raise InputError(f"{source}: there is no problem in it")
    return items
