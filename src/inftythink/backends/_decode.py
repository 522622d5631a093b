"""The decode loop of the in-process backend: rows that come and go in one batch with one key-value cache. No threads.

The batch is padded on the left, so that every row's newest token is in the last column; padded positions are masked
and positions are counted per row, so that a row computes what it would compute alone (up to rounding).
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from inftythink.backends._cache import ATTENTION, RowCache
from inftythink.backends.base import Sampling
from inftythink.errors import BackendFatalError

BATCHED = ("full_attention", "sliding_attention")
"""Kinds of layers whose cache is plain keys and values by position, so that rows can be merged."""


@dataclass(eq=False, slots=True)
class Row:
    """A sequence in the batch. ``chance`` is its own source of randomness."""

    prompt_ids: list[int]
    max_tokens: int
    sampling: Sampling
    chance: random.Random

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

    ``prefill_tokens`` bounds the padded prompt tokens of one forward pass; by default 8,192, on a CPU 1,024, where
    larger ones are no faster and long prompts are better off alone, without padding. ``slack``: see ``RowCache``.
    """

    def __init__(self, model: Any, prefill_tokens: int | None = None, slack: int = 64) -> None:
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or BATCHED) - set(BATCHED)
        if kinds or getattr(model, "_is_stateful", False) or model.config.is_encoder_decoder:
            what = ", ".join(sorted(kinds)) or "state that is not a key-value cache"
            raise BackendFatalError(
                f"the model {type(model).__name__} has {what}, whose rows cannot be batched in process; "
                "serve it with vLLM or SGLang and use --base-url"
            )
        self._model = model
        on_cpu = model.device.type == "cpu"
        self._prefill_tokens = prefill_tokens or (1024 if on_cpu else 8192)
        if on_cpu and model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(ATTENTION)
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self.rows: list[Row] = []
        self._cache = RowCache(slack)
        self._last: list[int] = []  # each row's newest token, not in the cache yet

    @property
    def width(self) -> int:
        """Cache positions per row, padding included."""
        return self._cache.width

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> list[Drawn]:
        """Compute the prompts of new rows, add them to the batch and draw the first token of each.

        A prompt that several rows share is computed once. When the model raises, the batch is as it was.
        """
        device = self._model.device
        prompts = list(dict.fromkeys(tuple(row.prompt_ids) for row in rows))
        numbers = {prompt: i for i, prompt in enumerate(prompts)}
        index = [numbers[tuple(row.prompt_ids)] for row in rows]
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        cache = DynamicCache()
        logits = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        drawn = draw(rows, logits[index])
        self._cache.add(cache, index, [len(row.prompt_ids) for row in rows])
        self.rows += rows
        self._last += [d.token for d in drawn]
        return drawn

    def groups(self, rows: Iterable[Row]) -> list[list[Row]]:
        """Cut new rows into batches of similar length, so that little padding is computed; equal prompts together."""
        out: list[list[Row]] = []
        prompts = width = 0  # of the last batch
        for row in sorted(rows, key=lambda row: (-len(row.prompt_ids), row.prompt_ids)):
            if out and row.prompt_ids == out[-1][-1].prompt_ids:
                out[-1].append(row)
            elif out and width * (prompts + 1) <= self._prefill_tokens and len(row.prompt_ids) * 2 >= width:
                out[-1].append(row)
                prompts += 1
            else:
                out.append([row])
                prompts, width = 1, len(row.prompt_ids)
        return out

    @torch.inference_mode()
    def step(self) -> list[Drawn]:
        """Draw the next token of every row. When this raises, the batch must be cleared."""
        positions = self._cache.step()
        ids = torch.tensor(self._last, device=positions.device).unsqueeze(1)
        drawn = draw(self.rows, self._forward(ids, self._cache.mask, positions, self._cache.layers))
        self._last = [d.token for d in drawn]
        return drawn

    @torch.inference_mode()
    def drop(self, rows: Iterable[Row]) -> None:
        """Take rows out. The others may change their order."""
        gone = {id(row) for row in rows}
        if gone:
            order = self._cache.drop([i for i, row in enumerate(self.rows) if id(row) in gone])
            self.rows = [self.rows[i] for i in order]
            self._last = [self._last[i] for i in order]

    def clear(self) -> None:
        """Forget all rows."""
        self._cache.clear()
        self.rows, self._last = [], []

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
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


HEAD = 256
"""How many of a row's likeliest tokens are sorted at first: mostly they hold ``top_p`` already, and sorting is slow."""


def draw(rows: Sequence[Row], logits: Tensor) -> list[Drawn]:
    """Draw one token for each row from ``logits`` [rows, vocabulary].

    The log-probability is that of softmax(logits / temperature), before top-k and top-p cut it (temperature 1 for
    greedy rows): what a trainer computes from the same ids, and what its importance ratios need.
    """
    scores = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    temperatures = [row.sampling.temperature or 1.0 for row in rows]
    if any(temperature != 1.0 for temperature in temperatures):
        scores = scores / torch.tensor(temperatures, dtype=scores.dtype, device=scores.device).unsqueeze(1)
    tokens = scores.argmax(-1)
    norms = scores.logsumexp(-1)
    groups: dict[tuple[int, float], list[int]] = {}
    for i, (row, finite) in enumerate(zip(rows, norms.isfinite().tolist(), strict=True)):
        if row.sampling.temperature > 0 and finite:
            groups.setdefault((row.sampling.top_k, row.sampling.top_p), []).append(i)
    for (top_k, top_p), indices in groups.items():
        chances = torch.tensor([rows[i].chance.random() for i in indices], dtype=torch.float64, device=scores.device)
        probabilities = (scores[indices] - norms[indices].unsqueeze(1)).exp()
        tokens[indices] = _sample(probabilities, chances, top_k, top_p)
    logprobs = scores.gather(1, tokens.unsqueeze(1)).squeeze(1) - norms
    drawn = zip(rows, tokens.tolist(), logprobs.tolist(), strict=True)
    return [Drawn(row, token, min(logprob, 0.0) if logprob == logprob else logprob) for row, token, logprob in drawn]


def _sample(probabilities: Tensor, chances: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return a token for each row of ``probabilities`` [rows, vocabulary], where its chance in [0, 1) falls.

    ``top_k`` tokens are kept if that is not 0, then the fewest likeliest ones that hold ``top_p`` of the rest.
    """
    size = probabilities.shape[1]
    if not top_k and top_p == 1.0:
        return _pick(probabilities, chances)
    count = min(top_k or (HEAD if top_p < 1.0 else size), size)
    kept, tokens = probabilities.topk(count)
    total = kept.sum(1, keepdim=True, dtype=torch.float64) if top_k else torch.ones_like(chances).unsqueeze(1)
    before = kept.cumsum(1, dtype=torch.float64) - kept
    picked = tokens.gather(1, _pick(kept * (before < top_p * total), chances).unsqueeze(1)).squeeze(1)
    short = (before[:, -1] + kept[:, -1] < top_p).nonzero().squeeze(1) if not top_k and count < size else ()
    if len(short):  # flat: the likeliest do not hold top_p
        picked[short] = _sample(probabilities[short], chances[short], size, top_p)
    return picked


def _pick(weights: Tensor, chances: Tensor) -> Tensor:
    """Return for each row of ``weights`` [rows, choices] the choice at that share of their sum."""
    sums = weights.cumsum(1, dtype=torch.float64)
    at = torch.searchsorted(sums, (chances * sums[:, -1]).unsqueeze(1), right=True)
    return at.squeeze(1).clamp(max=weights.shape[1] - 1)
