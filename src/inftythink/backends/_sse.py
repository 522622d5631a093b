"""Server-sent events: bytes in, events out. No I/O, so any way of cutting a stream into chunks is the same stream."""

from __future__ import annotations

import re
from typing import NamedTuple

DONE = "[DONE]"
"""The data of the event with which OpenAI-compatible servers end a stream."""

_BREAK = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event: its type (``message`` unless told) and its data lines, joined by line feeds."""

    type: str
    data: str


class Parser:
    """Incremental reader of ``text/event-stream`` (the WHATWG rules: LF, CRLF or CR, comments, several data lines).

    Older llama.cpp servers report a failure as a line of its own, ``error: {...}``; it is read as data of an event of
    type ``error``.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._type = ""
        self._data: list[str] = []
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that ``chunk`` completes."""
        self._buffer += chunk
        return [event for line in self._lines() if (event := self._line(line)) is not None]

    def finish(self) -> list[Event]:
        """Return what the end of the stream completes: servers that close without the last blank line exist."""
        tail = bytes(self._buffer.rstrip(b"\r"))
        self._buffer.clear()
        events = [self._line(tail), self._line(b"")] if tail else [self._line(b"")]
        return [event for event in events if event is not None]

    def _lines(self) -> list[bytes]:
        """Take the complete lines out of the buffer. A carriage return at its end waits for a possible line feed."""
        buffer, lines, start = self._buffer, [], 0
        for match in _BREAK.finditer(buffer, self._scanned):
            if match.end() == len(buffer) and buffer.endswith(b"\r"):
                break
            lines.append(bytes(buffer[start : match.start()]))
            start = match.end()
        del buffer[:start]
        self._scanned = max(0, len(buffer) - 1)  # an unfinished line is not searched twice
        return lines

    def _line(self, raw: bytes) -> Event | None:
        """Read one line; a blank one completes the event."""
        if self._first:
            raw, self._first = raw.removeprefix(b"\xef\xbb\xbf"), False
        if not raw:
            event = Event(self._type or "message", "\n".join(self._data)) if self._data else None
            self._type, self._data = "", []
            return event
        name, _, value = raw.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "error":
            self._type = "error"
            self._data.append(value)
        return None
