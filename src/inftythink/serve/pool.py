"""The upstreams: which one takes the next trajectory (``backends/balance.py`` has the rules).

A trajectory stays with one upstream from its first round to its last (its prefix cache knows the question), and the
next turn of a conversation goes where the one before was answered. Any other goes to the upstream that has the fewest.
An unhealthy one gets none until a check of its list of models succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from inftythink.backends.balance import Balance, Member
from inftythink.errors import BackendError
from inftythink.reasoner import Reasoner
from inftythink.serve.fields import Refused

log = logging.getLogger("inftythink.serve")

Turns = tuple[tuple[str, str], ...]
"""Roles and texts of a conversation."""


@dataclass(eq=False)
class Upstream(Member):
    """A backend with its reasoner. ``url`` is None for a model in this process, which nobody checks."""

    reasoner: Reasoner
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    started: bool = field(default=False, init=False)
    session: aiohttp.ClientSession | None = field(default=None, init=False)

    def failed(self, fatal: bool) -> bool:
        """Count a failure; return whether it is left out from now on."""
        if self.url is None and not fatal:
            self.failures += 1
            return False
        out = super().failed(fatal)
        if out and self.url is None:
            log.error("%s has failed for good; start the server again", self.name)
        elif out:
            log.warning("%s is left out until it answers again", self.name)
        return out

    async def check(self) -> None:
        """Ask for the models, and start the reasoner the first time; set ``healthy``.

        Raises what the reasoner's start raises but ``BackendError``.
        """
        if self.url is None:
            return
        assert self.session is not None
        try:
            if not self.started:
                await self.reasoner.start()
                self.started = True
            else:
                timeout, url = aiohttp.ClientTimeout(total=10), self.url + "/models"
                asked = self.session.get(url, headers=self.headers, timeout=timeout, allow_redirects=False)
                async with asked as answer:
                    if answer.status >= 500:
                        raise BackendError(f"HTTP {answer.status}")
            if not self.healthy:
                log.info("%s is ready", self.name)
            self.healthy, self.failures = True, 0
        except (BackendError, aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            if self.healthy or not self.started:
                log.warning("%s does not answer: %s", self.name, error if not self.started else type(error).__name__)
            self.healthy = False


class Pool:
    """All upstreams. ``interval``: seconds between two checks.

    ``silence``: the longest one of an upstream, in seconds, in what is passed through.
    """

    def __init__(self, upstreams: Sequence[Upstream], interval: float = 5.0, silence: float = 600.0) -> None:
        self.upstreams = list(upstreams)
        self._balance = Balance(self.upstreams, interval, log)
        self._silence = silence
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Start all upstreams that answer, and check them from time to time from now on.

        Raises:
            UsageError: The carry asks for more than an upstream can do.
            BackendFatalError: A model in this process cannot be loaded.
        """
        self._session = aiohttp.ClientSession(
            # The gate bounds what is passed through; checks must not wait for it.
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self._silence),
        )
        for upstream in self.upstreams:
            upstream.session = self._session
            if upstream.url is None:
                await upstream.reasoner.start()
                upstream.started = upstream.healthy = True
        await self._balance.check()
        self._balance.watch()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._balance.aclose()
        for upstream in self.upstreams:
            if upstream.started:
                await upstream.reasoner.aclose()
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session of requests that are passed through."""
        assert self._session is not None
        return self._session

    def healthy(self) -> list[Upstream]:
        """The upstreams that answer."""
        return self._balance.healthy()

    def choose(self, without: Collection[Upstream] = (), before: Turns = ()) -> Upstream:
        """Return the upstream that answered the turns ``before``, or else the one with the fewest trajectories.

        Raises ``Refused`` when none is healthy.
        """
        chosen = self._balance.choose(without, before)
        if chosen is None:
            raise Refused(503, "no upstream answers; try again later", code="upstream_unavailable", retry=5)
        return chosen

    def remember(self, turns: Turns, upstream: Upstream) -> None:
        """Say which upstream answered the last of ``turns``."""
        self._balance.remember(turns, upstream)


class Gate:
    """At most ``slots`` trajectories at once; at most ``queue`` more wait, and what comes then is refused."""

    def __init__(self, slots: int, queue: int) -> None:
        self._slots, self._queue = slots, queue
        self._semaphore = asyncio.Semaphore(slots)
        self.waiting = 0
        self.running = 0

    def check(self, samples: int = 1) -> None:
        """Raise ``Refused`` when there is no room for so many more."""
        free = self._slots - self.running + self._queue - self.waiting
        if samples > free:
            raise Refused(429, "too many requests at once; try again later", code="rate_limit_exceeded", retry=1)

    async def enter(self) -> None:
        """Wait for a slot."""
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    def leave(self) -> None:
        """Give the slot back."""
        self.running -= 1
        self._semaphore.release()
