r"""The incremental reader of what a model writes in one round. ``format.py`` reads whole texts through it.

Any way of cutting a text into chunks gives the same events as reading it whole (adjacent events of one kind joined),
because a character is only let go once no later one can change what it is: the beginning of a possible tag, and white
space that a closing tag would swallow, are held back.

Where the text stands decides what a tag means there; a tag that means nothing where it stands is content:

==============  =====================================  ==================================================
place           tags that count                        everything else
==============  =====================================  ==================================================
``OPEN``        <think>, <summary>, stray </think>     white space is skipped; other text -> ``PLAIN``
``THOUGHT``     </think> (and <think> at the start,    the thought, verbatim; one line break before
                which repeats what is open: skipped)   </think> belongs to the tag
``BETWEEN``     <summary>                              white space is skipped; other text -> ``CONCLUSION``
``SUMMARY``     </summary>                             the summary, white space around it dropped
``CONCLUSION``  none                                   the conclusion, white space around it dropped
``PLAIN``       </think>: all so far was the thought   the conclusion, as above
``AFTER``       none                                   kept in ``Reader.after``; changes nothing
==============  =====================================  ==================================================

A tag quoted as content carries a backslash (``<\think>``), see ``Tags.escape``; the reader takes one away.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache


class Place(enum.Enum):
    """Where in a round's text the reader stands."""

    OPEN = "open"
    THOUGHT = "thought"
    BETWEEN = "between"
    SUMMARY = "summary"
    CONCLUSION = "conclusion"
    PLAIN = "plain"
    AFTER = "after"


