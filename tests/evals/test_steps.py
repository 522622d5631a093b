"""The curve of a step: against sums written out, against the cost model, and found again from its own times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.errors import UsageError
from inftythink.evals.architecture import read_architecture
from inftythink.evals.cost import Call, Setting, cost, in_rounds, vanilla
from inftythink.evals.steps import Steps, Work, curve, fit, work_of

MODELS = Path(__file__).parents[2] / "recipes/models"
CALLS = st.builds(Call, st.integers(1, 300), st.integers(1, 300))
POSITIVE = st.floats(1e-6, 1.0)


@given(call=CALLS, batch=st.integers(1, 9), count=st.integers(1, 5))
def test_work_is_the_sum_over_steps(call, batch, count):
    work = work_of(((call, count),), batch)
    places = range(call.prompt, call.prompt + call.generated)
    assert work.steps == count * call.generated
    assert work.sequences == batch * work.steps
    assert work.keys == batch * count * sum(places)
    assert work.prompt == batch * count * call.prompt


@given(fixed=POSITIVE, sequence=POSITIVE, key=POSITIVE, prompt=POSITIVE)
def test_a_curve_is_found_again_from_its_times(fixed, sequence, key, prompt):
    true = Steps(fixed, sequence, key, prompt)
    shapes = [(1, 10, 50), (4, 10, 60), (16, 10, 50), (1, 900, 20), (8, 400, 30), (2, 10, 300)]
    works = [work_of(((Call(length, made), 1),), batch) for batch, length, made in shapes]
    found = fit((work, true.seconds(work)) for work in works)
    for work in works:
        assert found.seconds(work) == pytest.approx(true.seconds(work), rel=1e-3)


def test_numbers_of_a_fit_are_never_below_nothing():
    works = [Work(10, 10, 100), Work(10, 40, 400), Work(20, 20, 900)]
    found = fit(zip(works, (1.0, 0.9, 2.1), strict=True))
    assert min(found.fixed, found.sequence, found.key, found.prompt) >= 0
    assert found.fixed == pytest.approx(0.1, rel=0.1)
    assert found.prompt == 0


def test_a_fit_needs_something():
    with pytest.raises(UsageError, match="nothing"):
        fit([])


@pytest.mark.parametrize("batch", [1, 32])
def test_the_roofline_is_the_cost_models(batch):
    """Where memory decides, which the cost model takes alone, the sum is above it by the little that is computed."""
    model = read_architecture(json.loads((MODELS / "Qwen2.5-Math-7B.json").read_text()))
    setting = Setting(batch=batch)
    for plan in (vanilla(300, 8192), in_rounds(300, 8192, 2048, 512)):
        told = cost(model, plan, setting).seconds
        assert told <= curve(model, setting).seconds(work_of(plan, batch)) <= 1.2 * told
        assert curve(model, setting, 0.5).seconds(work_of(plan)) == pytest.approx(
            2 * curve(model, setting).seconds(work_of(plan))
        )
