"""How much better a trajectory is than the others of its question: pure functions of rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inftythink.config import option


@dataclass(frozen=True)
class Advantage:
    """How rewards of a group become advantages."""

    over: Literal["trajectories", "rounds"] = option(
        "trajectories", "mean and deviation over trajectories, or over round outputs (more rounds count more)"
    )
    scale: Literal["std", "none"] = option("std", "divide by the group's standard deviation, or not")
    baseline: Literal["mean", "leave_one_out"] = option(
        "mean", "what a reward is compared with: the group's mean, or the mean of the others"
    )


def advantages(rewards: Sequence[float | None], rounds: Sequence[int], how: Advantage) -> list[float | None]:
    """Return the advantage of each trajectory of a group, shared by all tokens of all its rounds.

    A reward of None has no part in the statistics and an advantage of None. Where the others do not differ, all
    advantages are exactly 0: there is nothing to learn. The deviation is that of a sample (n - 1).

    Args:
        rewards: of the trajectories of one question.
        rounds: how many rounds each has.
        how: the settings.
    """
    if not has_spread(rewards):
        return [None if reward is None else 0.0 for reward in rewards]
    weights = [
        0 if reward is None else (n if how.over == "rounds" else 1) for reward, n in zip(rewards, rounds, strict=True)
    ]
    known = [(reward or 0.0, weight) for reward, weight in zip(rewards, weights, strict=True)]
    count, total = sum(weights), math.fsum(reward * weight for reward, weight in known)
    mean = total / count
    scale = 1.0
    if how.scale == "std":
        scale = math.sqrt(math.fsum(weight * (reward - mean) ** 2 for reward, weight in known) / (count - 1))
    found: list[float | None] = []
    for reward, weight in zip(rewards, weights, strict=True):
        if reward is None:
            found.append(None)
            continue
        others = (total - reward * weight) / (count - weight) if how.baseline == "leave_one_out" else mean
        found.append((reward - others) / scale)
    return found


def has_spread(rewards: Sequence[float | None]) -> bool:
    """Tell whether the known rewards of a group differ."""
    known = [reward for reward in rewards if reward is not None]
    return bool(known) and max(known) - min(known) > 1e-9
