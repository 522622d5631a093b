"""Requests that are passed through to an upstream as they are: raw completions, tools, images, formats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from inftythink.serve.events import DONE
from inftythink.serve.fields import Refused
from inftythink.serve.flow import Put
from inftythink.serve.pool import Upstream

_OWN = ("inftythink", "reasoning_field")


@dataclass
class Answer:
    """How the upstream answered; known once the first chunk is there."""

    status: int = 200
    streamed: bool = False
    headers: dict[str, str] = field(default_factory=dict)


async def send_on(
    session: aiohttp.ClientSession,
    upstream: Upstream,
    body: dict[str, Any],
    path: str,
    answer: Answer,
    put: Put,
    begun: Callable[[], bool],
) -> None:
    """Send ``body`` to ``path`` of an upstream; what comes back goes to ``put``. Raises ``Refused`` when it fails.

    ``begun`` says whether the client already reads a stream: then a JSON answer becomes an event.
    """
    model = getattr(upstream.reasoner.backend, "model", None)
    body = {name: value for name, value in body.items() if name not in _OWN} | ({"model": model} if model else {})
    url, headers = f"{upstream.url}{path}", upstream.headers
    try:
        with upstream.busy():
            # A redirect would lead to an address that nobody configured.
            async with session.post(url, json=body, headers=headers, allow_redirects=False) as reply:
                if reply.content_type == "text/event-stream" and reply.status == 200:
                    answer.streamed = True
                    held = b""
                    async for chunk in reply.content.iter_any():
                        # Whole events only: a comment or an error may have to follow.
                        held += chunk
                        if end := _end(held):
                            await put(held[:end])
                            held = held[end:]
                    if held:
                        await put(held)
                elif reply.content_type == "application/json" and not 300 <= reply.status < 400:
                    raw = await reply.read()
                    answer.status = reply.status
                    if "Retry-After" in reply.headers:
                        answer.headers["Retry-After"] = reply.headers["Retry-After"]
                    await put(b"data: " + b" ".join(raw.splitlines()) + b"\n\n" + DONE if begun() else raw)
                else:
                    told = f"HTTP {reply.status} with {reply.content_type}"
                    raise Refused(502, f"the model's server failed: {told}", code="upstream_failed")
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        upstream.failed(fatal=isinstance(error, aiohttp.ClientConnectorError))
        message = f"the model's server failed: {type(error).__name__}"
        raise Refused(502, message, code="upstream_failed") from None


def _end(data: bytes) -> int:
    """Where the last whole event ends; 0 when there is none."""
    return max((at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := data.rfind(mark)) >= 0), default=0)
