"""JSON values as server-sent events. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DONE = b"data: [DONE]\n\n"
COMMENT = b": working\n\n"
"""Sent in silence: event streams ignore it, proxies and time-outs see that the connection lives."""

dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""A value as JSON on one line."""


def data(value: Mapping[str, Any], event: str | None = None) -> bytes:
    """Return a value as an event of a stream."""
    named = f"event: {event}\n" if event else ""
    return sent(f"{named}data: {dump(value)}\n\n")


def sent(text: str) -> bytes:
    """Return a text as it is sent. Half a surrogate pair, which an upstream may send, becomes a question mark."""
    return text.encode("utf-8", "replace")
