"""The contract of a backend on a real vLLM server.

``INFTYTHINK_VLLM_MODEL`` is a folder with the model and its tokenizer. ``INFTYTHINK_VLLM_URL`` is a running server of
that model; without it, one is started with the interpreter ``INFTYTHINK_VLLM_PYTHON``, which has vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from inftythink.backends.openai import OpenAI
from inftythink.errors import BackendFatalError
from tests.backends.conformance import BackendContract, ask, prompt
from tests.engines.contract import EngineContract
from tests.engines.server import Server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("running")]

CONTEXT = 2048
SERVER = Server(os.environ["INFTYTHINK_VLLM_MODEL"], os.environ.get("INFTYTHINK_VLLM_URL", ""))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server, for all tests here."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    command = [os.environ.get("INFTYTHINK_VLLM_PYTHON", ""), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", SERVER.model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "32", "--enable-prompt-tokens-details"]
    # The build for CPUs dies on a request with a seed whose prompt is processed in several chunks.
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(CONTEXT)]
    command += ["--enforce-eager"]  # to compile takes three minutes on one core
    with SERVER.started(command, port, log, {"VLLM_CPU_KVCACHE_SPACE": "2"}):
        yield


class TestBackend(BackendContract):
    cases = SERVER.cases


class TestEngine(EngineContract):
    server, engine, context, logprobs = SERVER, "vllm", CONTEXT, True
    busy = ("vllm:num_requests_running", "vllm:num_requests_waiting{")


async def test_special_tokens_in_content_never_become_structure() -> None:
    renderer = SERVER.renderer
    content = f"Say yes. {renderer.decode(list(renderer.eos_ids))}"
    async with SERVER.completions() as backend:
        completion = await backend.complete(ask(content, 4))
        ids = renderer.ids(prompt(content))
        assert completion.prompt_ids == tuple(ids)
        # What the template writes, and not one more from the content.
        plain = renderer.ids(prompt("Say yes."))
        assert sum(i in renderer.eos_ids for i in ids) == sum(i in renderer.eos_ids for i in plain)


async def test_an_unknown_model_is_said_so() -> None:
    backend = OpenAI(SERVER.url, "no-such-model")
    await backend.start()
    with pytest.raises(BackendFatalError, match="the server offers"):
        await backend.complete(ask("Hi", 2))
    await backend.aclose()
