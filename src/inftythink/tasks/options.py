"""Multiple choice: the order of the options, and how a question shows them."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence


def shuffled(number: int, seed: int, id: str) -> list[int]:
    """Return the order of ``number`` options. It depends on the seed and the problem's id, not on other problems."""
    order = list(range(number))
    random.Random(f"{seed}/{id}").shuffle(order)
    return order


def letters(number: int) -> list[str]:
    """Return the letters of ``number`` options, A first. Raises ``ValueError`` for more than the alphabet has."""
    if number > len(string.ascii_uppercase):
        raise ValueError(f"{number} options, more than there are letters")
    return list(string.ascii_uppercase[:number])


def with_options(question: str, options: Sequence[str]) -> str:
    """Return the question with its options below, each on a line with its letter."""
    lines = (f"{letter}) {option}" for letter, option in zip(letters(len(options)), options, strict=True))
    return question + "\n\n" + "\n".join(lines)
