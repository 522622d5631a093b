"""The decode loop of the in-process backend: rows that come and go in one batch with one key-value cache. No threads.

The batch is padded on the left, so that every row's newest token is in the last column; padded positions are masked
and positions are counted per row, so that a row computes what it would compute alone (up to rounding).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, TopKLogitsWarper, TopPLogitsWarper

from inftythink.backends.base import Sampling
from inftythink.errors import BackendFatalError

ATTENTION = ("full_attention", "sliding_attention")
"""Kinds of layers whose cache is plain keys and values by position, so that rows can be merged."""


@dataclass(eq=False, slots=True)
class Row:
    """A sequence in the batch."""

    prompt_ids: list[int]
    max_tokens: int
    sampling: Sampling
    generator: torch.Generator

    @property
    def reserved(self) -> int:
        """Cache positions that the row may come to need."""
        return len(self.prompt_ids) + self.max_tokens


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token that was drawn for a row. ``logprob`` is NaN when the model's output was not finite."""

    row: Row
    token: int
    logprob: float


class Batch:
    """Rows that are decoded together. Not thread-safe: one thread owns it.

    ``prefill_tokens`` bounds the padded prompt tokens of one forward pass.
    """

    def __init__(self, model: Any, prefill_tokens: int = 8192) -> None:
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ATTENTION) - set(ATTENTION)
        if kinds or getattr(model, "_is_stateful", False) or model.config.is_encoder_decoder:
            what = ", ".join(sorted(kinds)) or "state that is not a key-value cache"
            raise BackendFatalError(
                f"the model {type(model).__name__} has {what}, whose rows cannot be batched in process; "
                "serve it with vLLM or SGLang and use --base-url"
            )
        self._model = model
        self._prefill_tokens = prefill_tokens
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self.rows: list[Row] = []
        self._cache = DynamicCache()  # for each layer keys and values, [rows, heads, width, size]
        self._mask = torch.empty(0)  # [rows, width], 1 where there is a token
        self._last: list[int] = []  # each row's newest token, not in the cache yet

    @property
    def width(self) -> int:
        """Cache positions per row, padding included."""
        return int(self._mask.shape[1]) if self.rows else 0

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> list[Drawn]:
        """Compute the prompts of new rows, add them to the batch and draw the first token of each.

        When this raises, the batch is as it was.
        """
        device = self._model.device
        width = max(len(row.prompt_ids) for row in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)
            mask[i, width - len(row.prompt_ids) :] = 1
        mask = mask.to(device)
        cache = DynamicCache()
        logits = self._forward(ids.to(device), mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        drawn = draw(rows, logits)
        self._merge(cache, mask)
        self.rows += rows
        self._last += [d.token for d in drawn]
        return drawn

    def groups(self, rows: Iterable[Row]) -> list[list[Row]]:
        """Cut new rows into batches of similar length, so that little padding is computed."""
        out: list[list[Row]] = []
        for row in sorted(rows, key=lambda row: -len(row.prompt_ids)):
            width = len(out[-1][0].prompt_ids) if out else 0
            fits = out and width * (len(out[-1]) + 1) <= self._prefill_tokens and len(row.prompt_ids) * 2 >= width
            out[-1].append(row) if fits else out.append([row])
        return out

    @torch.inference_mode()
    def step(self) -> list[Drawn]:
        """Draw the next token of every row. When this raises, the batch must be cleared."""
        device = self._mask.device
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self.rows), 1))], dim=1)
        ids = torch.tensor(self._last, device=device).unsqueeze(1)
        logits = self._forward(ids, self._mask, self._mask.sum(1, keepdim=True) - 1, self._cache)
        drawn = draw(self.rows, logits)
        self._last = [d.token for d in drawn]
        return drawn

    @torch.inference_mode()
    def drop(self, rows: Iterable[Row]) -> None:
        """Take rows out, and the padding that only they needed."""
        gone = {id(row) for row in rows}
        stay = [i for i, row in enumerate(self.rows) if id(row) not in gone]
        if len(stay) == len(self.rows):
            return
        if not stay:
            self.clear()
            return
        index = torch.tensor(stay, device=self._mask.device)
        mask = self._mask.index_select(0, index)
        lead = int(mask.argmax(1).min())
        self._mask = mask[:, lead:].contiguous()
        for layer in self._cache.layers:  # one at a time: the old one is freed before the next is copied
            layer.keys = layer.keys[index, :, lead:].contiguous()
            layer.values = layer.values[index, :, lead:].contiguous()
        self.rows = [self.rows[i] for i in stay]
        self._last = [self._last[i] for i in stay]

    def clear(self) -> None:
        """Forget all rows."""
        self.rows, self._cache, self._mask, self._last = [], DynamicCache(), torch.empty(0), []

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Run the model; return the last column's logits, [rows, vocabulary]."""
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._extra,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def _merge(self, cache: DynamicCache, mask: Tensor) -> None:
        """Add the cache of new rows, padded to a common width."""
        if not self.rows:
            self._cache, self._mask = cache, mask
            return
        width = max(self._mask.shape[1], mask.shape[1])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys = torch.cat([_pad(old.keys, width), _pad(new.keys, width)])
            old.values = torch.cat([_pad(old.values, width), _pad(new.values, width)])
        masks = [torch.nn.functional.pad(m, (width - m.shape[1], 0)) for m in (self._mask, mask)]
        self._mask = torch.cat(masks)


def _pad(states: Tensor, width: int) -> Tensor:
    """Pad [rows, heads, positions, size] on the left of the positions."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))


def draw(rows: Sequence[Row], logits: Tensor) -> list[Drawn]:
    """Draw one token for each row from ``logits`` [rows, vocabulary].

    The log-probability is that of softmax(logits / temperature), before top-k and top-p cut it (temperature 1 for
    greedy rows): what a trainer computes from the same ids, and what its importance ratios need.
    """
    scores = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    temperatures = [row.sampling.temperature or 1.0 for row in rows]
    scores = scores / torch.tensor(temperatures, dtype=scores.dtype, device=scores.device).unsqueeze(1)
    tokens = scores.argmax(-1)
    norms = scores.logsumexp(-1)
    groups: dict[tuple[int, float], list[int]] = {}
    for i, (row, finite) in enumerate(zip(rows, norms.isfinite().tolist(), strict=True)):
        if row.sampling.temperature > 0 and finite:
            groups.setdefault((row.sampling.top_k, row.sampling.top_p), []).append(i)
    for (top_k, top_p), indices in groups.items():
        kept = scores[indices]
        if top_k > 0:
            kept = TopKLogitsWarper(top_k)(None, kept)
        if top_p < 1:
            kept = TopPLogitsWarper(top_p)(None, kept)
        for i, weights in zip(indices, kept.softmax(-1), strict=True):
            tokens[i] = torch.multinomial(weights, 1, generator=rows[i].generator)[0]
    logprobs = scores.gather(1, tokens.unsqueeze(1)).squeeze(1) - norms
    drawn = zip(rows, tokens.tolist(), logprobs.tolist(), strict=True)
    return [Drawn(row, token, min(logprob, 0.0) if logprob == logprob else logprob) for row, token, logprob in drawn]
