"""The tasks by name."""

from __future__ import annotations

import difflib

from inftythink.errors import UsageError
from inftythink.tasks import code, laboratory, mathematics
from inftythink.tasks.base import Task
from inftythink.tasks.gpqa import Gpqa
from inftythink.tasks.gym import PREFIX, ReasoningGym
from inftythink.tasks.jsonl import Jsonl


def load_task(name: str) -> Task:
    """Return the task of a name; ``reasoning-gym:GENERATOR`` is one for every generator.

    Raises ``UsageError`` for a name that there is not, with the closest ones.
    """
    if name.startswith(PREFIX) and name != PREFIX:
        return ReasoningGym(name.removeprefix(PREFIX))
    known = _tasks()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), task_names(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(task_names())}"
        raise UsageError(f"there is no task {name!r}; {hint}")
    return known[name]


def task_names() -> list[str]:
    """Return the names of all tasks; that of Reasoning Gym stands with ``GENERATOR`` in place of a generator."""
    return [*_tasks(), f"{PREFIX}GENERATOR"]


def _tasks() -> dict[str, Task]:
    tasks: tuple[Task, ...] = (
        *mathematics.tasks(),
        Gpqa(),
        *code.tasks(),
        *laboratory.tasks(),
        Jsonl(),
    )
    return {task.name: task for task in tasks}
