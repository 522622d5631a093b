"""The key-value cache of the in-process backend: rows come and go, and no step copies it. No threads.

Every row's newest token stands in column ``length - 1``; its first in column ``starts[i]``. What lies before a row, and
the room behind ``length``, is masked and holds finite numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "inftythink"
"""The name under which ``attend`` is known to transformers."""


class Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [rows, heads, capacity, size]; a step writes its column in place.

    Attention reads the whole buffer, the masked room at its end too: a view that ends at ``length`` is not contiguous,
    and matrix products copy or crawl through those.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self.keys, self.values, self.length = keys, values, length
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the next columns; return the whole buffer's rows in use."""
        rows, end = key_states.shape[0], self.length + key_states.shape[2]
        keys, values = self.keys[:rows], self.values[:rows]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys, values

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Return how many columns attention reads, and the first one's number."""
        return self.keys.shape[2], 0

    def get_seq_length(self, *_: Any) -> int:
        """Return the number of columns written."""
        return self.length


class RowCache:
    """The buffers of all layers, and where each row stands in them.

    Buffers are replaced when there is no room: in width every ``slack`` steps, which costs less than a hundredth of
    what attention reads in them; in rows when more are added than have left. Replacing also takes off the padding that
    only rows that left needed.
    """

    def __init__(self, slack: int = 64) -> None:
        self._slack = slack
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.starts: list[int] = []
        self.length = 0
        self.layers = Cache(layers=[])
        self._mask = torch.empty(0, 0, dtype=torch.bool)  # [rows, capacity] of the buffers, true where a token is

    @property
    def width(self) -> int:
        """Columns between the first token of the longest row and the last."""
        return self.length - min(self.starts, default=self.length)

    @property
    def mask(self) -> Tensor:
        """Which columns hold a token, [rows, capacity]."""
        return self._mask[: len(self.starts)]

    def step(self) -> Tensor:
        """Make room for one more token in every row, and return its positions, [rows, 1]."""
        if self.length == self._mask.shape[1]:
            self._rebuild(len(self.starts), self.width)
        self._mask[: len(self.starts), self.length] = True
        positions = torch.tensor([self.length - start for start in self.starts], device=self._mask.device)
        self.length += 1
        return positions.unsqueeze(1)

    def add(self, prompts: Cache, index: Sequence[int], lengths: Sequence[int]) -> None:
        """Add a row for each of ``index``: that row of ``prompts``, padded on the left, with so many tokens.

        ``prompts`` is emptied on the way, so that no layer is held twice.
        """
        count, total, width = len(self.starts), len(self.starts) + len(index), max(lengths)
        if not self.layers.layers:
            self._begin(prompts)
        if total > self._mask.shape[0] or width > self.length:
            self._rebuild(total, max(self.width, width))
        select = None if list(index) == list(range(len(index))) else torch.tensor(index, device=self._mask.device)
        rows, columns = slice(count, total), slice(self.length - width, self.length)
        for mine, new in zip(self.layers.layers, prompts.layers, strict=True):
            for buffer, states in ((mine.keys, new.keys), (mine.values, new.values)):
                buffer[rows] = 0  # nothing of a row that was here, be it NaN
                buffer[rows, :, columns] = states if select is None else states[select]
            new.keys = new.values = None
        self._mask[rows] = False
        for i, length in enumerate(lengths, start=count):
            self._mask[i, self.length - length : self.length] = True
            self.starts.append(self.length - length)

    def drop(self, gone: Sequence[int]) -> list[int]:
        """Take rows out; the last ones move into their places. Return the old number of each row that is left."""
        left = len(self.starts) - len(gone)
        order, out = list(range(left)), set(gone)
        holes = [i for i in gone if i < left]
        movers = [i for i in range(left, len(self.starts)) if i not in out]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
            for layer in self.layers.layers:
                layer.keys[hole] = layer.keys[mover]
                layer.values[hole] = layer.values[mover]
            self._mask[hole] = self._mask[mover]
        self.starts = [self.starts[i] for i in order]
        if not left:
            self.clear()
        elif self.width * 2 < self.length:  # most of what attention reads is padding
            self._rebuild(left, self.width)
        return order

    def _begin(self, prompts: Cache) -> None:
        """Take the shapes of the layers from the first prompts."""
        layers = [Layer(new.keys[:0, :, :0], new.values[:0, :, :0], 0) for new in prompts.layers]
        self.layers = Cache(layers=layers)
        self._mask = self._mask.to(layers[0].keys.device)

    def _rebuild(self, rows: int, width: int) -> None:
        """Copy what is in use to new buffers for ``rows`` rows, where it ends at column ``width``."""
        count, old = len(self.starts), slice(self.length - self.width, self.length)
        new, shift = slice(width - self.width, width), width - self.length
        for layer in self.layers.layers:  # one at a time: the old one is freed before the next is copied
            for name in ("keys", "values"):
                states = getattr(layer, name)
                buffer = states.new_zeros((rows, states.shape[1], width + self._slack, states.shape[3]))
                buffer[:count, :, new] = states[:count, :, old]
                setattr(layer, name, buffer)
            layer.length = width
        mask = self._mask.new_zeros((rows, width + self._slack))
        mask[:count, new] = self._mask[:count, old]
        self._mask, self.length = mask, width
        self.starts = [start + shift for start in self.starts]


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend with one query a row by two plain products, faster on CPUs than the fused kernel; else by ``sdpa``.

    ``query`` is [rows, heads, queries, size], keys and values [rows, key heads, capacity, size]. Returns [rows,
    queries, heads, size].
    """
    unusual = any(options.get(name) is not None for name in ("softcap", "position_bias", "s_aux"))
    if query.shape[2] != 1 or attention_mask is None or unusual:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended, None
    rows, heads, _, size = query.shape
    scaled = query * (options.get("scaling") or size**-0.5)
    scores = scaled.reshape(rows, key.shape[1], -1, size) @ key.transpose(2, 3)  # [rows, key heads, group, capacity]
    scores += attention_mask
    attended = scores.softmax(-1) @ value
    return attended.reshape(rows, 1, heads, value.shape[3]), None


def attention_mask(*arguments: Any, **options: Any) -> Tensor | None:
    """Return the mask that ``sdpa`` takes; as numbers to add where there is one query a row, once for all layers."""
    mask: Tensor | None = sdpa_mask(*arguments, **options)
    if mask is None or mask.shape[2] != 1:
        return mask
    dtype = options["dtype"]
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, attention_mask)
