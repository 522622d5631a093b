"""Iterated arithmetic: the Collatz sequence (halve an even number, triple an odd one and add one).

Two questions: how many steps lead to 1, and where a number of steps leads. Numbers in the reasoning are written as
school arithmetic works, units first, and filled up with dots: 27 is ``72....``. So every digit of the next number
follows from digits that stand before it. The first line reads the question, the last one tells the answer, both tens
before units and filled up in front: ``....27``. So a digit's place always stands at the same distance.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from inftythink.tasks.puzzle import DRAWN, Puzzle

WIDTH = 6
"""Digits of the largest number that a sequence may reach."""
START = 5
"""Digits of the largest number that a sequence may start from."""
FREE = 1000
"""Numbers below this are in so many sequences that none of them can be held out."""

AROUND = 2
"""Lines of reasoning besides those of the sequence: one that reads the question, one that tells the answer."""

_NUMBER = rf"([1-9]\d{{0,{START - 1}}})"
_COUNT = re.compile(rf"How many Collatz steps from {_NUMBER}\?")
_PLACE = re.compile(rf"Where do ([1-9]\d{{0,2}}) Collatz steps lead from {_NUMBER}\?")


def step(number: int) -> int:
    """Return the number that follows."""
    return number // 2 if number % 2 == 0 else 3 * number + 1


def write(number: int) -> str:
    """Write a number units first, filled up with dots."""
    return str(number)[::-1].ljust(WIDTH, ".")


@dataclass(frozen=True, slots=True)
class Collatz:
    """The family; see the module."""

    name: str = "collatz"
    example: str = "How many Collatz steps from 27?"

    def solve(self, question: str) -> Puzzle | None:
        """Return the puzzle of a question; None for another question, or a sequence that leaves ``WIDTH`` digits."""
        if match := _COUNT.fullmatch(question):
            numbers = _sequence(int(match[1]), 999)
            if numbers is None or numbers[-1] != 1:
                return None
            count = len(numbers) - 1
            around = _aside("Read", 0, numbers[0]), _aside("Tell", count, count)
            lines = [f"Step {k:03d}: {write(number)}" for k, number in enumerate(numbers)]
            return Puzzle(question, (around[0], *lines, around[1]), str(count))
        if match := _PLACE.fullmatch(question):
            steps = int(match[1])
            numbers = _sequence(int(match[2]), steps)
            if numbers is None or len(numbers) <= steps:
                return None
            lines = [f"Left {steps - k:03d}: {write(number)}" for k, number in enumerate(numbers)]
            around = _aside("Read", steps, numbers[0]), _aside("Tell", 0, numbers[-1])
            return Puzzle(question, (around[0], *lines, around[1]), str(numbers[-1]))
        return None

    def sample(self, rng: random.Random, lines: tuple[int, int]) -> Puzzle:
        """Draw a puzzle of either question."""
        low, high = max(2, lines[0] - AROUND), lines[1] - AROUND
        for _ in range(DRAWN if high >= low else 0):
            # Every size of number comes up, and a number that is large enough to go on for so long.
            start = int(10 ** rng.uniform(0.3 if high < 20 else 1.0, START))
            if start >= 10**START:
                continue
            numbers = _sequence(start, 999)
            if numbers is None or len(numbers) < low:
                continue
            if low <= len(numbers) <= high and rng.random() < 0.5:
                question = f"How many Collatz steps from {start}?"
            else:
                steps = rng.randint(low, min(high, len(numbers))) - 1
                question = f"Where do {steps} Collatz steps lead from {start}?"
            puzzle = self.solve(question)
            if puzzle is not None:
                return puzzle
        raise ValueError(f"no reasoning of {lines[0]} to {lines[1]} lines was found")

    def check(self, question: str, answer: str) -> bool:
        """Compare numbers."""
        puzzle = self.solve(question)
        return puzzle is not None and answer.isdecimal() and int(answer) == int(puzzle.answer)

    def state(self, line: str) -> str | None:
        """Return the number of a line, units first."""
        digits = line.rpartition(" ")[2].strip(".")
        if line.startswith(("Read", "Tell")):
            digits = digits[::-1]
        return digits.ljust(WIDTH, ".") if len(digits) >= len(str(FREE)) else None


def _aside(word: str, count: int, number: int) -> str:
    """Return a line that has a number as it is read and told, tens before units."""
    return f"{word} {count:03d}: {str(number).rjust(WIDTH, '.')}"


def _sequence(start: int, steps: int) -> list[int] | None:
    """Return the sequence down to 1, or ``steps`` steps of it; None when a number grows too large."""
    numbers = [start]
    while numbers[-1] != 1 and len(numbers) <= steps:
        numbers.append(step(numbers[-1]))
        if numbers[-1] >= 10**WIDTH:
            return None
    return numbers
