"""Histories for the restart ablation: what a model is shown instead of the summary that it wrote.

``true``: the summary itself. ``empty``: nothing. ``shuffled``: its words in another order (its characters, where it has
no spaces), so that length and vocabulary stay and what it says does not. ``full``: all that was thought so far.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from inftythink.reasoner import derive_seed

History = Literal["true", "empty", "shuffled", "full"]
HISTORIES: tuple[History, ...] = get_args(History)


def history(how: History, summary: str, thoughts: Sequence[str], seed: int = 0) -> str:
    """Return the history to continue from, after ``thoughts`` and the last of their summaries; the same each time."""
    if how == "true":
        return summary
    if how == "empty":
        return ""
    return "\n\n".join(thoughts) if how == "full" else shuffled(summary, seed)


def shuffled(text: str, seed: int = 0) -> str:
    """Return a text with its words in another order and white space where it was; the same for the same arguments."""
    pattern = r"\S+" if re.search(r"\S\s+\S", text) else r"\S"
    words = re.findall(pattern, text)
    order = iter(sorted(range(len(words)), key=lambda place: derive_seed(seed, text, place)))
    return re.sub(pattern, lambda _: words[next(order)], text)
