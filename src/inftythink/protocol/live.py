"""A trajectory as it is being written: turns the deltas of a stream into events, round by round."""

from __future__ import annotations

from inftythink.protocol.format import Format
from inftythink.protocol.machine import Generate
from inftythink.protocol.stream import Event, Kind, Place, Reader
from inftythink.protocol.types import Completion, Purpose, Stop


class Live:
    """Follows a machine's calls: ``begin``, any number of ``feed``, ``end`` for each; ``finish`` after the last.

    The events of a round, joined by kind, are what the machine records for it, but for white space at the end of a
    cut thought.
    """

    def __init__(self, fmt: Format) -> None:
        self._fmt = fmt
        self._k = 0
        self._reader = Reader(fmt.tags, fmt.start)
        self._summarises = False
        self._thinks = True

    def begin(self, asked: Generate) -> list[Event]:
        """Say which call comes; return what the one before had held back."""
        events: list[Event] = []
        if asked.alone or asked.k != self._k:
            events = self.finish()
            self._reader = Reader(self._fmt.tags, Place.OPEN if asked.alone else self._fmt.start)
        self._k = asked.k
        self._summarises = asked.purpose is Purpose.SUMMARISE
        events += self._name(self._reader.feed(asked.scaffold))
        self._thinks = self._reader.thinking
        return events

    def feed(self, text: str = "", reasoning: str = "") -> list[Event]:
        """Take the next piece of the call's text, or of what the server split off: see ``Format.read``."""
        events = []
        if reasoning and self._thinks and not self._summarises:
            self._reader.place = Place.BETWEEN
            events.append(Event(Kind.THOUGHT, reasoning))
        elif reasoning and not self._summarises:
            text = reasoning + text
        return events + self._name(self._reader.feed(text))

    def end(self, completion: Completion) -> list[Event]:
        """Say how the call ended. A chat model's text that was cut turns out to have been a thought."""
        if completion.stop is Stop.LENGTH and self._reader.place is Place.PLAIN and not self._summarises:
            return [Event(Kind.RECLASSIFY)]
        return []

    def finish(self) -> list[Event]:
        """Return what was still held back."""
        return self._name(self._reader.close())

    def _name(self, events: list[Event]) -> list[Event]:
        """In a call that only summarises, what looks like a conclusion is the summary, and its thought is nobody's."""
        if not self._summarises:
            return events
        named = (Event(Kind.SUMMARY, e.text) if e.kind is Kind.CONCLUSION else e for e in events)
        return [e for e in named if e.kind is Kind.SUMMARY]
