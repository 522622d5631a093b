"""What k of a problem's n samples would do: pass@k and maj@k, exact over all subsets. Counting only, no randomness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import comb

Share = int | Fraction
Ballot = tuple[tuple[int, Share], ...]
"""The answers that were given: the votes for each, and the share of them that was graded right. Sorted."""


def pass_at(samples: int, right: int, k: int) -> float:
    """Return the chance that at least one of ``k`` samples, drawn from ``samples`` of which ``right`` are, is right.

    1 - C(n - c, k) / C(n, k), as Chen et al. (2021) define it. Raises ``ValueError`` unless 1 <= k <= samples.
    """
    _check(samples, k)
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority_at(votes: Iterable[tuple[str | None, bool]], k: int) -> float:
    """Return the chance that the answer with most votes among ``k`` of the samples is right.

    ``votes`` are the samples, ``(answer, right)``; an answer of None does not vote. All subsets of ``k`` samples are
    equally likely. Answers that tie for most votes share the outcome equally; without any vote it is wrong. Where the
    grader called equal answers right and wrong, the answer counts as right by the share of samples that were.

    Raises ``ValueError`` unless 1 <= k <= the number of samples.
    """
    cast: Counter[str] = Counter()
    right: Counter[str] = Counter()
    silent = 0
    for answer, correct in votes:
        if answer is None:
            silent += 1
        else:
            cast[answer] += 1
            right[answer] += correct
    _check(cast.total() + silent, k)
    return _majority(tuple(sorted((count, _share(right[answer], count)) for answer, count in cast.items())), silent, k)


def _check(samples: int, k: int) -> None:
    if not 1 <= k <= samples:
        raise ValueError(f"k must be between 1 and the {samples} samples, not {k}")


def _share(right: int, count: int) -> Share:
    share = Fraction(right, count)
    return share.numerator if share.denominator == 1 else share


@lru_cache(maxsize=65536)
def _majority(ballot: Ballot, silent: int, k: int) -> float:
    total: Fraction = Fraction(0)
    for most in range(1, min(k, max((count for count, _ in ballot), default=0)) + 1):
        total += _won_with(ballot, silent, k, most)
    return float(total / comb(sum(count for count, _ in ballot) + silent, k))


def _won_with(ballot: Ballot, silent: int, k: int, most: int) -> Fraction:
    """Return the number of subsets of ``k`` in which the winner has ``most`` votes and is right.

    Answer by answer, ``ways[(taken, tied)]`` holds how many choices take ``taken`` samples so far with ``tied`` answers
    at ``most`` votes (none has more), and the sum over those choices of how many of the tied answers are right.
    """
    ways: dict[tuple[int, int], tuple[int, Share]] = {(0, 0): (1, 0)}
    for count, share in ballot:
        grown: dict[tuple[int, int], tuple[int, Share]] = {}
        for (taken, tied), (number, good) in ways.items():
            for votes in range(min(count, most, k - taken) + 1):
                at_most = votes == most
                choices = comb(count, votes)
                key = (taken + votes, tied + at_most)
                old_number, old_good = grown.get(key, (0, 0))
                more = good + number * share if at_most else good
                grown[key] = (old_number + number * choices, old_good + more * choices)
        ways = grown
    found = Fraction(0)
    for (taken, tied), (_, good) in ways.items():
        if tied:
            found += Fraction(good) * comb(silent, k - taken) / tied
    return found
