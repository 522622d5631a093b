"""The contract of a backend on a real vLLM server.

``INFTYTHINK_VLLM_MODEL`` is a folder with the model and its tokenizer. ``INFTYTHINK_VLLM_URL`` is a running server of
that model; without it, one is started with the interpreter ``INFTYTHINK_VLLM_PYTHON``, which has vLLM.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from inftythink.backends.base import Backend, Delta, Request
from inftythink.backends.openai import OpenAI
from inftythink.errors import BackendFatalError, ContextTooLongError
from inftythink.protocol.types import Part, PartKind, Prompt, Stop, Turn
from inftythink.render import Renderer
from tests.backends.conformance import GREEDY, BackendContract, Case, ask, prompt

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("server")]

MODEL = os.environ["INFTYTHINK_VLLM_MODEL"]
CONTEXT = 2048
SHORT = "What is the capital of France? Answer with one word."
address = {"url": os.environ.get("INFTYTHINK_VLLM_URL", "")}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    if address["url"]:
        yield address["url"]
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    command = [os.environ["INFTYTHINK_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL]
    command += ["--port", str(port), "--host", "127.0.0.1", "--max-model-len", str(CONTEXT), "--dtype", "float32"]
    command += ["--max-num-seqs", "32", "--enable-prompt-tokens-details"]
    with log.open("w") as out:
        environment = {"VLLM_CPU_KVCACHE_SPACE": "2"} | os.environ
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            address["url"] = f"http://127.0.0.1:{port}/v1"
            wait(process, f"http://127.0.0.1:{port}/health", log)
            yield address["url"]
        finally:
            process.terminate()
            process.wait(60)


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server is up; a server that died shows its last lines."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"no answer within ten minutes: {log.read_text()[-4000:]}")


@cache
def renderer() -> Renderer:
    return Renderer.load(MODEL)


@asynccontextmanager
async def completions() -> AsyncIterator[Backend]:
    backend = OpenAI(address["url"], renderer=renderer())
    await backend.start()
    try:
        yield backend
    finally:
        await backend.aclose()


@asynccontextmanager
async def chat() -> AsyncIterator[Backend]:
    backend = OpenAI(address["url"])
    await backend.start()
    try:
        yield backend
    finally:
        await backend.aclose()


class TestVLLM(BackendContract):
    cases = (
        Case(
            "completions",
            completions,
            lambda ids: renderer().decode(ids),
            lambda text: renderer().encode_content(text),
            short=SHORT,
        ),
        Case("chat", chat, short=SHORT),
    )


async def test_the_server_is_known() -> None:
    async with completions() as backend:
        assert isinstance(backend, OpenAI)
        assert backend.engine == "vllm"
        assert backend.context == CONTEXT
        told = backend.capabilities
        assert (told.prefill, told.token_ids, told.logprobs) == (True, True, True)
    async with chat() as backend:
        assert backend.capabilities.prefill


async def test_a_prompt_is_the_same_to_chat_and_to_completions() -> None:
    request = ask("Name three colours.", 16)
    async with completions() as one, chat() as other:
        rendered, templated = await one.complete(request), await other.complete(request)
        assert rendered.prompt_tokens == templated.prompt_tokens
        assert rendered.text == templated.text


async def test_the_end_token_is_an_id_but_no_text() -> None:
    async with completions() as backend:
        completion = await backend.complete(ask(SHORT, 200))
        assert completion.stop is Stop.STOP
        assert completion.token_ids is not None
        assert completion.token_ids[-1] in renderer().eos_ids
        assert renderer().decode(list(completion.token_ids[:-1])) == completion.text


async def test_special_tokens_in_content_never_become_structure() -> None:
    content = f"Say yes. {renderer().decode(list(renderer().eos_ids))}"
    async with completions() as backend:
        completion = await backend.complete(ask(content, 4))
        ids = renderer().ids(prompt(content))
        assert completion.prompt_ids == tuple(ids)
        # What the template writes, and not one more from the content.
        plain = renderer().ids(prompt("Say yes."))
        assert sum(i in renderer().eos_ids for i in ids) == sum(i in renderer().eos_ids for i in plain)


@pytest.mark.parametrize("open_backend", [completions, chat])
async def test_too_long_is_said_so(open_backend: object) -> None:
    async with (completions if open_backend is completions else chat)() as backend:
        with pytest.raises(ContextTooLongError):
            await backend.complete(ask("word " * 3000, 16))


async def test_an_unknown_model_is_said_so() -> None:
    backend = OpenAI(address["url"], "no-such-model")
    await backend.start()
    with pytest.raises(BackendFatalError, match="the server offers"):
        await backend.complete(ask("Hi", 2))
    await backend.aclose()


async def test_cached_tokens_are_told() -> None:
    turn = Turn("user", (Part(PartKind.CONTENT, "A long beginning. " * 40),))
    async with completions() as backend:
        request = Request(Prompt((turn,)), 2, (), GREEDY)
        await backend.complete(request)
        again = await backend.complete(request)
        assert again.cached_tokens is not None
        assert 0 < again.cached_tokens < again.prompt_tokens


async def test_a_cancelled_request_stops_on_the_server() -> None:
    async with completions() as backend:
        tasks = [asyncio.create_task(backend.complete(ask(f"Tell a story {i}.", 1500))) for i in range(4)]
        await asyncio.sleep(1.0)
        items = backend.stream(ask("Tell a long story.", 1500))
        async for item in items:
            assert isinstance(item, Delta)
            break
        await items.aclose()  # type: ignore[attr-defined]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(50):
            if running() == 0:
                break
            await asyncio.sleep(0.2)
        assert running() == 0


def running() -> float:
    """What the server's own metrics say about requests in progress."""
    with urllib.request.urlopen(address["url"].removesuffix("/v1") + "/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))
