"""The contract of every grader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict: is the answer right, what was taken for the answer, and why it was judged so.

    ``correct`` is None when the grader itself failed: never counted as wrong. ``extracted`` is in a form in which equal
    answers mostly are equal strings, so that votes can be counted. ``reason`` explains every verdict but a plain right
    one.
    """

    correct: bool | None
    extracted: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the ``grade`` of a trajectory's JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a grader is asked; survives pickle and JSON.

    ``gold`` is the reference answer, None when the task has another way to know (tests, a verifier). ``conclusion`` is
    None when a trajectory has none: wrong, with the reason "no conclusion". ``data`` is what the task knows besides.
    """

    question: str
    gold: str | None
    conclusion: str | None
    data: Mapping[str, Any] = field(default_factory=dict)


Grader = Callable[[Ask], Grade]
"""A module-level function, so that a worker process can be sent its name.

It may carry two attributes (``limits`` sets them): ``timeout``, the seconds that one grade may take, which wins over
the pool's; and ``prepare``, a function that loads what the grader needs before any clock runs.
"""

NO_CONCLUSION = Grade(False, None, "no conclusion")
NO_GOLD = Grade(None, None, "the problem has no reference answer")
NO_ANSWER = Grade(False, None, "no answer in the conclusion")
WRONG = "wrong answer"

G = TypeVar("G", bound=Grader)


def limits(*, timeout: float | None = None, prepare: Callable[[], object] | None = None) -> Callable[[G], G]:
    """Say of a grader how long one grade may take, and what is to be loaded before."""

    def mark(grader: G) -> G:
        for name, value in (("timeout", timeout), ("prepare", prepare)):
            if value is not None:
                setattr(grader, name, value)
        return grader

    return mark
