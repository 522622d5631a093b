r"""Finding the final answer that a conclusion states as ``\boxed{...}``."""

from __future__ import annotations

import re

_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BETWEEN = re.compile(
    r"[\s$,;]*(?:\\text\s*\{)?\s*(?:and|or)?\s*\}?(?:\\[,;: ()\[\]]|\\q?quad)?[\s$]*(?:[A-Za-z]\s*=\s*)?"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{...}`` of ``text``, braces balanced; None when there is no whole one."""
    for opening in reversed(list(_OPENING.finditer(text))):
        end = closing_brace(text, opening.end())
        if end is not None:
            return text[opening.end() : end].strip()
    return None


def closing_boxes(text: str) -> list[str]:
    """Return what stands in the last boxes of ``text`` that only commas, "and" and "or" stand between, in order."""
    boxes: list[str] = []
    following: int | None = None
    for opening in reversed(list(_OPENING.finditer(text))):
        end = closing_brace(text, opening.end())
        if end is None:
            continue
        if following is not None and not _BETWEEN.fullmatch(text, end + 1, following):
            break
        boxes.insert(0, text[opening.end() : end].strip())
        following = opening.start()
    return boxes


def closing_brace(text: str, start: int) -> int | None:
    r"""Return where the brace closes that opened before ``start``; ``\{`` and ``\}`` are no braces."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.start()
    return None
