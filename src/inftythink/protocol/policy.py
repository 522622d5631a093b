"""The limits of a trajectory, and what to do at each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from inftythink.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits in tokens and rounds (symbols as in the paper), and what happens when one is reached.

    ``eta``: most tokens of thought in a round. ``gamma``: most tokens of a summary. ``phi``: most rounds.
    ``budget``: most generated tokens over all rounds; None is no limit.
    ``interval``: None lets the model decide when to summarise (adaptive); ``(k, k)`` summarises every ``k`` tokens,
    ``(lo, hi)`` after a number drawn from the range for each round (InftyThink+, ablation "when to summarise").
    ``on_cut``: a round cut inside its thought gets its summary in the same round ("summarise"; should that not end
    within ``gamma`` either, what there is of it is carried), or ends the trajectory as TRUNCATED ("stop").
    ``on_limit``: at ``phi``, or when the budget ends, the model is made to answer within ``gamma`` tokens ("answer"),
    or the trajectory ends there ("stop"). ``seed`` feeds the draw of ``interval``.
    """

    eta: int = 4096
    gamma: int = 1024
    phi: int = 10
    budget: int | None = None
    interval: tuple[int, int] | None = None
    on_cut: Literal["summarise", "stop"] = "summarise"
    on_limit: Literal["answer", "stop"] = "answer"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("eta", "gamma", "phi"):
            if getattr(self, name) < 1:
                raise ProtocolError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.budget is not None and self.budget < 1:
            raise ProtocolError(f"budget must be at least 1 token, or None for no limit, not {self.budget}")
        if self.interval is not None and not 1 <= self.interval[0] <= self.interval[1]:
            raise ProtocolError(f"interval must be (lo, hi) with 1 <= lo <= hi, not {self.interval}")

    def round_tokens(self, identity: str, k: int) -> int:
        """Most tokens of the reasoning call of round ``k``: thought and summary together, or the interval drawn.

        The draw depends on ``seed``, ``identity`` (problem and sample) and ``k`` alone, so that a resumed run
        repeats it.
        """
        if self.interval is None:
            return self.eta + self.gamma
        low, high = self.interval
        digest = hashlib.blake2b(f"{self.seed}/{identity}/{k}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return low + int.from_bytes(digest, "big") % (high - low + 1)
