"""The contract of every grader."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict: is the answer right, what was taken for the answer, and why it was judged so.

    ``correct`` is None when the grader itself failed: never counted as wrong. ``reason`` explains every verdict but a
    plain right one.
    """

    correct: bool | None
    extracted: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the ``grade`` of a trajectory's JSON."""
        return asdict(self)
