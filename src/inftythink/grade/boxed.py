r"""Finding the final answer that a conclusion states as ``\boxed{...}``."""

from __future__ import annotations

_OPENINGS = ("\\boxed{", "\\fbox{")


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{...}`` of ``text``, braces balanced; None when there is no whole one."""
    start = max(text.rfind(opening) + len(opening) if opening in text else -1 for opening in _OPENINGS)
    if start < 0:
        return None
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return None
