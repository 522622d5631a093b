"""A reward that differs in every group, so that every update moves the weights. For tests only."""

from __future__ import annotations

from inftythink.protocol import Trajectory


def odd(trajectory: Trajectory) -> float:
    return float(trajectory.sample % 2)
