"""Work behind a response: it is cancelled when the client is gone, and what it writes is sent as it comes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from inftythink.serve.wire import Refused

log = logging.getLogger("inftythink.serve")
T = TypeVar("T")

COMMENT = b": working\n\n"
"""Sent in silence: event streams ignore it, proxies and time-outs see that the connection lives."""
ROOM = 256
"""Chunks that wait for a slow client before its work has to wait too."""

Put = Callable[[bytes], Awaitable[None]]


def data(value: Mapping[str, Any], event: str | None = None) -> bytes:
    """Return a value as an event of a stream."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


async def gone(receive: Receive) -> None:
    """Wait until the client is gone; the request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """Do ``work``; cancel it and return None when the client leaves before."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class Flow:
    """A task that writes chunks, for one reader.

    ``make`` is given a function that takes a chunk; ``broken`` turns a refusal into the last chunks of a stream that
    has begun. After ``keep_alive`` seconds without a chunk, and after as many again, a comment is written.
    """

    def __init__(
        self, make: Callable[[Put], Awaitable[None]], broken: Callable[[Refused], bytes], keep_alive: float
    ) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(ROOM)
        self._broken, self._keep_alive = broken, keep_alive
        self._spoke = self._ended = False
        self._first: list[bytes | None] = []
        self._refused: Refused | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(keep_alive, self._tick)
        self._task = asyncio.create_task(self._run(make))

    async def begin(self) -> bool:
        """Wait for the first chunk or comment; True. Raises ``Refused`` when the work was refused before it."""
        first = await self._queue.get()
        if first is None and self._refused is not None:
            raise self._refused
        self._first = [first]
        return True

    async def read(self) -> bytes | None:
        """Return what has been written since, at least a chunk; None at the end."""
        if self._ended:
            return None
        chunks: list[bytes] = []
        chunk = self._first.pop() if self._first else await self._queue.get()
        while chunk is not None:
            chunks.append(chunk)
            if self._queue.empty():
                return b"".join(chunks)
            chunk = self._queue.get_nowait()
        self._ended = True
        if self._refused is not None:
            chunks.append(self._broken(self._refused))
        return b"".join(chunks)

    async def stop(self) -> None:
        """End the work, and wait until it has let go of everything."""
        self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def abort(self, refused: Refused) -> None:
        """End the work, and tell the reader why."""
        if not self._task.done():
            self._refused = refused
            self._task.cancel()

    async def _put(self, chunk: bytes) -> None:
        self._spoke = True
        await self._queue.put(chunk)

    async def _run(self, make: Callable[[Put], Awaitable[None]]) -> None:
        try:
            await make(self._put)
        except Refused as refused:
            self._refused = refused
        except asyncio.CancelledError:
            if self._refused is None:
                raise
        except Exception:
            log.exception("a request failed: this is a bug")
            self._refused = Refused(500, "the server failed; this is a bug", code="internal_error")
        self._timer.cancel()
        await self._queue.put(None)

    def _tick(self) -> None:
        if not self._spoke and self._queue.empty():
            self._queue.put_nowait(COMMENT)
        self._spoke = False
        self._timer = self._loop.call_later(self._keep_alive, self._tick)


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
            await unless_gone(receive, self._send(send))
        finally:
            await self._flow.stop()
            self._done()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (body := await self._flow.read()) is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
