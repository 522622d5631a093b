"""Where sampler and trainer disagree."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inftythink.train.mismatch import Mismatch, divergence, token_weights

LOGPROBS = st.lists(st.tuples(st.floats(-8, 0), st.floats(-8, 0)), min_size=1, max_size=20)


def tensors(pairs):
    return (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))


@given(LOGPROBS)
def test_icepop_weights_by_the_ratio_inside_and_leaves_out_the_rest(pairs):
    weights = token_weights(*tensors(pairs), Mismatch()).tolist()
    for (trainer, sampler), weight in zip(pairs, weights, strict=True):
        k = math.exp(trainer - sampler)
        assert weight == pytest.approx(k if 0.5 <= k <= 5.0 else 0.0, rel=1e-9)


@given(LOGPROBS)
def test_truncation_cuts_large_ratios(pairs):
    weights = token_weights(*tensors(pairs), Mismatch(correction="truncate", high=2.0)).tolist()
    assert weights == pytest.approx([min(math.exp(trainer - sampler), 2.0) for trainer, sampler in pairs], rel=1e-9)


@given(LOGPROBS)
def test_without_correction_all_count_the_same(pairs):
    assert token_weights(*tensors(pairs), Mismatch(correction="none")).tolist() == [1.0] * len(pairs)


@pytest.mark.parametrize("correction", ["icepop", "truncate", "none"])
def test_equal_probabilities_change_nothing_and_weights_carry_no_gradient(correction):
    trainer = torch.tensor([-1.0, -0.5], requires_grad=True)
    weights = token_weights(trainer, trainer.detach(), Mismatch(correction=correction))
    assert weights.tolist() == [1.0, 1.0]
    assert not weights.requires_grad


@given(LOGPROBS)
def test_the_divergence_is_never_negative(pairs):
    trainer, sampler = tensors(pairs)
    assert (divergence(trainer, sampler) >= -1e-12).all()
    assert divergence(trainer, trainer).abs().max() == 0
