"""What trajectories are worth."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.errors import UsageError
from inftythink.protocol import Outcome, Problem, Round, Trajectory
from inftythink.train.reward import efficiency, load_reward, make_reward, task

WRONG = [outcome for outcome in Outcome if outcome not in (Outcome.ANSWERED, Outcome.FAILED)]


def trajectory(outcome=Outcome.ANSWERED, correct=True, rounds=1):
    grade = {"correct": correct, "extracted": None, "reason": None}
    return Trajectory(Problem("p", "?"), outcome, tuple(Round(k + 1, "") for k in range(rounds)), grade=grade)


def long_thought(trajectory):
    return len(trajectory.rounds) / 2


def no_number(trajectory):
    return float("nan")


def test_only_right_answers_are_worth_something():
    assert task(trajectory()) == 1.0
    assert task(trajectory(correct=False)) == 0.0
    for outcome in WRONG:
        assert make_reward(("task",), 5)(trajectory(outcome, correct=False)) == 0.0
        assert task(trajectory(outcome, correct=True)) == 0.0


@pytest.mark.parametrize("names", [("task",), ("efficiency",), ("task", f"{__name__}:long_thought")])
def test_nothing_is_known_of_what_failed(names):
    reward = make_reward(names, 5)
    assert reward(trajectory(Outcome.FAILED, None)) is None
    assert reward(trajectory(correct=None)) is None
    assert reward(dataclasses.replace(trajectory(), grade=None)) is None


def test_the_published_values_of_efficiency():
    assert [efficiency(n, 5) for n in (1, 2, 3, 5)] == pytest.approx([1, 0.96, 0.84, 0.36])
    assert [efficiency(n, 5, "linear") for n in (1, 2, 5)] == pytest.approx([1, 0.8, 0.2])
    assert efficiency(3, 4, "logarithmic") == pytest.approx(1 - math.log2(1.5))


@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from(["quadratic", "linear", "logarithmic"]))
def test_efficiency_falls_from_one_and_stays_above_nothing(rounds, phi, decay):
    value = efficiency(rounds, phi, decay)
    assert 0 <= efficiency(rounds + 1, phi, decay) <= value <= 1
    assert efficiency(1, phi, decay) == 1
    if 1 < rounds <= phi:
        assert 0 < value < 1
        assert efficiency(rounds, phi) >= efficiency(rounds, phi, "linear") >= efficiency(rounds, phi, "logarithmic")


@given(st.integers(1, 5), st.booleans())
def test_rewards_are_multiplied(rounds, correct):
    reward = make_reward(("task", "efficiency", f"{__name__}:long_thought"), 5)
    assert reward(trajectory(correct=correct, rounds=rounds)) == pytest.approx(
        correct * efficiency(rounds, 5) * rounds / 2
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("speed", "give task, efficiency, or MODULE:FUNCTION"),
        ("nowhere.at.all:f", "cannot import 'nowhere.at.all'"),
        ("math:nothing", "the module 'math' has no 'nothing'"),
        ("math:pi", "is a float, not a function"),
    ],
)
def test_a_name_that_leads_nowhere_is_told(name, told):
    with pytest.raises(UsageError, match=told):
        load_reward(name)


def test_what_is_no_reward_is_told():
    with pytest.raises(UsageError, match="no reward"):
        make_reward((), 5)
    with pytest.raises(UsageError, match="returned nan, which is no finite number"):
        make_reward((f"{__name__}:no_number",), 5)(trajectory())
