"""The summariser and the judge as they are told on the command line: made in the process that will use them."""

from __future__ import annotations

from dataclasses import dataclass

from inftythink.backends._pace import Pace
from inftythink.backends.base import Backend
from inftythink.backends.connect import ModelSettings, connect
from inftythink.backends.many import Many
from inftythink.backends.openai import OpenAI


@dataclass(frozen=True)
class Connection:
    """Connects to the summariser, and to the judge if there is one, in the process that will use them.

    ``base_urls``: the summariser's servers; none has ``model`` loaded into the process. The judge has those too when
    none are named for it. ``requests`` and ``tokens`` a minute are the most of this process, the judge's among them.
    ``timeout``: the longest silence of a server in seconds.
    """

    base_urls: tuple[str, ...]
    model: str | None
    judge_base_urls: tuple[str, ...] = ()
    judge_model: str | None = None
    api_key_env: str | None = None
    requests: float | None = None
    tokens: float | None = None
    timeout: float = 600.0

    def __call__(self) -> tuple[Backend, Backend | None]:
        """Return the two backends, not started yet."""
        pace = None if self.requests is None and self.tokens is None else Pace(self.requests, self.tokens)
        judge = None
        if self.judge_model is not None:
            judge = self._connect(self.judge_base_urls or self.base_urls, self.judge_model, pace)
        return self._connect(self.base_urls, self.model, pace), judge

    def _connect(self, base_urls: tuple[str, ...], model: str | None, pace: Pace | None) -> Backend:
        if len(base_urls) < 2:
            return self._one(base_urls[0] if base_urls else None, model, pace)
        # What one server does not answer is another one's soon: it is not tried for long.
        servers = [self._one(url, model, pace, retries=1) for url in base_urls]
        return Many([server for server in servers if isinstance(server, OpenAI)])

    def _one(self, base_url: str | None, model: str | None, pace: Pace | None, retries: int = 5) -> Backend:
        chosen = ModelSettings(
            model=model,
            base_url=base_url,
            mode="auto" if base_url is None else "chat",
            api_key_env=self.api_key_env,
            retries=retries,
            timeout=self.timeout,
        )
        return connect(chosen, carry="two_call", command="inftythink data summarise --input DIR", pace=pace)
