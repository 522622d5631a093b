"""From rewards to advantages."""

import math
import statistics
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.train.advantage import Advantage, advantages, has_spread

PAPER = Advantage()
REWARD = st.floats(-2, 2).map(lambda value: round(value, 3))
GROUP = st.lists(st.tuples(st.one_of(st.none(), REWARD), st.integers(1, 5)), min_size=1, max_size=9)
HOW = st.builds(
    Advantage,
    over=st.sampled_from(["trajectories", "rounds"]),
    scale=st.sampled_from(["std", "none"]),
    baseline=st.sampled_from(["mean", "leave_one_out"]),
)


def found(group, how=PAPER):
    return advantages([reward for reward, _ in group], [rounds for _, rounds in group], how)


def known(values):
    return [value for value in values if value is not None]


def test_the_papers_formula():
    rewards = [1.0, 0.0, 0.0, 0.96]
    mean, deviation = statistics.mean(rewards), statistics.stdev(rewards)
    assert advantages(rewards, [1, 2, 5, 2], Advantage()) == pytest.approx([(r - mean) / deviation for r in rewards])


def test_over_rounds_each_round_output_counts():
    rewards, rounds = [1.0, 0.0, 0.5], [1, 4, 2]
    outputs = list(chain.from_iterable([reward] * number for reward, number in zip(rewards, rounds, strict=True)))
    mean, deviation = statistics.mean(outputs), statistics.stdev(outputs)
    expected = [(reward - mean) / deviation for reward in rewards]
    assert advantages(rewards, rounds, Advantage(over="rounds")) == pytest.approx(expected)


def test_leave_one_out_compares_with_the_others():
    how = Advantage(scale="none", baseline="leave_one_out")
    assert advantages([1.0, 0.0, None, 0.5], [1, 1, 9, 1], how) == [0.75, -0.75, None, 0.0]


@given(GROUP, HOW)
def test_failed_trajectories_change_nothing(group, how):
    values = found(group, how)
    assert [value is None for value in values] == [reward is None for reward, _ in group]
    alone = [(reward, rounds) for reward, rounds in group if reward is not None]
    if alone:
        assert known(values) == found(alone, how)


@given(GROUP, HOW)
def test_no_spread_no_gradient(group, how):
    values = found(group, how)
    assert all(math.isfinite(value) for value in known(values))
    if not has_spread([reward for reward, _ in group]):
        assert known(values) == [0.0] * len(known(values))


@given(GROUP, HOW, st.randoms())
def test_the_order_of_trajectories_does_not_matter(group, how, chance):
    order = list(range(len(group)))
    chance.shuffle(order)
    values = found(group, how)
    for place, value in zip(order, found([group[i] for i in order], how), strict=True):
        assert value is values[place] is None or value == pytest.approx(values[place])


@given(GROUP, st.floats(0.5, 4), st.floats(-3, 3))
def test_scaled_advantages_do_not_depend_on_the_scale_of_rewards(group, factor, shift):
    moved = [(None if reward is None else factor * reward + shift, rounds) for reward, rounds in group]
    for one, two in zip(found(group), found(moved), strict=True):
        assert one is two is None or one == pytest.approx(two, rel=1e-6, abs=1e-6)


@given(GROUP, st.sampled_from(["std", "none"]), st.sampled_from(["trajectories", "rounds"]))
def test_advantages_of_a_group_balance(group, scale, over):
    values = found(group, Advantage(scale=scale, over=over))
    weights = [rounds if over == "rounds" else 1 for _, rounds in group]
    total = sum(value * weight for value, weight in zip(values, weights, strict=True) if value is not None)
    assert total == pytest.approx(0, abs=1e-6)
