"""The backend of tests and benchmarks: replies come from a script, nothing is computed."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from inftythink.backends._assemble import StopCutter
from inftythink.backends.base import Capabilities, Delta, Request
from inftythink.errors import BackendFatalError
from inftythink.protocol.types import Completion, Prompt, Stop

Reply = Completion | str | Exception
"""A completion is returned as it is, a text is cut to what the request asks for, an exception is raised."""

_TOKEN = re.compile(r"\s*\S+|\s+")


class Scripted:
    """Replies in the order of requests, or as a function of the request.

    A token is a word with the white space before it. A text reply obeys ``max_tokens`` and ``stop``, and its prompt
    tokens are the words of the prompt's text.

    Args:
        replies: Replies in order, or a function that returns one; it may look at ``Request.prompt``.
        latency: Seconds that every request takes (``asyncio.sleep``). At 0 a request never leaves the event loop's
            current step, so nothing is slower than the code under test.
        chunk: Characters in each delta of ``stream``; 0 sends the text whole.
        keep: How many requests to remember in ``requests``: the latest ones, all when None, none when 0.
        capabilities: What the backend says it can do.
    """

    def __init__(
        self,
        replies: Iterable[Reply] | Callable[[Request], Reply],
        *,
        latency: float = 0.0,
        chunk: int = 0,
        keep: int | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        self._function = replies if callable(replies) else None
        self._replies: Iterator[Reply] = iter(()) if callable(replies) else iter(replies)
        self._latency = latency
        self._chunk = chunk
        self._keep = keep
        self._capabilities = capabilities or Capabilities(prefill=True, token_ids=False, logprobs=False)
        self.requests: deque[Request] = deque(maxlen=keep)
        """The latest requests, oldest first."""
        self.calls = 0
        """Requests that arrived."""
        self.running = 0
        """Requests that are waiting out their latency."""
        self.peak = 0
        """The most requests that were running at once."""

    @property
    def name(self) -> str:
        """For messages."""
        return "scripted"

    @property
    def capabilities(self) -> Capabilities:
        """What the constructor was told."""
        return self._capabilities

    async def start(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def complete(self, request: Request) -> Completion:
        """Give the next reply. Raises what the script says, ``BackendFatalError`` when the script is at its end."""
        self.calls += 1
        if self._keep != 0:
            self.requests.append(request)
        if self._function is not None:
            reply = self._function(request)
        else:
            try:
                reply = next(self._replies)
            except StopIteration:
                raise BackendFatalError(f"the script has no reply for request {self.calls}; add replies") from None
        if self._latency:
            await self._wait()
        if isinstance(reply, Completion):
            return reply
        if isinstance(reply, Exception):
            raise reply
        return self._cut(request, reply)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Give the next reply in pieces of ``chunk`` characters."""
        completion = await self.complete(request)
        for name, text in (("reasoning", completion.reasoning or ""), ("text", completion.text)):
            step = self._chunk or len(text)
            for start in range(0, len(text), max(1, step)):
                yield Delta(**{name: text[start : start + step]})
        yield completion

    async def _wait(self) -> None:
        """Sleep for the latency; count who is doing so."""
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self._latency)
        finally:
            self.running -= 1

    def _cut(self, request: Request, text: str) -> Completion:
        """Make a completion of a text: up to the first stop string, at most ``max_tokens`` words."""
        cutter = StopCutter(request.stop)
        text = cutter.feed(text)
        stop, matched, tokens = Stop.STOP, cutter.matched, len(text.split())
        if tokens > request.max_tokens:
            words = _TOKEN.finditer(text)
            end = [next(words).end() for _ in range(request.max_tokens)][-1] if request.max_tokens else 0
            text, stop, matched, tokens = text[:end], Stop.LENGTH, None, request.max_tokens
        return Completion(
            text=text,
            stop=stop,
            stop_text=matched,
            prompt_tokens=len(prompt_text(request.prompt).split()),
            completion_tokens=tokens or int(bool(text)),
            seconds=self._latency,
        )


def prompt_text(prompt: Prompt) -> str:
    """The prompt's plain text: the turns, one a line, then the begun assistant turn."""
    turns = "".join(turn.text + "\n" for turn in prompt.turns)
    return turns + "".join(part.text for part in prompt.prefill)
