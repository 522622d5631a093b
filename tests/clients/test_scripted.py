"""Every client in front of a scripted upstream, whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.contract import ClientContract
from tests.clients.places import Place, open_place, solved
from tests.serve.places import POLICY, FakeServer, upstream
from tests.servers import in_thread

pytestmark = [pytest.mark.client, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The scripted model, which gets one of the page's questions wrong."""
    fake = FakeServer("openai")
    fake.reply = solved
    with in_thread(fake), open_place(upstream(fake.url), POLICY, right=2) as place:
        yield place


class TestClients(ClientContract):
    pass