class Kind(enum.Enum):
    """What an event's text belongs to."""

    THOUGHT = "thought"
    SUMMARY = "summary"
    CONCLUSION = "conclusion"
    RECLASSIFY = "reclassify"
    """No text: what came as CONCLUSION so far was the thought (a template opened it; only its end was seen)."""


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of text with its meaning."""

    kind: Kind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tags:
    """The names between the angle brackets. Each must be a word of letters, digits, ``_`` or ``-``."""

    think: str = "think"
    summary: str = "summary"
    history: str = "history"

    def __post_init__(self) -> None:
        names = (self.think, self.summary, self.history)
        if len(set(names)) != 3 or not all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names):
            raise ValueError(f"tags must be three different words of letters, digits, '_' or '-', not {names}")

    def escape(self, text: str) -> str:
        r"""Make ``text`` unable to be read as a tag: ``<think>`` becomes ``<\think>``, ``<\think>`` ``<\\think>``."""
        return _pattern(self).sub(r"<\\\1\2\3>", text)

    def unescape(self, text: str) -> str:
        """Undo ``escape``: for every text, ``unescape(escape(text)) == text``."""
        return _pattern(self).sub(lambda tag: tag[0] if not tag[1] else f"<{tag[1][1:]}{tag[2]}{tag[3]}>", text)


@lru_cache(maxsize=64)
def _pattern(tags: Tags) -> re.Pattern[str]:
    r"""Match a tag: group 1 the backslashes, 2 the ``/`` of a closing tag, 3 the name."""
    return re.compile(rf"<(\\*)(/?)({tags.think}|{tags.summary}|{tags.history})>")


@lru_cache(maxsize=64)
def _partial(tags: Tags) -> re.Pattern[str]:
    """Match what stands at the end of a text and could still become a tag."""
    starts = sorted(
        {re.escape(name[:n]) for name in (tags.think, tags.summary, tags.history) for n in range(len(name) + 1)}
    )
    return re.compile(rf"<\\*/?(?:{'|'.join(starts)})\Z")


_STRIPPED = {Place.SUMMARY: Kind.SUMMARY, Place.CONCLUSION: Kind.CONCLUSION, Place.PLAIN: Kind.CONCLUSION}


class Reader:
    """Reads one round's text, fed in chunks of any size.

    ``place`` says where the text stands; ``after`` holds what followed a closed summary. ``thought_opened`` is True
    when the prompt ended with an opened thought, so that the text begins inside it.
    """

    def __init__(self, tags: Tags, start: Place) -> None:
        self.place = start
        self.after = ""
        self._tags = tags
        self._pattern = _pattern(tags)
        self._held = ""  # may be the beginning of a tag
        self._space = ""  # may belong to the tag that follows
        self._started = False  # something of the current thought, summary or conclusion was let go
        self._break_due = False  # the line break behind a written <think> belongs to the tag
        self._pending: list[tuple[Kind, list[str]]] = []

    @property
    def thinking(self) -> bool:
        """Whether what comes next may still be of the thought."""
        return self.place in (Place.OPEN, Place.THOUGHT, Place.PLAIN)

    def feed(self, chunk: str) -> list[Event]:
        """Take the next characters; return what has become certain."""
        text = self._held + chunk
        position = 0
        for tag in self._pattern.finditer(text):
            self._text(text[position : tag.start()])
            self._tag(tag)
            position = tag.end()
        # A possible tag is short but for its backslashes; only its own "<" need be looked for.
        partial = _partial(self._tags).search(text, max(position, text.rfind("<", position)))
        end = partial.start() if partial else len(text)
        self._text(text[position:end])
        self._held = text[end:]
        return self._take()

    def close(self) -> list[Event]:
        """Say that no more text comes; return what was held back and is content after all."""
        held, self._held = self._held, ""
        self._text(held)
        if self.place is Place.THOUGHT:
            self._emit(Kind.THOUGHT, self._space)
        self._space = ""
        return self._take()

    def _take(self) -> list[Event]:
        pending, self._pending = self._pending, []
        return [Event(kind, "".join(texts)) for kind, texts in pending]

    def _emit(self, kind: Kind, text: str) -> None:
        if not text:
            return
        self._started = True
        if self._pending and self._pending[-1][0] is kind:
            self._pending[-1][1].append(text)
        else:
            self._pending.append((kind, [text]))

    def _text(self, text: str) -> None:
        if not text:
            return
        if self.place is Place.AFTER:
            self.after += text
        elif self.place is Place.THOUGHT:
            self._thought(text)
        elif self.place in _STRIPPED:
            self._stripped(_STRIPPED[self.place], text)
        elif text := text.lstrip():
            self._go(Place.PLAIN if self.place is Place.OPEN else Place.CONCLUSION)
            self._text(text)

    def _thought(self, text: str) -> None:
        """Let thoughts go verbatim, but for a line break that a following ``</think>`` would take."""
        if self._break_due:
            self._break_due = False
            text = text.removeprefix("\n")
        text = self._space + text
        self._space = "\n" if text.endswith("\n") else ""
        self._emit(Kind.THOUGHT, text.removesuffix("\n"))

    def _stripped(self, kind: Kind, text: str) -> None:
        """Let text go without the white space before its first and behind its last character."""
        body = text.rstrip()
        if not body:
            self._space += text if self._started else ""
            return
        space, self._space = self._space, text[len(body) :]
        self._emit(kind, space + body if self._started else body.lstrip())

    def _tag(self, tag: re.Match[str]) -> None:
        slashes, closing, name = tag[1], tag[2], tag[3]
        if slashes:
            self._text(f"<{slashes[1:]}{closing}{name}>")
            return
        place, tags = self.place, self._tags
        if closing and name == tags.think and place in (Place.THOUGHT, Place.OPEN, Place.PLAIN):
            if place is not Place.THOUGHT:
                self._pending.append((Kind.RECLASSIFY, []))
            self._go(Place.BETWEEN)
        elif closing and name == tags.summary and place is Place.SUMMARY:
            self._go(Place.AFTER)
        elif not closing and name == tags.think and place is Place.OPEN:
            self._go(Place.THOUGHT)
            self._break_due = True
        elif not closing and name == tags.think and place is Place.THOUGHT and not self._started:
            self._space, self._break_due = "", True
        elif not closing and name == tags.summary and place in (Place.OPEN, Place.BETWEEN):
            self._go(Place.SUMMARY)
        else:
            self._text(tag[0])

    def _go(self, place: Place) -> None:
        self.place = place
        self._space = ""
        self._started = False
        self._break_due = False
