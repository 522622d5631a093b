"""Has a request answered: by the upstream that has the least to do, and by another one should that fail at once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from inftythink.errors import BackendFatalError
from inftythink.protocol import Outcome, Trajectory
from inftythink.reasoner import Reasoner
from inftythink.serve.fields import Refused
from inftythink.serve.metrics import Metrics
from inftythink.serve.pool import Gate, Pool, Upstream
from inftythink.serve.told import Piece, Teller
from inftythink.serve.wire import Asked

log = logging.getLogger("inftythink.serve")
Sink = Callable[[Piece], Awaitable[None]]

_CLIENTS_FAULT = ("400", "413", "422")
"""What an upstream says of a request that is wrong, not of itself."""


class Driver:
    """Drives trajectories on a pool, as many at once as the gate lets in, each for at most ``timeout`` seconds."""

    def __init__(self, pool: Pool, gate: Gate, metrics: Metrics, timeout: float, log_content: bool) -> None:
        self._pool, self._gate, self._metrics = pool, gate, metrics
        self._timeout, self._log_content = timeout, log_content

    async def drive(self, asked: Asked, index: int, sink: Sink) -> Teller:
        """Reason about the problem, giving pieces to ``sink``. Raises ``Refused`` when it failed."""
        await self._gate.enter()
        began = time.perf_counter()
        try:
            teller = await asyncio.wait_for(self._on_upstreams(asked, index, sink, began), self._timeout)
        except asyncio.TimeoutError:
            raise Refused(504, f"not done within {self._timeout:g} seconds", code="timeout") from None
        finally:
            self._gate.leave()
        self._metrics.told(teller, time.perf_counter() - began)
        if self._log_content:
            log.info("asked %r, answered %r", asked.problem.question, teller.done.conclusion)
        return teller

    async def _on_upstreams(self, asked: Asked, index: int, sink: Sink, began: float) -> Teller:
        """Try upstreams until one ends the trajectory; another one only while nothing was handed out."""
        tried: list[Upstream] = []
        handed_out = False

        async def counted(piece: Piece) -> None:
            nonlocal handed_out
            if not handed_out:
                handed_out = True
                self._metrics.first.observe(time.perf_counter() - began)
            await sink(piece)

        context, question = asked.problem.context, asked.problem.question
        while True:
            upstream = self._pool.choose(tried, before=context[:-1])  # without the answer, as it was remembered
            with upstream.busy():
                teller, error, fatal = await self._once(upstream, asked, index, counted)
            if not error:
                upstream.worked()
                self._pool.remember((*context, ("user", question)), upstream)
                return teller
            refused = self._failed(upstream, error, fatal)
            tried.append(upstream)
            others = [each for each in self._pool.healthy() if each not in tried]
            if handed_out or not others or refused.status == 400:
                raise refused

    async def _once(self, upstream: Upstream, asked: Asked, index: int, sink: Sink) -> tuple[Teller, str, bool]:
        """Reason with one upstream; the text says why it failed, empty if it did not, and then if all else would."""
        shared = upstream.reasoner
        reasoner: Reasoner = dataclasses.replace(
            shared,
            carry=asked.carry,
            policy=asked.policy,
            sampling=dataclasses.replace(shared.sampling, **asked.sampling),
        )
        teller = Teller(opened=reasoner.format.thought == "opened")
        try:
            async with aclosing(reasoner.stream(asked.problem, index)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Trajectory) and event.outcome is Outcome.FAILED:
                        return teller, event.reason or "it failed", False
                    for piece in teller.feed(event):
                        await sink(piece)
        except BackendFatalError as error:
            return teller, str(error), True
        return teller, "", False

    def _failed(self, upstream: Upstream, error: str, fatal: bool) -> Refused:
        """Name the failure for the client: with the upstream's words, without its address."""
        number = self._pool.upstreams.index(upstream) + 1
        if upstream.url is not None:
            for address in (upstream.url, upstream.url.removesuffix("/v1")):
                error = error.replace(address, f"upstream {number}")
        if "do not fit" in error:
            upstream.worked()
            return Refused(400, error, code="context_length_exceeded", param="messages")
        status = re.search(r"\bHTTP (\d{3}):", error)
        if status is not None and status[1] in _CLIENTS_FAULT and not fatal:
            upstream.worked()
            return Refused(400, error, code="refused_by_upstream")
        upstream.failed(fatal)
        self._metrics.upstream_errors.labels(str(number)).inc()
        log.warning("a trajectory failed at upstream %d%s", number, f": {error}" if self._log_content else "")
        return Refused(502, f"the model's server failed: {error}", code="upstream_failed")
