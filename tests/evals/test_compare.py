"""Comparisons of two runs: pairs, p-values, and what has no partner."""

from __future__ import annotations

import json
import random
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.evals.compare import by_task, compare, difference, mcnemar, sign_flip
from inftythink.evals.estimate import intervals
from tests.evals.rows import round_row, row


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_the_sign_flip_test_tries_all_signs(fourths):
    apart = [fourth / 4 for fourth in fourths]
    sums = [
        abs(sum(sign * value for sign, value in zip(s, apart, strict=True)))
        for s in product((-1, 1), repeat=len(apart))
    ]
    assert sign_flip(apart) == pytest.approx(np.mean([each >= abs(sum(apart)) - 1e-9 for each in sums]), abs=1e-9)


def test_many_problems_are_tested_by_drawn_signs():
    apart = np.random.default_rng(0).normal(0.3, 1.0, 40)
    normal = 2 * NormalDist().cdf(-abs(apart.sum()) / np.sqrt((apart**2).sum()))
    assert sign_flip(apart.tolist()) == pytest.approx(normal, abs=0.01)
    assert sign_flip((-apart).tolist()) == sign_flip(apart.tolist())
    assert sign_flip([0.5] * 40) == pytest.approx(1 / 100_001)


def test_the_p_values_of_equal_runs_are_even():
    apart = np.random.default_rng(2).normal(0.0, 1.0, (600, 10))
    found = np.array([sign_flip(line.tolist()) for line in apart])
    for level in (0.05, 0.25, 0.5, 0.75):
        assert (found <= level).mean() == pytest.approx(level, abs=0.05)


def test_intervals_of_differences_cover_the_truth():
    draw = np.random.default_rng(3)
    hard = draw.beta(1, 1, (2000, 60))
    easier = hard + (1 - hard) * 0.2
    apart = (draw.binomial(4, easier) - draw.binomial(4, hard)) / 4
    covered = [low <= 0.1 <= high for low, high in intervals(apart, (-1.0, 1.0), resamples=2000)]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 2 / 64), (2, 8, 112 / 1024), (5, 5, 1.0)])
def test_mcnemar_is_the_exact_binomial_test(b, c, p):
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(p, abs=1e-12)


def run(right, samples=4, tokens=100):
    """``right[i]`` of problem i's samples are right; the wrong ones answer x."""
    return [
        row(str(problem), s, s < number, "4" if s < number else "x", rounds=[round_row(tokens)])
        for problem, number in enumerate(right)
        for s in range(samples)
    ]


def test_two_runs_are_paired_over_problems():
    found = compare(run([4, 2, 0, 1]), run([4, 3, 3, 0], tokens=50))
    assert (found.accuracy.a, found.accuracy.b) == (7 / 16, 10 / 16)
    assert found.accuracy.value == 3 / 16
    assert found.accuracy.low < 3 / 16 < found.accuracy.high
    assert found.accuracy.problems == 4
    assert (found.votes.k, found.votes.only_a, found.votes.only_b, found.votes.both, found.votes.neither) == (
        4,
        0,
        2,
        1,
        1,
    )
    assert found.votes.p == 0.5
    assert found.tokens.value == -50
    assert (found.tokens.low, found.tokens.high) == (None, None)  # all problems alike, and tokens have no bounds
    json.dumps(found.to_json())


def test_what_is_unpaired_is_named():
    a = [row("1"), row("2"), row("3", correct=None), row("4", 0), row("4", 1)]
    b = [row("2"), row("3"), row("4", 0), row("4", 1, None, outcome="failed"), row("5")]
    found = compare(a, b)
    assert found.only_in_a == ("sums/1",)
    assert found.only_in_b == ("sums/5",)
    assert found.ungraded == ("sums/3",)
    assert (found.failed_a, found.failed_b) == (1, 1)
    assert found.accuracy.problems == 2
    assert found.votes.k == 2
    assert found.votes.left_out == ("sums/2", "sums/4")


def test_equal_runs_differ_by_nothing_but_not_for_certain():
    found = compare(run([4, 4, 0]), run([4, 4, 0])).accuracy
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low < 0 < found.high
    many = difference([1.0] * 500, [1.0] * 500, (-1.0, 1.0))
    assert -0.01 < many.low < 0 < many.high < 0.01


def test_the_order_of_rows_does_not_matter():
    a, b = run([4, 2, 0, 1, 3]), run([3, 3, 3, 0, 1])
    first = compare(a, b)
    random.Random(0).shuffle(a)
    random.Random(1).shuffle(b)
    assert compare(a, b) == first


def test_tasks_are_compared_each():
    a = [row("1", task="one"), row("1", task="two", correct=False), row("1", task="three")]
    b = [row("1", task="one"), row("1", task="two")]
    found = by_task(a, b)
    assert {task: each.accuracy.value for task, each in found.items()} == {"one": 0.0, "two": 1.0}


def test_nothing_in_common():
    found = compare([], [row("1")])
    assert found.accuracy.value is None
    assert found.accuracy.p is None
    assert found.votes.p == 1.0
    assert found.only_in_b == ("sums/1",)
