"""When to try a request again, and after how long. Pure functions, so that tests need no clock."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

RETRIED = frozenset({408, 409, 429})
"""Statuses below 500 that say "try again": time-out, conflict, too many requests."""


def retried(status: int) -> bool:
    """Whether a response of ``status`` may go better the next time."""
    return status in RETRIED or status >= 500


@dataclass(frozen=True, slots=True)
class Retry:
    """``attempts`` in all; waits double from ``first`` seconds up to ``longest`` seconds, each with jitter.

    A server's own ``Retry-After`` wins over the computed wait, up to ``patience`` seconds.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 20.0
    patience: float = 120.0

    def wait(self, attempt: int, told: float | None = None) -> float:
        """Seconds to wait after failed ``attempt`` (from 1); ``told`` is what the server asked for."""
        if told is not None:
            # Spread the return of many clients that were told the same moment.
            return min(told, self.patience) + random.uniform(0.0, min(0.1 * told, 1.0))
        return min(self.longest, self.first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date). None when absent or unreadable.

    A date is compared with that of the answer (``Date``) where there is one: this machine's clock may be another.
    ``headers`` must look names up without regard to case, as aiohttp's do.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    moment = _moment(text)
    if moment is None:
        return None
    return max(0.0, (moment - (_moment(headers.get("Date")) or now or datetime.now(timezone.utc))).total_seconds())


def _moment(text: str | None) -> datetime | None:
    """Return an HTTP date, None when there is none to be read."""
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _number(text: str | None) -> float | None:
    """Return a finite number of at least 0, else None."""
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0.0 <= value < float("inf") else None
