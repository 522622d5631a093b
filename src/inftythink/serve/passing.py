"""Requests that are passed through to an upstream as they are: raw completions, tools, images, formats."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from inftythink.serve.flow import Put
from inftythink.serve.pool import Upstream
from inftythink.serve.wire import Refused

_OWN = ("inftythink", "reasoning_field")


@dataclass
class Answer:
    """How the upstream answered; known once the first chunk is there."""

    status: int = 200
    streamed: bool = False


async def send_on(
    session: aiohttp.ClientSession, upstream: Upstream, body: dict[str, Any], path: str, answer: Answer, put: Put
) -> None:
    """Send ``body`` to ``path`` of an upstream; what comes back goes to ``put``. Raises ``Refused`` when it fails."""
    model = getattr(upstream.reasoner.backend, "model", None)
    body = {name: value for name, value in body.items() if name not in _OWN} | ({"model": model} if model else {})
    url, headers = f"{upstream.url}{path}", upstream.headers
    try:
        with upstream.busy():
            # A redirect would lead to an address that nobody configured.
            async with session.post(url, json=body, headers=headers, allow_redirects=False) as reply:
                if reply.content_type == "text/event-stream" and reply.status == 200:
                    answer.streamed = True
                    async for chunk in reply.content.iter_any():
                        await put(chunk)
                elif reply.content_type == "application/json" and not 300 <= reply.status < 400:
                    answer.status = reply.status
                    await put(await reply.read())
                else:
                    told = f"HTTP {reply.status} with {reply.content_type}"
                    raise Refused(502, f"the model's server failed: {told}", code="upstream_failed")
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        upstream.failed(fatal=isinstance(error, aiohttp.ClientConnectorError))
        message = f"the model's server failed: {type(error).__name__}"
        raise Refused(502, message, code="upstream_failed") from None
