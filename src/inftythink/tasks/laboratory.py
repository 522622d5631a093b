"""The laboratory's puzzles as tasks: questions that no training row of the laboratory is made of, drawn with a seed.

By default the question stands as it is, which is what the models that ship were trained on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from inftythink.errors import UsageError
from inftythink.grade.base import Ask, Grade
from inftythink.protocol import Problem
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.prompts import PLAIN, preset
from inftythink.tasks.puzzle import Family, Puzzle, families, grade, held_out_question

_DRAWN = 500
"""Puzzles that are drawn for one that is new and held out; one in ten is held out."""


def grade_puzzle(ask: Ask) -> Grade:
    """Grade a conclusion by the puzzle's own law: any right answer will do."""
    return grade(ask.data["question"], ask.conclusion)


@dataclass(frozen=True)
class Puzzles:
    """Puzzles of some families, in turns."""

    name: str
    about: str
    families: tuple[Family, ...]

    def items(self, settings: TaskSettings) -> list[Item]:
        """Draw ``settings.problems`` puzzles of ``settings.lines`` lines of reasoning.

        The first are the same however many are drawn. Raises ``UsageError`` when so many of that length are not found.
        """
        number = settings.drawn(self.name)
        low, high = settings.lines
        if not 2 <= low <= high:
            raise UsageError(f"--lines {low} {high}: at least 2, and the second not below the first")
        prompt = preset(settings.prompt) if settings.prompt else PLAIN
        draws = [_draw(family, settings.lines, settings.seed) for family in self.families]
        return [
            Item(prompt.apply(problem), grade_puzzle, {"question": problem.question}, family.name)
            for family, draw in itertools.islice(itertools.cycle(zip(self.families, draws, strict=True)), number)
            for problem in [next(draw)]
        ]


def tasks() -> tuple[Puzzles, ...]:
    """Return a task for each family, and one for all."""
    each = tuple(
        Puzzles(family.name, f"the laboratory's puzzles: {family.example}", (family,)) for family in families()
    )
    return (*each, Puzzles("puzzles", "the laboratory's puzzles, all families in turns", families()))


def _draw(family: Family, lines: tuple[int, int], seed: int) -> Iterator[Problem]:
    """Yield new held-out questions of a family for ever."""
    rng, seen = random.Random(f"{seed}/{family.name}/{lines}"), set[str]()
    while True:
        puzzle = _new(family, lines, rng, seen)
        seen.add(puzzle.question)
        yield Problem(f"{family.name}-{seed}-{len(seen)}", puzzle.question, puzzle.answer)


def _new(family: Family, lines: tuple[int, int], rng: random.Random, seen: set[str]) -> Puzzle:
    for _ in range(_DRAWN):
        try:
            puzzle = family.sample(rng, lines)
        except ValueError as error:
            raise UsageError(f"--lines {lines[0]} {lines[1]}: {family.name}: {error}") from error
        if held_out_question(puzzle.question) and puzzle.question not in seen:
            return puzzle
    raise UsageError(
        f"{family.name}: only {len(seen)} held-out questions of {lines[0]} to {lines[1]} lines were found; ask for "
        "fewer (--problems) or for longer ones (--lines)"
    )
