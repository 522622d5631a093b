"""Which of several servers takes the next piece of work, which ones are left out, and when those are tried again.

The one with the least under way takes it, unless the work belongs to a key (a question, a conversation) that another
one answered last: its prefix cache knows the beginning. That one keeps it while it has not much more to do than the
least. One that failed several times in a row, or for good, is left out until a check of it succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FAILURES = 3
"""Failures in a row before one is left out. One that refuses everything is at once."""
LEAN = 8
"""How much more the one that knows a key may have under way than the one with the least."""
HOMES = 10_000
"""Keys that are remembered: those answered last."""


@dataclass(eq=False)
class Member:
    """One of several that do the same work: what it has under way, and whether it is well."""

    name: str
    running: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    healthy: bool = field(default=False, init=False)

    def failed(self, fatal: bool) -> bool:
        """Count a failure; return whether it is left out from now on, and was not before."""
        self.failures += 1
        out = self.healthy and (fatal or self.failures >= FAILURES)
        self.healthy = self.healthy and not out
        return out

    def worked(self) -> None:
        """Count a success."""
        self.failures = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count what is under way."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    async def check(self) -> None:
        """Find out whether it answers; set ``healthy``."""
        raise NotImplementedError


M = TypeVar("M", bound=Member)


class Balance(Generic[M]):
    """Chooses among members. ``interval``: seconds between two checks of all of them, while it is watching."""

    def __init__(self, members: Sequence[M], interval: float = 5.0, log: logging.Logger | None = None) -> None:
        self.members = list(members)
        self._interval = interval
        self._log = log or logging.getLogger("inftythink.backends")
        self._homes: OrderedDict[int, M] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def healthy(self) -> list[M]:
        """The members that are well."""
        return [member for member in self.members if member.healthy]

    def choose(self, without: Collection[M] = (), key: Hashable = None) -> M | None:
        """Return the member that knows ``key``, or else the one with the least; None when none is well."""
        there = [member for member in self.healthy() if member not in without]
        if not there:
            return None
        least = min(there, key=lambda member: member.running)
        home = self._homes.get(hash(key))
        return home if home in there and home.running <= least.running + LEAN else least

    def remember(self, key: Hashable, member: M) -> None:
        """Say which member knows ``key``."""
        self._homes[hash(key)] = member
        self._homes.move_to_end(hash(key))
        if len(self._homes) > HOMES:
            self._homes.popitem(last=False)

    async def check(self) -> None:
        """Check all members at once. Raises what one of the checks raises."""
        results = await asyncio.gather(*(member.check() for member in self.members), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def watch(self) -> None:
        """Check the members from time to time from now on."""
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.check()
            except Exception as error:  # a setting that does not fit one that came late
                self._log.error("one of several servers cannot be used: %s", error)
