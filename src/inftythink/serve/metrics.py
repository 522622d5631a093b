"""What the server counts, in Prometheus' text format. Counts only: never a prompt, a key or an address."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inftythink.serve.told import Teller

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ROUNDS = (1, 2, 3, 5, 8, 12, 20, 50, 100, 400)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "inftythink_requests", "Requests by endpoint and HTTP status", ("endpoint", "status"), registry=registry
        )
        self.trajectories = Counter(
            "inftythink_trajectories", "Finished trajectories by outcome", ("outcome",), registry=registry
        )
        self.rounds = Histogram("inftythink_rounds", "Rounds of a trajectory", buckets=_ROUNDS, registry=registry)
        self.tokens = Counter("inftythink_tokens", "Tokens by kind", ("kind",), registry=registry)
        self.first = Histogram(
            "inftythink_first_piece_seconds", "Seconds to the first text", buckets=_SECONDS, registry=registry
        )
        self.seconds = Histogram(
            "inftythink_trajectory_seconds", "Seconds of a trajectory", buckets=_SECONDS, registry=registry
        )
        self.in_flight = Gauge("inftythink_in_flight", "Trajectories that are running", registry=registry)
        self.waiting = Gauge("inftythink_waiting", "Trajectories that wait for a slot", registry=registry)
        self.upstream_errors = Counter(
            "inftythink_upstream_errors", "Failed trajectories by upstream", ("upstream",), registry=registry
        )
        self.healthy = Gauge(
            "inftythink_upstream_healthy", "1 when the upstream answers", ("upstream",), registry=registry
        )

    def told(self, teller: Teller, seconds: float) -> None:
        """Count a finished trajectory."""
        usage = teller.usage
        self.trajectories.labels(teller.done.outcome.value).inc()
        self.rounds.observe(len(teller.done.rounds))
        self.seconds.observe(seconds)
        counts = {"prompt": usage.prompt, "generated": usage.generated, "reasoning": usage.reasoning}
        for kind, count in (counts | {"cached": usage.cached or 0}).items():
            self.tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        """Return all of it."""
        return generate_latest(self._registry)
