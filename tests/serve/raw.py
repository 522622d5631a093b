"""An upstream that sends exactly the bytes it is told to, and counts its connections. For tests only."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

RESET = object()
"""Break the connection so that the other side gets an error, not an end."""

Step = bytes | float | object
"""Bytes to send, seconds to be silent, or ``RESET``. Behind the last step the connection is closed."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n"
STREAM = HEAD % b"text/event-stream"
CHUNKED = STREAM.replace(b"Connection", b"Transfer-Encoding: chunked\r\nConnection")
MODELS = b'{"object": "list", "data": [{"id": "fake", "object": "model"}]}'


def event(text: str = "", reason: str | None = None, **more: Any) -> bytes:
    """A chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "x", "choices": [choice], **more}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    """A chunk of a response whose end can be told from a broken connection."""
    return b"%x\r\n%s\r\n" % (len(data), data)


END = event(reason="stop") + b"data: [DONE]\n\n"


def answer(status: str, body: bytes, kind: bytes = b"application/json", length: int | None = None) -> bytes:
    """A whole response; ``length`` is what it claims to be long."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\nConnection: close\r\n"
    return head.encode() + b"Content-Type: " + kind + b"\r\n\r\n" + body


class RawServer:
    """Answers every POST with the steps of ``script``, and says what models there are.

    ``open`` counts connections, ``requests`` keeps the bodies, ``sent`` counts bytes. ``go_on`` ends all silences, and
    what is silent then goes on with other steps.
    """

    def __init__(self, script: list[Step] | None = None) -> None:
        self.script: list[Step] = script or []
        self.open = self.sent = 0
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self._then: list[Step] = []

    async def __aenter__(self) -> RawServer:
        self._loop, self._louder = asyncio.get_running_loop(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def go_on(self, steps: list[Step]) -> None:
        self._then = steps
        self._loop.call_soon_threadsafe(self._louder.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get"):
                writer.write(answer("200 OK", MODELS))
                return
            self.open += 1
            try:
                length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
                self.requests.append(json.loads(await reader.readexactly(length)))
                await self._play(reader, writer)
            finally:
                self.open -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the steps until they end or the other side is gone."""
        gone, steps = asyncio.ensure_future(reader.read()), list(self.script)
        try:
            while steps:
                step = steps.pop(0)
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                    self.sent += len(step)
                elif isinstance(step, float):
                    louder = asyncio.ensure_future(self._louder.wait())
                    await asyncio.wait({gone, louder}, timeout=step, return_when=asyncio.FIRST_COMPLETED)
                    if louder.done():
                        steps = list(self._then)
                        self._louder.clear()
                    louder.cancel()
                else:
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                if gone.done():
                    return
        finally:
            gone.cancel()
