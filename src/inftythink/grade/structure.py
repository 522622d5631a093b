r"""What an answer is made of: lists, tuples, sets, intervals and unions, taken apart at their outermost level."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inftythink.grade.number import read_number

_COMMA = re.compile(
    r"[,;]|\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:lor|vee)(?![A-Za-z])"
)
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)")
_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]")
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class Parts:
    r"""Items and what encloses them: ``()``, ``[]``, ``(]``, ``[)``, ``{}`` for a set, or nothing for a bare list."""

    kind: str
    items: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        """Whether the order of the items is part of the answer."""
        return self.kind not in ("", "{}")


def take_apart(text: str) -> Parts | None:
    r"""Return the items of a tidy text, None for a single value. ``a \pm b`` is two where order does not count."""
    if read_number(text) is not None:
        return None
    kind, inside = _enclosed(text)
    items = _split(inside, _COMMA)
    if kind == "{}" or (not kind and len(items) > 1):
        return Parts(kind, tuple(one for item in items for one in _both_signs(item)))
    if kind and len(items) > 1:
        return Parts(kind, tuple(items))
    both = _both_signs(text)
    return Parts("", both) if len(both) > 1 else None


def union(text: str) -> list[str]:
    """Return the sets that are united in a text; the text alone when nothing is."""
    return _split(text, _CUP)


def equation(text: str) -> list[str]:
    """Return the sides of an equation, more than two for a chain; the text alone when it is none."""
    return [side.rstrip(": ") for side in _split(text, _EQUALS)]


def alternatives(text: str) -> list[str]:
    """Return what stands between "or" and commas."""
    return _split(text, _COMMA)


def _enclosed(text: str) -> tuple[str, str]:
    """Return the kind of the brackets around all of a text, and what is inside; "" and the text when there are none."""
    brackets = list(_BRACKETS.finditer(text))
    if len(brackets) < 2 or brackets[0].start() != 0 or brackets[-1].end() != len(text):
        return "", text
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket.group()[-1] in "([{" else -1
        if depth == 0 and bracket is not brackets[-1]:
            return "", text
    kind = brackets[0].group()[-1] + brackets[-1].group()[-1]
    if depth or kind not in ("()", "[]", "(]", "[)", "{}"):
        return "", text
    return kind, text[brackets[0].end() : brackets[-1].start()]


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split where a separator stands outside all brackets; empty pieces are left out."""
    depths, depth, place = [], 0, 0
    for bracket in _BRACKETS.finditer(text):
        depths += [depth] * (bracket.start() - place)
        depth = max(0, depth + (1 if bracket.group()[-1] in "([{" else -1))
        place = bracket.start()
    depths += [depth] * (len(text) - place)
    pieces, start = [], 0
    for found in separator.finditer(text):
        if depths[found.start()] == 0:
            pieces.append(text[start : found.start()])
            start = found.end()
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def _both_signs(text: str) -> tuple[str, ...]:
    r"""Return both values of a text with one ``\pm``."""
    if len(_SIGNS.findall(text)) != 1:
        return (text,)
    return tuple(_SIGNS.sub(sign, text).strip().removeprefix("+").strip() for sign in "+-")
