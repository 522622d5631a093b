"""Corrections where the sampler gave a token another probability than the trainer does.

Both have the same weights, yet other kernels, number types and batches; tokens on which they disagree would pull the
policy somewhere else. With k = p_trainer / p_sampler, before the update, of each token:

============  =========================================================================
``icepop``    the token's term is multiplied by k if k is in [low, high], else by 0
``truncate``  it is multiplied by min(k, high) (truncated importance sampling)
``none``      it stays as it is
============  =========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inftythink.config import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mismatch:
    """How tokens are weighted on which sampler and trainer disagree."""

    correction: Literal["icepop", "truncate", "none"] = option(
        "icepop", "how terms are weighted by k = trainer / sampler"
    )
    low: float = option(0.5, "icepop leaves out tokens whose k is below")
    high: float = option(5.0, "icepop leaves out tokens whose k is above; truncate cuts k there")


def token_weights(trainer: Tensor, sampler: Tensor, how: Mismatch) -> Tensor:
    """Return what each token's term is multiplied with, without gradient.

    Args:
        trainer: log-probabilities of the tokens under the policy before the update, of any shape.
        sampler: those that the sampler told, of the same shape.
        how: the settings.
    """
    k = (trainer.detach() - sampler).exp()
    if how.correction == "icepop":
        return k.masked_fill((k < how.low) | (k > how.high), 0.0)
    return k.clamp(max=how.high) if how.correction == "truncate" else k.new_ones(k.shape)


def divergence(trainer: Tensor, sampler: Tensor) -> Tensor:
    """Return for each token an estimate of KL(sampler || trainer) that is never negative: k - 1 - log k."""
    log_k = trainer.detach() - sampler
    return log_k.exp() - 1 - log_k
