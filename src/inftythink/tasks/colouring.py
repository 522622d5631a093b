"""Search with backtracking: colour a row of cells so that cells two or three apart differ, some being given.

Depth first, cell by cell from the left, colours in the order a, b, c. A line of reasoning is the state of the search:

    A B C   given cells                      .   not tried yet
    a b c   placed, without a clash          1 2 3   a, b or c is found impossible here; the next one is tried next

A cell whose 3 was found impossible is cleared, and the colour before it becomes impossible in its turn.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from inftythink.tasks.puzzle import DRAWN, Puzzle

CELLS = 15
APART = (2, 3)
NONE = "none"
"""The answer when there is no colouring."""

_COLOURS, _GIVEN, _CLASH = "abc", "ABC", "123"
_QUESTION = re.compile(rf"Colour ([ABC.]{{{CELLS}}})\?")


@dataclass(frozen=True, slots=True)
class Colouring:
    """The family; see the module."""

    name: str = "colouring"
    example: str = "Colour A....B.C.......?"

    def solve(self, question: str) -> Puzzle | None:
        """Return the puzzle of a question; None for another question, one with nothing to colour, or a bad start."""
        match = _QUESTION.fullmatch(question)
        if match is None or "." not in match[1] or not _fits(match[1]):
            return None
        lines, answer = _search(match[1])
        return Puzzle(question, tuple(f"Try {line}" for line in lines), answer)

    def sample(self, rng: random.Random, lines: tuple[int, int]) -> Puzzle:
        """Draw a puzzle with a random number of given cells; what is too easy or too hard is drawn again."""
        for _ in range(DRAWN):
            few = rng.randint(2, 5) if lines[1] > 14 else rng.randint(CELLS - lines[1], CELLS - 1)
            row = ["."] * CELLS
            for place in rng.sample(range(CELLS), min(few, CELLS - 1)):
                free = [c for c in _GIVEN if all(c != row[place + d] for d in _around(place))]
                row[place] = rng.choice(free) if free else "."
            puzzle = self.solve(f"Colour {''.join(row)}?")
            if puzzle is not None and lines[0] <= len(puzzle.lines) <= lines[1]:
                return puzzle
        raise ValueError(f"no row with {lines[0]} to {lines[1]} lines was found")

    def check(self, question: str, answer: str) -> bool:
        """Accept any right colouring, given cells as they were; ``none`` where there is none."""
        puzzle, match = self.solve(question), _QUESTION.fullmatch(question)
        if puzzle is None or match is None or answer == NONE:
            return puzzle is not None and answer == puzzle.answer
        kept = len(answer) == CELLS and all(
            b == a if a != "." else b in _COLOURS for a, b in zip(match[1], answer, strict=True)
        )
        return kept and _fits(answer)

    def state(self, line: str) -> str | None:
        """Return the cells of a line."""
        return line.rpartition(" ")[2]


def _around(place: int) -> list[int]:
    """Return the distances to the cells that must differ from the one at ``place``."""
    return [d for apart in APART for d in (-apart, apart) if 0 <= place + d < CELLS]


def _fits(row: str) -> bool:
    """Tell whether no two cells of a row clash."""
    cells = row.upper()
    return all(cells[i] == "." or all(cells[i] != cells[i + d] for d in _around(i)) for i in range(CELLS))


def _search(given: str) -> tuple[list[str], str]:
    """Return the states that the search goes through, and what it finds."""
    row, open_cells = list(given), [i for i, cell in enumerate(given) if cell == "."]
    states: list[str] = []

    def put(cell: int, colour: int) -> None:
        clash = any(row[cell + d].upper() == _GIVEN[colour] for d in _around(cell))
        row[cell] = (_CLASH if clash else _COLOURS)[colour]
        states.append("".join(row))

    depth = 0
    put(open_cells[0], 0)
    while True:
        now = row[open_cells[depth]]
        if now in _COLOURS:
            depth += 1
            if depth == len(open_cells):
                return states, states[-1]
            put(open_cells[depth], 0)
        elif now != _CLASH[-1]:
            put(open_cells[depth], _CLASH.index(now) + 1)
        elif depth == 0:
            return states, NONE
        else:
            row[open_cells[depth]] = "."
            depth -= 1
            cell = open_cells[depth]
            row[cell] = _CLASH[_COLOURS.index(row[cell])]
            states.append("".join(row))
