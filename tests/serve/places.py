"""Servers for the tests of serving: ours in a thread, in front of fake upstreams that are real HTTP servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from inftythink.backends.openai import OpenAI, Retry
from inftythink.backends.scripted import Scripted
from inftythink.protocol import Policy
from inftythink.reasoner import Reasoner
from inftythink.serve.app import Server, Settings
from inftythink.serve.pool import Pool, Upstream
from inftythink.serve.run import Runner
from inftythink.serve.wire import Offer
from tests.servers import FakeServer

POLICY = Policy(eta=64, gamma=32, phi=4)


def reply(user: str, begun: str, seed: object) -> str:
    """Think too long for a round until there are notes; then answer. Only the first word of a question counts."""
    if "discarded" in user:
        return "x is 6."
    return "The answer is 42." if "x is 6." in user else "thinking about it " * 40


def upstream(url: str, name: str = "upstream", **settings: Any) -> Upstream:
    backend = OpenAI(url, retry=Retry(attempts=1, first=0.01), **settings)
    return Upstream(name, Reasoner(backend, carry="two_call", policy=POLICY), url)


def scripted(replies: Any, carry: str = "summary", policy: Policy = POLICY, **settings: Any) -> Upstream:
    return Upstream("scripted", Reasoner(Scripted(replies, **settings), carry=carry, policy=policy))


class Served:
    """Our server while it runs: ``url``, and what is inside."""

    def __init__(self, server: Server, sock: socket.socket, grace: float) -> None:
        self.server, self._sock, self._grace = server, sock, grace
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self.loop = asyncio.new_event_loop()

    @property
    def started(self) -> bool:
        return hasattr(self, "runner") and self.runner.started

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.task = self.loop.create_task(self._main())
        self.loop.run_until_complete(self.task)
        self.loop.close()

    async def _main(self) -> None:
        await self.server.pool.start()
        self.runner = Runner(self.server, self._grace, False)
        try:
            await self.runner.serve([self._sock])
        finally:
            await self.server.pool.aclose()

    def stop(self) -> None:
        self.runner.should_exit = True

    @property
    def busy(self) -> int:
        return self.server.gate.running + self.server.gate.waiting


@contextlib.contextmanager
def serving(
    *upstreams: Upstream,
    settings: Settings | None = None,
    offer: Offer | None = None,
    grace: float = 0.5,
    interval: float = 0.2,
    silence: float = 600.0,
) -> Iterator[Served]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    first = upstreams[0].reasoner
    offer = offer or Offer(model="", carry=first.carry, policy=first.policy)
    served = Served(Server(Pool(upstreams, interval, silence), offer, settings), sock, grace)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    wait_until(lambda: served.started or not thread.is_alive())
    assert served.started, "the server did not start"
    try:
        yield served
    finally:
        served.stop()
        thread.join(20)
        assert not thread.is_alive()


def wait_until(true: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.01)


__all__ = ["POLICY", "FakeServer", "Served", "reply", "scripted", "serving", "upstream", "wait_until"]
