"""A state machine without a short cut: the cellular automaton of rule 45 on a ring.

A cell's next value is left XOR (itself OR NOT right). On a ring of 13 cells most rows go through hundreds or thousands
of others before one comes again; with rule 30 between walls most soon go in circles. No formula is known that leads
from a row to a far one without the rows between them.

In the reasoning each row is turned by one cell to the left, so that a cell follows from the three cells from its own
place on in the row before; the first two cells are written once more at the end, where the ring closes.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from inftythink.tasks.puzzle import DRAWN, Puzzle

CELLS = 13

_QUESTION = re.compile(rf"Rule 45, ([1-9]\d{{0,2}}) steps from ([.#]{{{CELLS}}})\?")


def step(row: str) -> str:
    """Return the row that follows, turned by one cell to the left."""
    cells = [cell == "#" for cell in row]
    after = (cells[i] ^ (cells[(i + 1) % CELLS] or not cells[(i + 2) % CELLS]) for i in range(CELLS))
    return "".join("#" if cell else "." for cell in after)


@dataclass(frozen=True, slots=True)
class Automaton:
    """The family; see the module."""

    name: str = "automaton"
    example: str = "Rule 45, 20 steps from ......#......?"

    def solve(self, question: str) -> Puzzle | None:
        """Return the puzzle of a question; None for another question."""
        match = _QUESTION.fullmatch(question)
        if match is None:
            return None
        steps, row = int(match[1]), match[2]
        lines, answer = [], row
        for left in range(steps, -1, -1):
            lines.append(f"Left {left:03d}|{row}{row[:2]}")
            answer, row = row, step(row)
        return Puzzle(question, tuple(lines), answer)

    def sample(self, rng: random.Random, lines: tuple[int, int]) -> Puzzle:
        """Draw a puzzle from all rows, but for those that come again within it."""
        for _ in range(DRAWN):
            row = "".join(rng.choice(".#") for _ in range(CELLS))
            steps = rng.randint(max(lines[0], 2), lines[1]) - 1
            puzzle = self.solve(f"Rule 45, {steps} steps from {row}?")
            if puzzle is not None and len({self.state(line) for line in puzzle.lines}) == len(puzzle.lines):
                return puzzle
        raise ValueError(f"no row goes on for {lines[0]} steps without a circle")

    def check(self, question: str, answer: str) -> bool:
        """Compare rows."""
        puzzle = self.solve(question)
        return puzzle is not None and answer == puzzle.answer

    def state(self, line: str) -> str | None:
        """Return the row of a line."""
        return line.rpartition("|")[2][:CELLS]
