"""Puzzles with programmatic reasoning: what a family of them is, and the three that the laboratory uses.

A puzzle has a short question, a long line of thought that cannot be foreseen without doing it, and an answer that can
be checked. Every line of thought holds the whole state of the work, so that the last line is a perfect summary.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Protocol

from inftythink.grade import Grade, last_boxed

HELD_OUT = 10
"""One question in this many is held out, and one state: no training row shows it."""

DRAWN = 5000
"""Puzzles that are drawn until one has the length asked for."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question with its reasoning, one state a line, and the answer that the reasoning comes to."""

    question: str
    lines: tuple[str, ...]
    answer: str

    @property
    def reasoning(self) -> str:
        """The thoughts, a blank line between two of them."""
        return "\n\n".join(self.lines)

    @property
    def conclusion(self) -> str:
        """The answer as a conclusion states it."""
        return boxed(self.answer)


class Family(Protocol):
    """A family of puzzles."""

    @property
    def name(self) -> str:
        """One word."""
        ...

    @property
    def example(self) -> str:
        """A question of the family."""
        ...

    def solve(self, question: str) -> Puzzle | None:
        """Return the puzzle with its reasoning; None for a text that is no question of this family, or too large."""
        ...

    def sample(self, rng: random.Random, lines: tuple[int, int]) -> Puzzle:
        """Draw a puzzle whose reasoning has between ``lines[0]`` and ``lines[1]`` lines, both included.

        Raises ``ValueError`` when none is found in ``DRAWN`` draws.
        """
        ...

    def check(self, question: str, answer: str) -> bool:
        """Tell whether ``answer`` solves the question; any right answer will do."""
        ...

    def state(self, line: str) -> str | None:
        """Return the state in a line of reasoning as it is held out; None for one that every puzzle may meet."""
        ...


def boxed(answer: str) -> str:
    """Return an answer as a conclusion states it."""
    return f"\\boxed{{{answer}}}"


def held_out(family: Family, line: str) -> bool:
    """Tell whether the state in a line of reasoning is one of those that no training row may show."""
    state = family.state(line)
    return state is not None and _chosen(f"{family.name}/{state}")


def held_out_question(question: str) -> bool:
    """Tell whether a question is one of those that no training row is made of."""
    return _chosen(question)


def _chosen(text: str) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


def families() -> tuple[Family, ...]:
    """Return all families."""
    from inftythink.tasks.automaton import Automaton
    from inftythink.tasks.collatz import Collatz
    from inftythink.tasks.colouring import Colouring

    return (Collatz(), Colouring(), Automaton())


def family_of(question: str) -> Family | None:
    """Return the family that a question belongs to, None when it belongs to none."""
    return next((family for family in families() if family.solve(question) is not None), None)


def grade(question: str, conclusion: str | None) -> Grade:
    """Grade the conclusion of a trajectory. Raises ``ValueError`` for a question of no family."""
    family = family_of(question)
    if family is None:
        raise ValueError(f"no puzzle: {question!r}")
    if conclusion is None:
        return Grade(False, None, "no conclusion")
    answer = last_boxed(conclusion)
    if answer is None:
        return Grade(False, None, "no \\boxed{} in the conclusion")
    right = family.check(question, answer)
    return Grade(right, answer, None if right else "wrong answer")
