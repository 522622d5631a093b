"""How fast requests are sent: so many a minute, and so many tokens, spread evenly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from inftythink.backends.base import Request
from inftythink.errors import UsageError

_NAP = 0.2
"""Longest sleep in seconds before the clock is read again: tokens that were not needed bring the next turn forward."""


class Pace:
    """A limit that any number of backends on one event loop share.

    No minute has more than the limit and one request. A request is charged four characters a token and all of
    ``max_tokens`` when it is sent, and what it really took when it is answered. They are sent in the order in which
    they came.

    Args:
        requests: Requests a minute; None has no limit.
        tokens: Tokens a minute, of prompts and completions together; None has no limit.
        clock: Seconds.

    Raises:
        UsageError: A limit is not above 0.
    """

    def __init__(
        self, requests: float | None, tokens: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        for name, limit in (("requests", requests), ("tokens", tokens)):
            if limit is not None and limit <= 0:
                raise UsageError(f"{limit:g} {name} a minute: nothing would ever be sent")
        self._request_seconds = 0.0 if requests is None else 60.0 / requests
        self._token_seconds = 0.0 if tokens is None else 60.0 / tokens
        self._clock = clock
        self._requests_free = self._tokens_free = clock()
        self._turn = asyncio.Lock()

    async def enter(self, request: Request) -> int:
        """Wait until ``request`` may be sent; return the tokens it was charged."""
        characters = sum(len(turn.text) for turn in request.prompt.turns)
        charged = characters // 4 + request.max_tokens
        async with self._turn:
            while (wait := max(self._requests_free, self._tokens_free) - self._clock()) > 0:
                await asyncio.sleep(min(wait, _NAP))
            now = self._clock()
            self._requests_free = now + self._request_seconds
            self._tokens_free = max(self._tokens_free, now) + charged * self._token_seconds
        return charged

    def settle(self, charged: int, taken: int) -> None:
        """Charge what an answered request took instead of what it was charged."""
        self._tokens_free += (taken - charged) * self._token_seconds
