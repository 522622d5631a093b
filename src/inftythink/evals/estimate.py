"""A mean over problems with its uncertainty: the bootstrap interval that stands beside every accuracy.

Problems are what is resampled (all samples of a problem stay together): samples of one problem resemble each other, and
the question is what other problems like these would give. The interval is BCa (Efron 1987), percentiles of resampled
means corrected for their bias and for the skewness of the values. It is expanded (Hesterberg 2015), because resamples
of n problems vary less than samples do. docs/metrics.md has the formulas, and how often such intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
_BLOCK = 1 << 20
"""Draws held in memory at once."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its 95% interval; all three are None when nothing could be counted.

    ``problems`` and ``samples`` were counted. ``failed`` samples (FAILED trajectories and failed grades) were not, nor
    were the ``left_out`` problems, which had too few graded samples.
    """

    value: float | None
    low: float | None
    high: float | None
    problems: int
    samples: int
    failed: int
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as ``metrics.json`` holds it."""
        return asdict(self)


Interval = tuple[float, float] | tuple[None, None]


def intervals(
    values: Sequence[Sequence[float]] | Array,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Return the 95% interval of the mean of each row of ``values`` [quantities, problems].

    All rows see the same resamples. A row without spread tells the bootstrap nothing: see ``unseen``, which needs to
    know the ``bounds`` of a value; where there are none (None), and where there are no problems, the interval is
    ``(None, None)``.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        return [(None, None)] * len(values)
    means = resampled_means(table, resamples, seed)
    return [
        unseen(float(row[0]), len(row), bounds) if _constant(row) else _bca(row, drawn)
        for row, drawn in zip(table, means, strict=True)
    ]


def resampled_means(values: Array, resamples: int, seed: int) -> Array:
    """Return the means [quantities, resamples] of ``values`` [quantities, problems] over problems drawn with return.

    Resample ``b`` has the problems of row ``b`` of ``default_rng(seed).integers(0, problems, (resamples, problems))``.
    """
    problems = values.shape[1]
    draw = np.random.default_rng(seed)
    rows = max(1, _BLOCK // problems)
    blocks = []
    for start in range(0, resamples, rows):
        height = min(rows, resamples - start)
        picked = draw.integers(0, problems, (height, problems))
        flat = (picked + np.arange(height)[:, None] * problems).ravel()
        counts = np.bincount(flat, minlength=height * problems).reshape(height, problems)
        blocks.append(values @ counts.T.astype(np.float64) / problems)
    return np.concatenate(blocks, axis=1)


def unseen(value: float, problems: int, bounds: tuple[float, float] | None) -> Interval:
    """Return the interval when all ``problems`` gave the same ``value``.

    Resampling would give an interval without width. But as many as a share ``u = z^2 / (n + z^2)`` of all problems may
    be of a kind that none of these n is (Wilson's bound for a share of which none was seen), and their value anywhere
    within ``bounds``. For 0 and 1 this is Wilson's interval.
    """
    if bounds is None:
        return None, None
    z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    share = z * z / (problems + z * z)
    rest = (1 - share) * value
    return rest + share * bounds[0], rest + share * bounds[1]


def _constant(row: Array) -> bool:
    return bool(np.ptp(row) < 1e-12)


def _bca(values: Array, means: Array) -> tuple[float, float]:
    """Return the expanded BCa interval of the mean of ``values`` from its resampled ``means``."""
    mean = float(values.mean())
    below = int((means < mean - 1e-12).sum())
    equal = int((np.abs(means - mean) <= 1e-12).sum())
    share = (below + equal / 2) / len(means)
    bias = _NORMAL.inv_cdf(min(max(share, 1 / len(means)), 1 - 1 / len(means)))
    apart = values - mean
    skew = float((apart**3).sum()) / (6 * float((apart**2).sum()) ** 1.5)
    wide = student(len(values) - 1) * math.sqrt(len(values) / (len(values) - 1))

    def end(z: float) -> float:
        moved = bias + z
        level = _NORMAL.cdf(bias + moved / (1 - skew * moved)) if skew * moved < 1 else float(moved > 0)
        return float(np.quantile(means, level))

    return end(-wide), end(wide)


@lru_cache(maxsize=1024)
def student(freedom: int) -> float:
    """Return the 97.5th percentile of Student's t with ``freedom`` degrees of it."""
    low, high = 1.0, 16.0  # 12.7 for one degree, 1.96 for many
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Return the chance that Student's t is between -t and t: a finite sum (Abramowitz and Stegun, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for step in range(2 + odd, freedom + 1, 2):
        total += term
        term *= square * (step - 1) / step
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing; exact, so that the order of the values does not matter."""
    return math.fsum(values) / len(values) if values else None
