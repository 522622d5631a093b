"""Two runs on the same problems: is one better? Paired over problems; what has no partner is counted and named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np

from inftythink.evals.estimate import intervals, mean
from inftythink.evals.metrics import Key, by_problem, graded, share_right, vote_at
from inftythink.evals.rows import Row
from inftythink.protocol import Outcome

_FLIPS = 100_000
_BLOCK = 1 << 21
_EXACT = 16
"""Up to so many problems that differ, all signs are tried: 2^16."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean over problems of what B has more than A, its 95% bootstrap interval, and the p-value of no difference.

    ``p`` is that of the sign-flip test. All are None without a problem in common.
    """

    a: float | None
    b: float | None
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    problems: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """The exact test on the votes of all samples: problems that only A, only B, both or neither got right.

    ``k`` samples vote; ``left_out`` names the problems that have fewer graded ones in a run.
    """

    k: int
    only_a: int
    only_b: int
    both: int
    neither: int
    p: float
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run B against run A. Problems are named ``TASK/PROBLEM``.

    ``ungraded``: in both runs, but without a graded sample in one. ``failed_*``: samples without a verdict.
    """

    accuracy: Difference
    votes: McNemar
    tokens: Difference
    seconds: Difference
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    ungraded: tuple[str, ...]
    failed_a: int
    failed_b: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def compare(rows_a: Iterable[Row], rows_b: Iterable[Row]) -> Comparison:
    """Compare run B with run A over the problems that both have."""
    a, b = by_problem(rows_a), by_problem(rows_b)
    common = [key for key in a if key in b]
    judged = [key for key in common if graded(a[key]) and graded(b[key])]
    return Comparison(
        accuracy=_paired(judged, {key: graded(a[key]) for key in judged}, {k: graded(b[k]) for k in judged}),
        votes=_votes(judged, a, b),
        tokens=_measured(common, a, b, lambda row: row.tokens),
        seconds=_measured(common, a, b, lambda row: row.seconds),
        only_in_a=_names(key for key in a if key not in b),
        only_in_b=_names(key for key in b if key not in a),
        ungraded=_names(key for key in common if key not in set(judged)),
        failed_a=_failed(a),
        failed_b=_failed(b),
    )


def by_task(rows_a: Iterable[Row], rows_b: Iterable[Row]) -> dict[str, Comparison]:
    """Compare task by task, over the tasks that both runs have."""
    a, b = list(rows_a), list(rows_b)
    tasks = sorted({row.task for row in a} & {row.task for row in b})
    return {task: compare([r for r in a if r.task == task], [r for r in b if r.task == task]) for task in tasks}


def difference(a: Sequence[float], b: Sequence[float], bounds: tuple[float, float] | None) -> Difference:
    """Return what B has more than A over problems in the same order; ``bounds`` of one problem's difference."""
    apart = [after - before for before, after in zip(a, b, strict=True)]
    ((low, high),) = intervals([apart], bounds)
    return Difference(mean(a), mean(b), mean(apart), low, high, sign_flip(apart), len(apart))


def sign_flip(apart: Sequence[float], seed: int = 0) -> float | None:
    """Return the two-sided p-value of no difference: as if each problem's difference had a random sign.

    All signs are tried when at most 16 problems differ; else 100,000 are drawn, and the signs as they are count as one.
    """
    moved = np.asarray([value for value in apart if value != 0.0], dtype=np.float64)
    if not len(apart):
        return None
    seen = abs(float(moved.sum())) - 1e-9
    if len(moved) <= _EXACT:
        signs = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float((np.abs((2.0 * signs - 1) @ moved) >= seen).mean())
    draw, hits, rows = np.random.default_rng(seed), 0, max(1, _BLOCK // len(moved))
    for start in range(0, _FLIPS, rows):
        signs = draw.integers(0, 2, (min(rows, _FLIPS - start), len(moved)), dtype=np.int8)
        hits += int((np.abs((2.0 * signs - 1) @ moved) >= seen).sum())
    return (hits + 1) / (_FLIPS + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value that both runs alone are right equally often."""
    number = only_a + only_b
    tail = sum(comb(number, count) for count in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << number))


def _paired(keys: Sequence[Key], a: dict[Key, list[Row]], b: dict[Key, list[Row]]) -> Difference:
    return difference([share_right(a[key]) for key in keys], [share_right(b[key]) for key in keys], (-1.0, 1.0))


def _measured(
    keys: Sequence[Key], a: dict[Key, list[Row]], b: dict[Key, list[Row]], of: Callable[[Row], float]
) -> Difference:
    """Compare a quantity of trajectories, FAILED ones left out."""

    def means(rows: dict[Key, list[Row]]) -> dict[Key, float | None]:
        return {key: mean([of(row) for row in rows[key] if row.outcome != Outcome.FAILED.value]) for key in keys}

    of_a, of_b = means(a), means(b)
    pairs = [(before, after) for key in keys if (before := of_a[key]) is not None and (after := of_b[key]) is not None]
    return difference([before for before, _ in pairs], [after for _, after in pairs], None)


def _votes(keys: Sequence[Key], a: dict[Key, list[Row]], b: dict[Key, list[Row]]) -> McNemar:
    """Vote with as many samples as both runs have of some problem; a vote that ties with a wrong answer is wrong."""
    k = min((max((len(runs[key]) for key in keys), default=0) for runs in (a, b)), default=0)
    full = [key for key in keys if min(len(graded(a[key])), len(graded(b[key]))) >= max(1, k)]
    right = vote_at(k)
    won = [(right(graded(a[key])) > 0.5, right(graded(b[key])) > 0.5) for key in full]
    only_a, only_b = won.count((True, False)), won.count((False, True))
    left_out = _names(key for key in keys if key not in set(full))
    both, neither = won.count((True, True)), won.count((False, False))
    return McNemar(k, only_a, only_b, both, neither, mcnemar(only_a, only_b), left_out)


def _names(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple("/".join(key) for key in keys)


def _failed(problems: dict[Key, list[Row]]) -> int:
    return sum(row.correct is None for rows in problems.values() for row in rows)
