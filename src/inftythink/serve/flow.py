"""Work behind a response: it is cancelled when the client is gone, and what it writes is sent as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inftythink.serve.events import COMMENT
from inftythink.serve.fields import Refused

log = logging.getLogger("inftythink.serve")

ROOM = 2**16
"""Bytes that wait for a slow client before its work has to wait too."""

Put = Callable[[bytes], Awaitable[None]]


async def gone(receive: Receive) -> None:
    """Wait until the client is gone; the request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Flow:
    """A task that writes chunks, for one reader.

    ``make`` is given a function that takes a chunk; ``broken`` turns a refusal into the last chunks of a stream that
    has begun. The work ends when ``receive`` says that the client is gone, and when the client has read nothing for
    ``stall`` seconds. After ``keep_alive`` seconds without a chunk, and after as many again, a comment is written;
    ``commented`` says that one was.
    """

    def __init__(
        self,
        receive: Receive,
        make: Callable[[Put], Coroutine[Any, Any, None]],
        broken: Callable[[Refused], bytes],
        keep_alive: float,
        stall: float,
    ) -> None:
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in the chunks
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._broken, self._keep_alive, self._stall = broken, keep_alive, stall
        self._begun = self._spoke = self._over = self.commented = False
        self._refused: Refused | None = None
        self._handed: float | None = None  # when the reader got what it has not come back from yet
        self._loop = asyncio.get_running_loop()
        self._timers = [self._loop.call_later(keep_alive, self._tick), self._loop.call_later(stall, self._look)]
        self._task = asyncio.create_task(make(self._put))
        self._task.add_done_callback(self._end)  # it is called even if the task is cancelled before its first step
        self.left = self.stalled = False
        """Whether the client is gone, or was given up because it reads nothing."""
        self._watch = asyncio.create_task(gone(receive))
        self._watch.add_done_callback(self._leave)

    async def begin(self) -> bool:
        """Wait for the first chunk or comment; False when the client left before.

        Raises ``Refused`` when the work was refused before it.
        """
        await self._news.wait()
        if self._refused is not None and not self._begun:
            raise self._refused
        return self._begun or not self.left

    async def read(self) -> bytes | None:
        """Return what has been written since, at least a chunk; None at the end, or when the client is gone."""
        self._handed = None
        await self._news.wait()
        if not self._chunks or self.left:
            return None
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting = 0
        self._room.set()
        if not self._over:
            self._news.clear()
        self._handed = self._loop.time()
        return body

    async def stop(self) -> None:
        """End the work, and wait until it has let go of everything."""
        self._task.cancel()
        self._watch.cancel()
        await asyncio.gather(self._task, self._watch, return_exceptions=True)

    def abort(self, refused: Refused) -> None:
        """End the work, and tell the reader why."""
        if not self._task.done():
            self._refused = refused
            self._task.cancel()

    async def _put(self, chunk: bytes) -> None:
        self._spoke = True
        self._write(chunk)
        if self._waiting >= ROOM:
            self._room.clear()
            await self._room.wait()

    def _write(self, chunk: bytes) -> None:
        self._begun = True
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        self._news.set()

    def _end(self, task: asyncio.Task[None]) -> None:
        """Note how the work ended, and tell the reader."""
        for timer in self._timers:
            timer.cancel()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Refused):
            self._refused = error
        elif error is not None:
            log.error("a request failed: this is a bug", exc_info=error)
            self._refused = Refused(500, "the server failed; this is a bug", code="internal_error")
        if self._refused is not None and self._begun:
            self._chunks.append(self._broken(self._refused))
        self._over = True
        self._news.set()

    def _leave(self, watch: asyncio.Task[None]) -> None:
        """Note that the client is gone, and end the work."""
        if not watch.cancelled():
            self.left = True
            self._task.cancel()
            self._news.set()

    def _tick(self) -> None:
        if not self._spoke and not self._chunks:
            self.commented = True
            self._write(COMMENT)
        self._spoke = False
        self._timers[0] = self._loop.call_later(self._keep_alive, self._tick)

    def _look(self) -> None:
        """End the work if the reader has not come back for too long; else look again when that could be."""
        now = self._loop.time()
        due = (now if self._handed is None else self._handed) + self._stall
        if due > now:
            self._timers[1] = self._loop.call_at(due, self._look)
        else:
            self.stalled = True
            log.info("a client read nothing for %g seconds: its request ends", self._stall)
            self.abort(Refused(408, f"nothing was read for {self._stall:g} seconds", code="timeout"))


class EventStream(Response):
    """Sends a flow that has begun as an event stream."""

    def __init__(self, flow: Flow, done: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        self.raw_headers = [*(pair for pair in self.raw_headers if pair[0] != b"content-length"), kind]
        self._flow, self._done = flow, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the flow ends or the client is gone."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (body := await self._flow.read()) is not None:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if not self._flow.left:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._flow.stop()
            self._done()
