"""The upstreams: which one takes the next trajectory, which ones are left out, and when those are tried again.

A trajectory stays with one upstream from its first round to its last (its prefix cache knows the question), and the
next turn of a conversation goes where the one before was answered. Any other goes to the upstream that has the fewest.
An unhealthy one gets none until a check of its list of models succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from inftythink.errors import BackendError
from inftythink.reasoner import Reasoner
from inftythink.serve.fields import Refused

log = logging.getLogger("inftythink.serve")

FAILURES = 3
"""Trajectories in a row that fail before an upstream is left out. One that refuses everything is at once."""
LEAN = 8
"""Trajectories that a conversation's own upstream may have more than the one with the fewest."""
HOMES = 10_000
"""Conversations whose upstream is remembered: those answered last."""

Turns = tuple[tuple[str, str], ...]
"""Roles and texts of a conversation."""


@dataclass(eq=False)
class Upstream:
    """A backend with its reasoner. ``url`` is None for a model in this process."""

    name: str
    reasoner: Reasoner
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    running: int = 0
    failures: int = 0
    healthy: bool = False
    started: bool = False

    def failed(self, fatal: bool) -> None:
        """Count a failure."""
        self.failures += 1
        if self.url is None and fatal:
            self.healthy = False
            log.error("%s has failed for good; start the server again", self.name)
        elif self.url is not None and self.healthy and (fatal or self.failures >= FAILURES):
            self.healthy = False
            log.warning("%s is left out until it answers again", self.name)

    def worked(self) -> None:
        """Count a success."""
        self.failures = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count what is running."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def check(self, session: aiohttp.ClientSession) -> None:
        """Ask for the models, and start the reasoner the first time; set ``healthy``.

        Raises what the reasoner's start raises but ``BackendError``.
        """
        try:
            if not self.started:
                await self.reasoner.start()
                self.started = True
            elif self.url is not None:
                timeout = aiohttp.ClientTimeout(total=10)
                url = self.url + "/models"
                async with session.get(url, headers=self.headers, timeout=timeout, allow_redirects=False) as answer:
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
        self._interval, self._silence = interval, silence
        self._homes: OrderedDict[int, Upstream] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
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
            if upstream.url is None:
                await upstream.reasoner.start()
                upstream.started = upstream.healthy = True
        await self._check()
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
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
        return [upstream for upstream in self.upstreams if upstream.healthy]

    def choose(self, without: Collection[Upstream] = (), before: Turns = ()) -> Upstream:
        """Return the upstream that answered the turns ``before``, or else the one with the fewest trajectories.

        Raises ``Refused`` when none is healthy.
        """
        there = [upstream for upstream in self.healthy() if upstream not in without]
        if not there:
            raise Refused(503, "no upstream answers; try again later", code="upstream_unavailable", retry=5)
        least = min(there, key=lambda upstream: upstream.running)
        home = self._homes.get(hash(before))
        return home if home in there and home.running <= least.running + LEAN else least

    def remember(self, turns: Turns, upstream: Upstream) -> None:
        """Say which upstream answered the last of ``turns``."""
        self._homes[hash(turns)] = upstream
        self._homes.move_to_end(hash(turns))
        if len(self._homes) > HOMES:
            self._homes.popitem(last=False)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._check()
            except Exception as error:  # a setting that does not fit an upstream that came late
                log.error("an upstream cannot be used: %s", error)

    async def _check(self) -> None:
        checks = [upstream.check(self.session) for upstream in self.upstreams if upstream.url is not None]
        results: list[Any] = await asyncio.gather(*checks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


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
