"""New requests take turns with those that run: one begins each time the event loop comes round."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets one caller of ``take`` go on for each turn of the event loop, in the order of their coming.

    To read a request, render its prompt and connect to an upstream takes far longer than to hand on a chunk. Were all
    that come at once begun in one go, no running stream would be heard until the last of them had begun.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next, loop)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the next one go on that still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                loop.call_soon(self._next, loop)
                return
        self._taken = False
