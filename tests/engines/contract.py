"""What every real engine is asked besides the contract of a backend. Subclasses name their server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import ClassVar

import pytest

from inftythink.backends.base import Delta, Request
from inftythink.errors import ContextTooLongError
from inftythink.protocol.types import Part, PartKind, Prompt, Stop, Turn
from tests.backends.conformance import GREEDY, ask
from tests.engines.server import SHORT, Server


class EngineContract:
    """``engine`` is the name that the backend must find out, ``context`` how many tokens one request may have.

    ``busy`` are the metrics that count the requests in progress.
    """

    server: ClassVar[Server]
    engine: ClassVar[str]
    context: ClassVar[int]
    logprobs: ClassVar[bool]
    busy: ClassVar[tuple[str, ...]]

    async def test_the_server_is_known(self) -> None:
        async with self.server.completions() as backend:
            assert backend.engine == self.engine
            assert backend.context == self.context
            told = backend.capabilities
            assert (told.prefill, told.token_ids, told.logprobs) == (True, True, self.logprobs)
        async with self.server.chat() as backend:
            assert backend.capabilities.prefill

    async def test_a_prompt_is_the_same_to_chat_and_to_completions(self) -> None:
        request = ask("Name three colours.", 16)
        async with self.server.completions() as one, self.server.chat() as other:
            rendered, templated = await one.complete(request), await other.complete(request)
            assert rendered.prompt_tokens == templated.prompt_tokens
            assert rendered.text == templated.text

    async def test_the_end_token_is_an_id_but_no_text(self) -> None:
        async with self.server.completions() as backend:
            completion = await backend.complete(ask(SHORT, 200))
            assert completion.stop is Stop.STOP
            assert completion.token_ids is not None
            assert completion.token_ids[-1] in self.server.renderer.eos_ids
            assert self.server.renderer.decode(list(completion.token_ids[:-1])) == completion.text

    @pytest.mark.parametrize("mode", ["completions", "chat"])
    async def test_too_long_is_said_so(self, mode: str) -> None:
        async with getattr(self.server, mode)() as backend:
            with pytest.raises(ContextTooLongError):
                await backend.complete(ask("word " * 3000, 16))

    async def test_cached_tokens_are_told(self) -> None:
        turn = Turn("user", (Part(PartKind.CONTENT, "A long beginning. " * 40),))
        async with self.server.completions() as backend:
            request = Request(Prompt((turn,)), 2, (), GREEDY)
            await backend.complete(request)
            again = await backend.complete(request)
            assert again.cached_tokens is not None
            assert 0 < again.cached_tokens < again.prompt_tokens

    async def test_a_cancelled_request_stops_on_the_server(self) -> None:
        async with self.server.completions() as backend:
            tasks = [asyncio.create_task(backend.complete(ask(f"Tell a story {i}.", 1500))) for i in range(3)]
            await asyncio.sleep(1.0)
            async with aclosing(backend.stream(ask("Tell a long story.", 1500))) as items:
                async for item in items:
                    assert isinstance(item, Delta)
                    break
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(8):
                # llama.cpp sees that a client is gone only when it answered nobody for a second, us included.
                await asyncio.sleep(1.5)
                if self.server.gauges(*self.busy) == 0:
                    break
            assert self.server.gauges(*self.busy) == 0
