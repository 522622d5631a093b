"""One HTTP session to one server: JSON in, JSON objects out, and every way to fail named once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from inftythink.backends._retry import retried, retry_after
from inftythink.backends._sse import DONE, Event, Parser
from inftythink.backends._wire import garbage
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, UsageError

KEY_VARIABLES = ("INFTYTHINK_API_KEY", "OPENAI_API_KEY")
"""Environment variables that are looked at, in this order, when no key is passed."""

_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|context length|context size|context window|context limit"
    r"|maximum model length|maximum allowed length|prompt is too long",
    re.IGNORECASE,
)
_MODEL = re.compile(r"\bmodel\b.{0,200}(does not exist|not found|not exist|not available)", re.IGNORECASE | re.DOTALL)


@dataclass(eq=False)
class Failure(Exception):
    """A request that failed: what to raise when it is not tried again, and whether it may be."""

    kind: type[BackendError]
    text: str
    retry: bool = False
    wait: float | None = None
    status: int | None = None
    unknown_model: bool = False


def split_url(base_url: str) -> tuple[str, str]:
    """Return the base URL that ends in ``/v1`` or another path, and the server's root. Raises ``UsageError``."""
    url = urlsplit(base_url.strip().rstrip("/"))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"{base_url!r} is no address of a server; one looks like http://localhost:8000/v1")
    base = url.geturl() if url.path else url.geturl() + "/v1"
    return base, base.removesuffix("/v1")


class Http:
    """The session. ``timeout`` is the longest silence in seconds: until an answer begins, and between its chunks."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float) -> None:
        self.base, self.root = split_url(base_url)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session = aiohttp.ClientSession(
            # The backend bounds its requests itself, so that waiting for a slot is not part of a time-out.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout, 30.0), sock_read=timeout),
            headers=headers,
            trust_env=urlsplit(self.base).hostname not in ("localhost", "127.0.0.1", "::1"),
            read_bufsize=2**18,
        )

    def url(self, path: str) -> str:
        """The full address of ``path``; llama.cpp's own endpoint lies at the root."""
        return (self.root if path == "/completion" else self.base) + path

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str) -> Any:
        """GET a JSON value. Raises ``Failure``."""
        try:
            async with self._session.get(self.url(path)) as response:
                return _json(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise self._broken(error) from error

    async def post(self, path: str, body: dict[str, Any], stream: bool) -> AsyncGenerator[Any, None]:
        """POST and yield the answer's JSON objects: one, or those of a stream and ``DONE``. Raises ``Failure``.

        Closing the iterator early closes the connection, which makes the server stop.
        """
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.post(self.url(path), json=body)
            if response.status != 200 or not stream or response.content_type == "application/json":
                yield _json(response.status, response.headers, await response.read())
            else:
                async for item in _events(response):
                    yield item
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise self._broken(error) from error
        finally:
            if response is not None:
                # Back to the pool when it was read to its end, closed otherwise.
                response.release() if response.content.at_eof() else response.close()

    def _broken(self, error: Exception) -> Failure:
        """Name a failure of the connection."""
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientSSLError):
            return Failure(BackendFatalError, f"cannot connect: {what}")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Failure(BackendFatalError, f"nothing listens there ({error}). {_start_help(self.base)}", retry=True)
        if isinstance(error, asyncio.TimeoutError):
            return Failure(BackendError, f"time-out ({what}); a longer one may be needed for long answers", retry=True)
        return Failure(BackendError, f"the connection broke ({what})", retry=True)


def _start_help(base: str) -> str:
    """How to start a server where none was found."""
    port = urlsplit(base).port or 8000
    return (
        f"Start a server first, for example: vllm serve MODEL --port {port}, "
        f"python -m sglang.launch_server --model-path MODEL --port {port}, or llama-server -m FILE.gguf --port {port}"
    )


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[Any, None]:
    """Yield the JSON objects of an event stream, then ``DONE`` if the server said so."""
    parser, done = Parser(), False
    async for chunk in response.content.iter_any():
        # Read on behind [DONE], to the end of the response: only then can its connection serve the next request.
        for event in [] if done else parser.feed(chunk):
            done = event.data == DONE
            yield DONE if done else _event(event)
            if done:
                break
    for event in [] if done else parser.finish():
        yield DONE if event.data == DONE else _event(event)


def _event(event: Event) -> Any:
    """Read one event. Raises ``Failure`` when it reports an error."""
    try:
        data = json.loads(event.data)
    except ValueError:
        raise garbage("the server streamed an event that is not JSON", event.data) from None
    if event.type == "error" or (isinstance(data, dict) and data.get("error")):
        message, code, _ = _message(data, event.data)
        status = int(code) if code.isdecimal() else 400 if _CONTEXT.search(f"{code} {message}") else 500
        raise _refused(status, {}, data, event.data)
    return data


def _json(status: int, headers: Any, raw: bytes) -> Any:
    """Read a response's body. Raises ``Failure`` for an error and ``GarbageError`` for anything but JSON."""
    text = raw.decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if status != 200:
        raise _refused(status, headers, data, text)
    if data is None:
        raise garbage("the server did not answer with JSON", text)
    if isinstance(data, dict) and data.get("error"):
        code = _message(data, text)[1]
        raise _refused(int(code) if code.isdecimal() else 500, headers, data, text)
    return data


def _message(data: Any, text: str) -> tuple[str, str, str]:
    """Return the server's message, its code or type, and the parameter that it names."""
    inner = data.get("error", data) if isinstance(data, dict) else None
    if not isinstance(inner, dict):
        return (str(inner) if inner else text.strip()[:500] or "no message"), "", ""
    message = inner.get("message") or inner.get("detail") or text.strip()[:500]
    code = inner.get("code") if inner.get("code") is not None else inner.get("type", "")
    kind = inner.get("type") or ""
    return str(message), str(code), f"{inner.get('param') or ''} {kind}"


def _refused(status: int, headers: Any, data: Any, text: str) -> Failure:
    """Name an error that the server reported."""
    message, code, extra = _message(data, text)
    told = f"HTTP {status}: {message}"
    if status in (401, 403):
        return Failure(
            BackendFatalError,
            f"the server refuses the key ({told}). Set {' or '.join(KEY_VARIABLES)}, or pass api_key",
            status=status,
        )
    if status in (400, 413, 422) and _CONTEXT.search(f"{message} {code} {extra}"):
        advice = "Ask for fewer tokens, shorten the prompt, or start the server with a longer context"
        return Failure(ContextTooLongError, f"prompt and tokens asked for do not fit ({told}). {advice}", status=status)
    if status in (400, 404) and _MODEL.search(message):
        return Failure(
            BackendFatalError, f"the server does not have the model ({told})", status=status, unknown_model=True
        )
    if status == 404:
        return Failure(
            BackendFatalError, f"the server has no such endpoint ({told})", status=status, unknown_model=True
        )
    return Failure(BackendError, told, retried(status), retry_after(headers), status)
