"""The metrics against computations of another kind: enumeration, plain Python, simulation."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from itertools import combinations
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.evals.estimate import intervals, resampled_means, student, unseen
from inftythink.evals.metrics import (
    accuracy,
    by_budget,
    by_rounds,
    default_budgets,
    failures,
    maj_at_k,
    outcomes,
    pass_at_k,
    sizes,
    summary,
    usage,
)
from inftythink.evals.votes import majority_at, pass_at
from tests.evals.rows import round_row, row

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
votes = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c", "d"]), st.booleans()), min_size=1, max_size=8)


def consistent(cast):
    """Votes as graders give them: equal answers have equal verdicts, and no answer is wrong."""
    verdict = {}
    return [(answer, answer is not None and verdict.setdefault(answer, right)) for answer, right in cast]


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n, data):
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(combinations([place < right for place in range(n)], k))
    assert pass_at(n, right, k) == pytest.approx(fmean(map(any, subsets)), abs=1e-9)


def vote_of(subset, worth):
    count = Counter(answer for answer, _ in subset if answer is not None)
    if not count:
        return 0.0
    most = max(count.values())
    return fmean(worth[answer] for answer, number in count.items() if number == most)


@settings(max_examples=300, deadline=None)
@given(votes, st.booleans(), st.data())
def test_maj_at_k_is_the_mean_over_all_subsets(cast, agree, data):
    cast = consistent(cast) if agree else cast
    k = data.draw(st.integers(1, len(cast)))
    worth = {answer: fmean(right for other, right in cast if other == answer) for answer, _ in cast}
    expected = fmean(vote_of(subset, worth) for subset in combinations(cast, k))
    assert majority_at(cast, k) == pytest.approx(expected, abs=1e-9)


def test_maj_at_many_samples_is_exact_and_quick():
    cast = [(str(place % 7), place % 7 == 0) for place in range(64)]
    assert majority_at(cast, 64) == 1.0  # 0 has ten votes, the others nine
    assert 0.1 < majority_at(cast, 32) < 1.0
    assert majority_at(cast, 1) == pytest.approx(10 / 64, abs=1e-12)


@pytest.mark.parametrize("k", [0, 3])
def test_k_outside_the_samples_is_refused(k):
    with pytest.raises(ValueError, match="between 1 and the 2 samples"):
        pass_at(2, 1, k)
    with pytest.raises(ValueError, match="between 1 and the 2 samples"):
        majority_at([("a", True), ("b", False)], k)


def plain_interval(values, picked):
    """The expanded BCa interval in plain Python, from the same draws."""
    normal, n = NormalDist(), len(values)
    center = math.fsum(values) / n
    means = sorted(math.fsum(values[i] for i in line) / n for line in picked)
    below = sum(mean < center - 1e-12 for mean in means)
    equal = sum(abs(mean - center) <= 1e-12 for mean in means)
    bias = normal.inv_cdf(min(max((below + equal / 2) / len(means), 1 / len(means)), 1 - 1 / len(means)))
    without = [(n * center - value) / (n - 1) for value in values]  # the jackknife
    middle = math.fsum(without) / n
    power = [math.fsum((middle - each) ** p for each in without) for p in (3, 2)]
    skew = power[0] / (6 * power[1] ** 1.5)
    ends = []
    wide = student(n - 1) * math.sqrt(n / (n - 1))
    for z in (-wide, wide):
        place = normal.cdf(bias + (bias + z) / (1 - skew * (bias + z))) * (len(means) - 1)
        low = math.floor(place)
        ends.append(means[low] + (means[min(low + 1, len(means) - 1)] - means[low]) * (place - low))
    return ends


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=30).filter(lambda x: len(set(x)) > 1), st.integers(0, 5))
def test_intervals_are_those_of_plain_python(fourths, seed):
    values = [fourth / 4 for fourth in fourths]
    picked = np.random.default_rng(seed).integers(0, len(values), (200, len(values))).tolist()
    assert intervals([values], resamples=200, seed=seed)[0] == pytest.approx(plain_interval(values, picked), abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 59])
def test_student_is_the_percentile_of_its_density(freedom):
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    places, step = np.linspace(0, student(freedom), 400_001, retstep=True)
    density = scale * (1 + places**2 / freedom) ** (-(freedom + 1) / 2)
    simpson = step / 3 * (density[0] + density[-1] + 4 * density[1::2].sum() + 2 * density[2:-1:2].sum())
    assert simpson == pytest.approx(0.475, abs=1e-10)


def test_resamples_drawn_in_blocks_are_those_drawn_at_once(monkeypatch):
    values = np.random.default_rng(0).random((3, 40))
    picked = np.random.default_rng(7).integers(0, 40, (500, 40))
    monkeypatch.setattr("inftythink.evals.estimate._BLOCK", 999)
    np.testing.assert_allclose(resampled_means(values, 500, 7), values[:, picked].mean(axis=2), atol=1e-12)


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (0.3, 0.5), (2.0, 6.0), (40.0, 40.0)])
@pytest.mark.parametrize(("problems", "samples"), [(60, 4), (30, 16), (200, 1)])
def test_intervals_cover_the_truth(alpha, problems, samples):
    """2,000 data sets; how hard a problem is follows a beta distribution, from all alike to all or nothing."""
    draw = np.random.default_rng(1)
    values = draw.binomial(samples, draw.beta(*alpha, (2000, problems))) / samples
    truth = alpha[0] / sum(alpha)
    covered = [low <= truth <= high for low, high in intervals(values, resamples=2000)]
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize(("value", "problems"), [(1.0, 1), (1.0, 30), (0.0, 500)])
def test_without_spread_the_interval_is_wilsons(value, problems):
    z = NormalDist().inv_cdf(0.975)
    middle, half = (value + z * z / (2 * problems)), z * math.sqrt(z * z / (4 * problems**2))
    scale = 1 + z * z / problems
    found = intervals([[value] * problems])[0]
    assert found == pytest.approx(((middle - half) / scale, (middle + half) / scale), abs=1e-12)


def test_without_spread_the_interval_has_width_and_holds_the_value():
    low, high = unseen(0.5, 10, (0.0, 1.0))
    assert 0.3 < low < 0.5 < high < 0.7
    assert unseen(7.0, 10, None) == (None, None)


def test_accuracy_weighs_problems_not_samples():
    rows = [row("1", sample, correct=True) for sample in range(9)] + [row("2", 0, correct=False)]
    found = accuracy(rows)
    assert (found.value, found.problems, found.samples, found.failed, found.left_out) == (0.5, 2, 10, 0, 0)


def test_failed_samples_are_in_no_denominator_but_counted():
    rows = [row("1", 0), row("1", 1, None, outcome="failed"), row("2", 0, None, reason="timed out after 10 s")]
    rows += [row("3", 0, None, reason="grader failed: ValueError: no"), row("4", 0, False, None, outcome="truncated")]
    found = accuracy(rows)
    assert (found.value, found.problems, found.samples, found.failed, found.left_out) == (0.5, 2, 2, 3, 2)
    assert failures(rows) == {"grader failed": 1, "timed out after 10 s": 1, "trajectory failed": 1}
    assert +outcomes(rows) == {"answered": 3, "failed": 1, "truncated": 1}
    assert list(outcomes([])) == ["answered", "round_limit", "token_limit", "truncated", "malformed", "failed"]


def test_problems_with_too_few_samples_are_left_out_of_pass_and_maj():
    rows = [row("1", sample, sample == 0) for sample in range(4)] + [row("2", 0), row("2", 1, None)]
    for found in (pass_at_k(rows, 2), maj_at_k(rows, 2)):
        assert (found.problems, found.left_out, found.failed) == (1, 1, 1)
    assert pass_at_k(rows, 2).value == 0.5


def test_nothing_graded_gives_no_number():
    for rows in ([], [row(correct=None)]):
        found = accuracy(rows)
        assert (found.value, found.low, found.high, found.problems) == (None, None, None, 0)
        assert json.loads(json.dumps(summary(rows)))["all"]["accuracy"]["value"] is None


def test_rounds_and_budgets_cut_the_same_trajectories():
    one, three = [round_row(100)], [round_row(100)] * 3
    rows = [row("1", rounds=one), row("2", rounds=three), row("3", rounds=three, correct=False), row("4", rounds=one)]
    assert {r: found.value for r, found in by_rounds(rows).items()} == {1: 0.5, 2: 0.5, 3: 0.75}
    assert {b: found.value for b, found in by_budget(rows).items()} == {256: 0.5, 512: 0.75}
    assert by_rounds(rows, [2]).keys() == {2}
    assert by_budget(rows, [99, 300])[99].value == 0.0
    assert by_budget(rows, [99, 300])[300].value == 0.75
    assert by_rounds([]) == by_budget([]) == {}


@pytest.mark.parametrize(
    ("most", "expected"), [(0, []), (1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_the_k_that_are_told(most, expected):
    assert sizes(most) == expected


@pytest.mark.parametrize(("most", "last"), [(1, 256), (256, 256), (257, 512), (5000, 8192)])
def test_the_last_budget_holds_all(most, last):
    assert default_budgets(most)[0] == 256
    assert default_budgets(most)[-1] == last


def test_usage_counts_what_was_used():
    rows = [
        row("1", rounds=[round_row(100, 10, 400, 40), round_row(50, 30, 100, 0)]),
        row("2", rounds=[round_row(30, 20, 60, 20)]),
        row("3", correct=None, outcome="failed", rounds=[round_row(999)]),
    ]
    found = usage(rows)
    assert found["trajectories"] == 2
    assert found["tokens"] == {"total": 180, "mean": 90, "p50": 30, "p95": 150}
    assert found["prompt_tokens"] == 60
    assert found["peak_context"] == {"max": 110, "mean": 80}
    assert found["rounds"] == {"mean": 1.5, "max": 2, "rows": {"1": 1, "2": 1}}
    assert found["compression"] == pytest.approx(460 / 60)
    assert found["latency"] == {"mean": 1.5, "p50": 1.0, "p95": 2.0}
    assert found["tokens_per_second"] == 60
    assert "cost" not in found


def test_percentiles_are_values_that_occurred():
    rows = [row(str(number), rounds=[round_row(number)]) for number in range(1, 101)]
    assert (usage(rows)["tokens"]["p50"], usage(rows)["tokens"]["p95"]) == (50, 95)


def some_rows(seed=3):
    draw = random.Random(seed)
    found = []
    for problem in range(12):
        for sample in range(4):
            rounds = [round_row(draw.randint(20, 400), 30, draw.randint(50, 900), draw.randint(0, 90)) for _ in "ab"]
            correct = draw.choice([True, True, False, None])
            kind = "algebra" if problem % 2 else "geometry"
            task = "sums" if problem < 8 else "more"
            found.append(row(str(problem), sample, correct, draw.choice("ab"), task=task, group=kind, rounds=rounds))
    return found


def test_the_summary_is_json_and_does_not_depend_on_the_order():
    rows = some_rows()
    first = json.dumps(summary(rows, LLAMA))
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert json.dumps(summary(rows, LLAMA)) == first
    told = json.loads(first)
    assert list(told["tasks"]) == ["more", "sums"]
    assert told["all"]["accuracy"]["problems"] == 12
    assert list(told["all"]["groups"]) == ["algebra", "geometry"]
    assert list(told["all"]["pass_at"]) == list(told["all"]["maj_at"]) == ["1", "2", "4"]
    one = told["tasks"]["sums"]
    assert one["pass_at"]["1"]["value"] == pytest.approx(one["accuracy"]["value"], abs=1e-12)
    assert told["mean_of_tasks"] == pytest.approx(fmean(t["accuracy"]["value"] for t in told["tasks"].values()))


def test_the_summary_tells_the_work_of_a_model_that_is_known():
    rows = [row("1", rounds=[round_row(5, 3)])]
    told = summary(rows, LLAMA)["all"]["usage"]["cost"]
    assert told["attention_flops"] == 2 * 2 * 64 * 2 * (1 + 2 + 3 + 4 + 5 + 6 + 7)
    assert told["kv_bytes_max"] == 8 * 2 * 2 * 64 * 2
    weights = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    assert told["linear_flops"] == 2 * 7 * weights + 2 * 5 * 64 * 100
    unknown = summary(rows, {"model_type": "mamba"})
    assert "mamba" in unknown["cost_unknown"]
    assert "cost" not in unknown["all"]["usage"]
