"""Several servers that offer the same model, as one backend."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from inftythink.backends.balance import Balance, Member
from inftythink.backends.base import Capabilities, Delta, Request
from inftythink.backends.openai import OpenAI
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, InftyThinkError
from inftythink.protocol.types import Completion

log = logging.getLogger("inftythink.backends")

_CHECK = 10.0
"""Seconds in which a server has to give its list of models to count as well."""


@dataclass(eq=False)
class _Server(Member):
    backend: OpenAI
    started: bool = field(default=False, init=False)
    error: InftyThinkError | None = field(default=None, init=False)

    async def check(self) -> None:
        """Start the backend the first time, later ask it for its models; keep what is wrong in ``error``."""
        try:
            await asyncio.wait_for(self.backend.check() if self.started else self.backend.start(), _CHECK)
            self.started = True
            if not self.healthy:
                log.info("%s answers", self.name)
            self.healthy, self.failures, self.error = True, 0, None
        except BackendError as error:
            self.error = error
        except asyncio.TimeoutError:
            self.error = BackendError(f"{self.name}: no list of models within {_CHECK:g} seconds")
        if self.error is not None:
            if self.healthy:
                log.warning("%s is left out until it answers again: %s", self.name, self.error)
            self.healthy = False


class Many:
    """A backend behind which several servers do the work, each as ``balance`` has it.

    A request that fails at one server goes to another; it fails when all that are well have refused it. Requests of one
    question go where the one before went, whose prefix cache knows it. When no server answers any more, requests wait
    ``patience`` seconds for one that does.

    Args:
        servers: The servers; they are expected to have the same model.
        patience: Seconds to wait when none answers.
        interval: Seconds between two checks.
    """

    def __init__(self, servers: Sequence[OpenAI], patience: float = 120.0, interval: float = 5.0) -> None:
        self._servers = [_Server(server.url, server) for server in servers]
        self._balance = Balance(self._servers, interval, log)
        self._patience = patience

    @property
    def name(self) -> str:
        """For messages: how many, and the first one's name."""
        return f"{len(self._servers)} servers, the first {self._servers[0].backend.name}"

    @property
    def capabilities(self) -> Capabilities:
        """What every server that was started can do."""
        able = [server.backend.capabilities for server in self._servers if server.started]
        return Capabilities(
            prefill=all(each.prefill for each in able),
            token_ids=all(each.token_ids for each in able),
            logprobs=all(each.logprobs for each in able),
        )

    async def start(self) -> None:
        """Start all servers that answer. Raises ``BackendFatalError`` when none does."""
        await self._balance.check()
        if not self._balance.healthy():
            await self.aclose()
            raise BackendFatalError(self._none_answers())
        for server in self._servers:
            if server.error is not None:
                log.warning("%s is left out until it answers: %s", server.name, server.error)
        self._balance.watch()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._balance.aclose()
        for server in self._servers:
            if server.started:
                await server.backend.aclose()
                server.started = server.healthy = False

    async def complete(self, request: Request) -> Completion:
        """Generate once. Raises as ``OpenAI.complete`` does."""
        key, tried = _question(request), list[_Server]()
        while True:
            server = await self._choose(tried, key)
            try:
                with server.busy():
                    completion = await server.backend.complete(request)
            except BackendError as error:
                self._failed(server, error, tried)
                continue
            server.worked()
            return completion

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Generate once, piece by piece; another server is tried only while nothing was handed out."""
        key, tried, begun = _question(request), list[_Server](), False
        while True:
            server = await self._choose(tried, key)
            try:
                with server.busy():
                    async with aclosing(server.backend.stream(request)) as items:
                        async for item in items:
                            begun = True
                            yield item
            except BackendError as error:
                self._failed(server, error, tried)
                if begun:
                    raise
                continue
            server.worked()
            return

    async def _choose(self, tried: list[_Server], key: Hashable) -> _Server:
        """Return the server that is next; raises the error of the last one tried when none is left."""
        deadline = time.monotonic() + self._patience
        while (server := self._balance.choose(tried, key)) is None:
            if self._balance.healthy():
                raise BackendError(f"refused by all servers that answer; the last one: {tried[-1].error}")
            if time.monotonic() > deadline:
                raise BackendFatalError(f"{self._none_answers()} [waited {self._patience:g} seconds]")
            tried.clear()
            await asyncio.sleep(0.05)
        self._balance.remember(key, server)
        return server

    def _failed(self, server: _Server, error: BackendError, tried: list[_Server]) -> None:
        """Note a failure; raises it when it is the request's, and would be the same elsewhere."""
        if isinstance(error, ContextTooLongError):
            raise error
        server.error = error
        if server.failed(isinstance(error, BackendFatalError)):
            log.warning("%s is left out until it answers again: %s", server.name, error)
        tried.append(server)

    def _none_answers(self) -> str:
        told = "; ".join(str(server.error) for server in self._servers)
        return f"none of the {len(self._servers)} servers answers: {told}"


def _question(request: Request) -> Hashable:
    """Return what the requests of one question begin with: everything up to the first turn of the user."""
    turns = request.prompt.turns
    first = next((number for number, turn in enumerate(turns, 1) if turn.role == "user"), len(turns))
    return tuple(turn.text for turn in turns[:first])
