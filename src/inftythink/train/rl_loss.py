"""The loss of rows of rounds: micro-batches within a budget of tokens, and the clipped surrogate on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inftythink.train.batches import Shape, in_order
from inftythink.train.mismatch import Mismatch, divergence, token_weights
from inftythink.train.rl_settings import Loss
from inftythink.train.rollout import RoundRow

IGNORED = -100


@dataclass(eq=False)
class MicroBatch:
    """Rows that a device takes at once, padded on the right.

    ``ids``, ``mask`` and ``labels`` are [rows, length]; labels are -100 where a token was not drawn. ``sampler`` and
    ``before`` [rows, length - 1] have the log-probabilities of tokens 1.. under the sampler and under the policy before
    the step; ``before`` is None where they are those of the present policy. ``advantages`` is [rows, 1].
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    sampler: Tensor
    advantages: Tensor
    before: Tensor | None = None

    @classmethod
    def of(cls, rows: Sequence[RoundRow], pad_id: int) -> MicroBatch:
        """Make the tensors of rows; no rows make one row without a trained token."""
        length = max((row.length for row in rows), default=2)
        shape = (max(1, len(rows)), length)
        ids = torch.full(shape, pad_id)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        sampler = torch.zeros(shape)
        mask[:, :2] = 1
        for i, row in enumerate(rows):
            start, end = len(row.prompt_ids), row.length
            ids[i, :end] = torch.tensor(row.prompt_ids + row.completion_ids)
            mask[i, :end] = 1
            drawn = torch.tensor(row.sampled)
            labels[i, start:end] = torch.where(drawn, ids[i, start:end], IGNORED)
            sampler[i, start:end] = torch.tensor(row.logprobs)
        advantages = torch.tensor([[row.advantage] for row in rows] or [[0.0]])
        return cls(ids, mask, labels, sampler[:, 1:], advantages)

    def to(self, device: torch.device) -> MicroBatch:
        """Return the batch on a device."""
        before = None if self.before is None else self.before.to(device)
        ids, mask, labels = self.ids.to(device), self.mask.to(device), self.labels.to(device)
        return MicroBatch(ids, mask, labels, self.sampler.to(device), self.advantages.to(device), before)

    @property
    def trained(self) -> Tensor:
        """Which of tokens 1.. were drawn, [rows, length - 1]."""
        return self.labels[:, 1:] != IGNORED


def share(rows: Sequence[RoundRow], budget: int, processes: int, number: int, pad_id: int) -> list[MicroBatch]:
    """Return the micro-batches of one of several processes; every process gets as many, at least one.

    A micro-batch has at most ``budget`` tokens, padding included; a row that is longer is one of its own.
    """
    plan = in_order([row.length for row in rows], Shape(processes, processes, budget)) or [[-1]] * processes
    return [MicroBatch.of([rows[i] for i in some if i >= 0], pad_id) for some in plan[number::processes]]


def surrogate(
    logprobs: Tensor, batch: MicroBatch, loss: Loss, mismatch: Mismatch, reference: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the losses of a micro-batch's tokens, and sums of figures over them.

    With r = p / p_before, k = p_before / p_sampler, A the advantage and w(k) the weight of ``token_weights``, a token's
    loss is  -w(k) min(r A, clip(r, 1 - low, 1 + high) A) + beta (p_ref / p - log(p_ref / p) - 1).

    Args:
        logprobs: of tokens 1.. under the present policy, [rows, length - 1], with gradient.
        batch: what was sampled.
        loss: clip and weight of the divergence.
        mismatch: how k is used.
        reference: log-probabilities under the model at the start, where the divergence has a weight.
    """
    trained = batch.trained
    before = logprobs.detach() if batch.before is None else batch.before
    weights = token_weights(before, batch.sampler.to(before.dtype), mismatch)
    ratio = (logprobs - before).exp()
    gain = batch.advantages.to(before.dtype)
    low, high = 1 - loss.clip_low, 1 + loss.clip_high
    losses = -weights * torch.minimum(ratio * gain, ratio.clamp(low, high) * gain)
    sums = {
        "masked": (weights == 0).to(losses.dtype),
        "sampler_kl": divergence(before, batch.sampler.to(before.dtype)),
        "clipped_low": ((ratio < low) & (gain < 0)).to(losses.dtype),
        "clipped_high": ((ratio > high) & (gain > 0)).to(losses.dtype),
    }
    if reference is not None:
        away = reference - logprobs
        divergences = away.exp() - away - 1
        losses = losses + loss.kl * divergences
        sums["kl"] = divergences.detach()
    # Where a token was not trained its value may be anything, infinite too: it is left out, not multiplied by 0.
    return losses[trained].sum(), {name: value[trained].sum() for name, value in sums.items()}
