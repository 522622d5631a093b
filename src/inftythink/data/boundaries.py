"""Where a piece of reasoning may be cut: thoughts, and inside a thought ever smaller pieces.

A thought begins after a blank line where something new starts. The published rule asks for a capital letter; that never
splits a script without case, so here a letter that is not lower case will do, also behind quotes or emphasis, and so
will a heading or a numbered item. What follows a colon or a comma goes with it (a formula, code, the first item).
Text without blank lines is taken line by line, text without line breaks sentence by sentence.

White space between two pieces belongs to the first, so that pieces joined are the text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

_BLANK = re.compile(r"\n\s*\n")
_LINE = re.compile(r"\n+")
_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"'”’)\]}*_]*\s+(?=[^\sa-z])"
    r"|(?<=[。！？；।॥؟۔።។။])[」』”’）】〉》\"')*]*\s*(?=[^\s。！？；।॥؟۔።។။」』”’）】〉》\"')*])"
)
_START = re.compile(r"#{1,6}\s|\d{1,3}[.)．、]\s|[*_>\"'“”‘’«「『【《〈(（\[¿¡~]{0,6}([^\W\d_])")
_INTRODUCES = (":", "：", ",", "，")
_NUMBER = re.compile(r"^[ \t]*\d{1,3}\Z", re.MULTILINE)

_MARK = re.compile(
    r"^[ \t]*(?P<fence>```|~~~)(?P<info>[^\n]*)$|(?P<dollars>\$\$)|(?<!\\)\\(?P<bracket>[\[\]])"
    r"|\\(?P<side>begin|end)\{(?P<name>[^}\n]{1,40})\}",
    re.MULTILINE,
)
_MARK_HINT = re.compile(r"```|~~~|\$\$|\\[\[]|\\begin")

LEVELS = 4
"""Levels inside a thought: paragraphs, sentences, lines outside formulas and code, all lines. Then come chunks."""


class Boundaries:
    """The places where one text may be cut; a place is the index of the first character behind the cut."""

    def __init__(self, text: str) -> None:
        self.text = text

    def thoughts(self) -> list[int]:
        """Return where thoughts begin, the first one (0) left out."""
        for separator in (_BLANK, _LINE):
            places = [m.end() for m in separator.finditer(self.text) if self._starts(m.start(), m.end())]
            if places:
                return places
            if separator is _BLANK and _BLANK.search(self.text):
                return []
        return self.within(1, 0, len(self.text))

    def within(self, level: int, start: int, end: int) -> list[int]:
        """Return the places between ``start`` and ``end``, both left out, at a ``level`` from 0 to ``LEVELS`` - 1."""
        if level == 1:
            places = sorted({*self._sentences(start, end), *self._edges(start, end)})
        else:
            places = [m.end() for m in (_LINE if level else _BLANK).finditer(self.text, start, end)]
        return [place for place in places if start < place < end and (level == 3 or not self._inside(place))]

    def chunks(self, start: int, end: int, size: int) -> Iterator[int]:
        """Yield places that leave at most ``size`` characters between them: behind white space, else any character.

        A character with its accents, a joined emoji, a flag and CR LF stay whole unless they alone are over ``size``.
        """
        while end - start > size:
            place = start + size
            space = max(self.text.rfind(white, start + size // 2, place) for white in (" ", "\n", "\t"))
            start = space + 1 if space > start else self._whole(start, place)
            yield start

    def _starts(self, before: int, place: int) -> bool:
        """Tell whether a new thought begins at ``place``, behind white space that begins at ``before``."""
        said = self.text[max(0, before - 8) : before].rstrip(" \t\r*_")
        if place >= len(self.text) or before == 0 or said[-1:] in _INTRODUCES:
            return False
        match = _START.match(self.text, place)
        return match is not None and not (match[1] and match[1].islower()) and not self._inside(place)

    def _sentences(self, start: int, end: int) -> Iterator[int]:
        for match in _SENTENCE.finditer(self.text, start, end):
            dot = match.start() - 1
            # "1. First" at the beginning of a line is an item, no sentence.
            if self.text[dot] != "." or not _NUMBER.search(self.text, max(start, dot - 12), dot):
                yield match.end()

    def _edges(self, start: int, end: int) -> Iterator[int]:
        """Yield where formulas and code blocks begin and end, if they have lines of their own."""
        first = bisect_right(self._ends, start)
        for opened, closed in zip(self._opens[first:], self._ends[first:], strict=True):
            if opened >= end:
                return
            line = self.text.rfind("\n", start, opened) + 1
            if line > start and not self.text[line:opened].strip():
                yield line
            if after := _LINE.match(self.text, closed):
                yield after.end()

    def _inside(self, place: int) -> bool:
        index = bisect_right(self._opens, place - 1) - 1
        return index >= 0 and place < self._ends[index]

    def _whole(self, start: int, place: int) -> int:
        """Move ``place`` back, by 32 characters at most, to where no character is torn from what belongs to it."""
        for back in range(place, max(start, place - 32), -1):
            if not _clings(self.text, start, back):
                return back
        return place

    @property
    def _opens(self) -> list[int]:
        return self._spans[0]

    @property
    def _ends(self) -> list[int]:
        return self._spans[1]

    @cached_property
    def _spans(self) -> tuple[list[int], list[int]]:
        """Where displayed formulas and code blocks begin and end, in order, none inside another."""
        spans: list[tuple[int, int]] = []
        if _MARK_HINT.search(self.text):
            unclosed = _scan(self.text, 0, spans)
            if unclosed is not None:  # a stray fence hid the formulas behind it
                _scan(self.text, unclosed, spans)
        return [start for start, _ in spans], [end for _, end in spans]


def _scan(text: str, position: int, spans: list[tuple[int, int]]) -> int | None:
    """Append what is opened and closed behind ``position``; return where an unclosed fence ends, if there is one.

    An opening that is never closed protects nothing; one that is opened again was stray.
    """
    kind, name, start, behind = "", "", 0, 0
    for mark in _MARK.finditer(text, position):
        opens, closes = False, False
        if mark["fence"]:
            what, named = "fence", mark["fence"]
            closes = kind == "fence" and name == named and not mark["info"].strip()
            opens = not closes and (kind != "fence" or name == named)
        elif kind == "fence":
            continue
        elif mark["dollars"]:
            what, named = "dollars", ""
            # Text with a blank line in it is no formula: the first $$ was stray, or closed one.
            closes = kind == "dollars" and not _BLANK.search(text, start, mark.start())
            opens = not closes and kind in ("", "dollars")
        elif mark["bracket"]:
            what, named = "bracket", ""
            closes = mark["bracket"] == "]" and kind == what
            opens = mark["bracket"] == "[" and kind != "environment"
        else:
            what, named = "environment", mark["name"]
            closes = mark["side"] == "end" and (kind, name) == (what, named)
            opens = mark["side"] == "begin" and kind == ""
        if closes:
            spans.append((start, mark.end()))
            kind = ""
        elif opens:
            kind, name, start, behind = what, named, mark.start(), mark.end()
    return behind if kind == "fence" else None


def _clings(text: str, start: int, place: int) -> bool:
    """Tell whether the character at ``place`` belongs to the one before it; ``start`` is known to be free."""
    if place >= len(text):
        return False
    before, here = text[place - 1], text[place]
    if here < "\u0300":
        return before == "\r" and here == "\n"
    if "\U0001f1e6" <= here <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff":  # half a flag, by parity
        flags = re.search(r"[\U0001f1e6-\U0001f1ff]+\Z", text[start:place])
        return flags is not None and len(flags[0]) % 2 == 1
    joiners = ("\u200d", "\ufe0e", "\ufe0f", "\u20e3")
    return (
        here in joiners
        or before == "\u200d"
        or "\U0001f3fb" <= here <= "\U0001f3ff"
        or "\U000e0020" <= here <= "\U000e007f"
        or unicodedata.category(here) in ("Mn", "Mc", "Me")
    )
