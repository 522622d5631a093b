"""What a trajectory is worth: pure functions of a graded trajectory, and their product.

A reward is a number, or None when nothing is known: the trajectory FAILED, or its grader did. What has no reward has no
part in the statistics and none in the loss.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from inftythink.errors import UsageError
from inftythink.protocol import Outcome, Trajectory

Decay = Literal["quadratic", "linear", "logarithmic"]
Reward = Callable[[Trajectory], float]
"""A function of a trajectory whose ``grade`` is filled in."""


def task(trajectory: Trajectory) -> float:
    """Return 1 for a right answer, else 0: what ended without an answer is wrong."""
    return float(trajectory.outcome is Outcome.ANSWERED and _correct(trajectory) is True)


def efficiency(rounds: int, phi: int, decay: Decay = "quadratic") -> float:
    """Return what is left of a reward after ``rounds`` of at most ``phi`` rounds: 1 after one round, then less.

    With x = (rounds - 1) / phi: 1 - x^2, 1 - x, or 1 - log2(1 + x); never below 0.
    """
    x = max(0, rounds - 1) / phi
    left = {"quadratic": 1 - x * x, "linear": 1 - x, "logarithmic": 1 - math.log2(1 + x)}
    return max(0.0, left[decay])


def make_reward(names: Sequence[str], phi: int, decay: Decay = "quadratic") -> Callable[[Trajectory], float | None]:
    """Return the product of rewards: ``task``, ``efficiency``, or ``module:function`` for one's own.

    One's own is a ``Reward``; it is not asked about a trajectory that has no reward, and must return a finite number.

    Raises ``UsageError`` for a name that leads to no function; what is returned raises it for what is no number.
    """
    if not names:
        raise UsageError("no reward: give task, efficiency or MODULE:FUNCTION")
    own: dict[str, Reward] = {"task": task, "efficiency": lambda t: efficiency(len(t.rounds), phi, decay)}
    factors = [(name, own[name] if name in own else load_reward(name)) for name in names]

    def reward(trajectory: Trajectory) -> float | None:
        if not is_known(trajectory):
            return None
        return math.prod(_number(name, factor(trajectory)) for name, factor in factors)

    return reward


def is_known(trajectory: Trajectory) -> bool:
    """Tell whether a trajectory has a reward: it did not fail, and its answer, if there is one, was graded."""
    answered = trajectory.outcome is Outcome.ANSWERED
    return trajectory.outcome is not Outcome.FAILED and (not answered or _correct(trajectory) is not None)


def load_reward(name: str) -> Reward:
    """Return the function that ``module:function`` names. Raises ``UsageError`` when there is none."""
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise UsageError(f"reward {name!r}: give task, efficiency, or MODULE:FUNCTION for one of your own")
    try:
        found = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise UsageError(f"reward {name!r}: cannot import {module!r} ({error})") from error
    except AttributeError as error:
        raise UsageError(f"reward {name!r}: the module {module!r} has no {function!r}") from error
    if not callable(found):
        raise UsageError(f"reward {name!r}: is a {type(found).__name__}, not a function of a trajectory")
    reward: Reward = found
    return reward


def _correct(trajectory: Trajectory) -> bool | None:
    return trajectory.grade["correct"] if trajectory.grade is not None else None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise UsageError(f"reward {name!r}: returned {value!r}, which is no finite number")
