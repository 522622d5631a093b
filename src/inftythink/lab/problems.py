"""Held-out problems, by the length of their reasoning in windows."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inftythink.errors import UsageError
from inftythink.protocol import Problem
from inftythink.render import Renderer
from inftythink.tasks.puzzle import Family, Puzzle, held_out, held_out_question

Span = tuple[float, float]
"""A range of lengths in windows: more than the first, at most the second."""

_DRAWN = 50_000
"""Puzzles that are drawn until one is new and shows a held-out state."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A problem, and how many windows the reasoning of one chain would fill: question, thoughts and conclusion."""

    problem: Problem
    windows: float


def windows(puzzle: Puzzle, renderer: Renderer, window: int) -> float:
    """Return the length of a puzzle as one growing chain, in windows of ``window`` tokens."""
    around = 5  # the template's two tokens, the opening and the closing of the thought, the end
    return (renderer.count(puzzle.question + puzzle.reasoning + puzzle.conclusion) + around) / window


def problems(
    family: Family,
    span: Span,
    number: int,
    *,
    renderer: Renderer,
    window: int,
    seed: int,
) -> list[Sized]:
    """Draw held-out questions that have a held-out state in their reasoning, of log-uniform lengths within ``span``.

    Raises ``UsageError`` when so many cannot be found.
    """
    rng, seen = random.Random(f"{seed}/{family.name}/{span}"), set[str]()
    line = renderer.count(family.sample(random.Random(0), (2, 20)).lines[0] + "\n\n")
    low, high = max(2, math.floor(span[0] * window / line) - 2), max(2, math.floor(span[1] * window / line))
    found: list[Sized] = []
    for _ in range(_DRAWN + 500 * number):
        if len(found) == number:
            return found
        middle = low * (high / low) ** rng.random()
        try:
            puzzle = family.sample(rng, (max(low, int(0.7 * middle)), min(high, max(int(1.4 * middle), low + 4))))
        except ValueError:  # there is none of that length: the family ends before the span does
            high = int(0.8 * middle)
            if high <= low:
                break
            continue
        size = windows(puzzle, renderer, window)
        if puzzle.question in seen or not held_out_question(puzzle.question) or not span[0] < size <= span[1]:
            continue
        seen.add(puzzle.question)
        if any(held_out(family, text) for text in puzzle.lines):
            name = f"{family.name}-{span[0]:g}-{span[1]:g}-{len(found) + 1}"
            found.append(Sized(Problem(name, puzzle.question, puzzle.answer), size))
    raise UsageError(f"{family.name}: only {len(found)} of {number} new problems of {span} windows were found")
