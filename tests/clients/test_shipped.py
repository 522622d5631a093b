"""Every client in front of the model that ships with the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.contract import ClientContract
from tests.clients.places import Place
from tests.serve.test_cli import Process

pytestmark = [pytest.mark.client, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """``inftythink serve``, as the page says it."""
    with Process() as served:
        yield Place(served.url.removesuffix("/v1"), right=3)


class TestClients(ClientContract):
    pass
