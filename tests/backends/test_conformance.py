"""The contract, on the backends that need no model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from inftythink.backends.base import Backend, Request
from inftythink.backends.openai import OpenAI
from inftythink.backends.scripted import Scripted
from tests.backends.conformance import BackendContract, Case
from tests.servers import ByteRenderer, FakeServer, answer, decode, encode


def served(
    flavour: str, odd_stream: bool = False, **options: Any
) -> Callable[[], AbstractAsyncContextManager[Backend]]:
    """Open the HTTP backend on a server of its own."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Backend]:
        async with FakeServer(flavour) as server:
            server.odd_stream = odd_stream
            backend = OpenAI(server.url, **options)
            await backend.start()
            try:
                yield backend
            finally:
                await backend.aclose()

    return opened


def http(name: str, flavour: str, **options: Any) -> Case:
    return Case(name, served(flavour, **options), decode, encode, echoes=True, exact_prefill=True)


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[Backend]:
    def reply(request: Request) -> str:
        user = "\n".join(turn.text for turn in request.prompt.turns)
        seed = request.sampling.seed if request.sampling.temperature else None
        return answer(user, "".join(part.text for part in request.prompt.prefill), seed)

    backend = Scripted(reply, **options)
    await backend.start()
    yield backend
    await backend.aclose()


class TestScripted(BackendContract):
    cases = (
        Case("immediate", scripted, echoes=True, exact_prefill=True),
        Case("slow-chunks", lambda: scripted(latency=0.002, chunk=3), echoes=True, exact_prefill=True),
    )


class TestOpenAI(BackendContract):
    cases = (
        http("vllm-ids", "vllm", renderer=ByteRenderer()),
        http("vllm-chat", "vllm"),
        http("sglang-ids", "sglang", renderer=ByteRenderer()),
        http("sglang-chat", "sglang"),
        http("llamacpp-ids", "llamacpp", renderer=ByteRenderer()),
        http("llamacpp-chat", "llamacpp"),
        http("cloud-text", "openai", renderer=ByteRenderer()),
        http("cloud-chat", "openai"),
        http("vllm-ids-odd-stream", "vllm", renderer=ByteRenderer(), odd_stream=True),
        http("cloud-chat-odd-stream", "openai", odd_stream=True),
    )
