"""Every client in front of a real vLLM server of a small chat model, which reasons in rounds without training.

``INFTYTHINK_VLLM_PYTHON`` is an interpreter that has vLLM, ``INFTYTHINK_VLLM_MODEL`` a folder with the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.clients.contract import ClientContract
from tests.clients.places import Place, short_rounds
from tests.engines.server import Server, free_port

pytestmark = [pytest.mark.client, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two calls a round, through the chat interface."""
    server, port = Server(os.environ["INFTYTHINK_VLLM_MODEL"]), free_port()
    command = [os.environ["INFTYTHINK_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", server.model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager"]
    # The build for CPUs dies on a request with a seed whose prompt is processed in several chunks.
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048"]
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with server.started(command, port, log, {"VLLM_CPU_KVCACHE_SPACE": "1"}), short_rounds(server.url) as place:
        yield place


class TestClients(ClientContract):
    pass
