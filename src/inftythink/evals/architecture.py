"""What the cost of a decoder depends on, read from its ``config.json``; what is not known is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inftythink.errors import UsageError


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a decoder. Weights are counted; norms and biases, below a thousandth of them, are not.

    ``windows``: for each layer the most keys that a query sees, None for all before it. ``query_dim``: sum over the
    heads of the lengths of query and value, which are what a pair of query and key costs: while a prompt is read, and
    in ``step_dim`` while tokens are generated (they differ for latent attention, whose keys are not expanded then).
    ``cached``: numbers that a layer keeps of a token. ``dense``: weights of the layers that every token is multiplied
    with; ``expert`` those of one expert summed over the layers, ``experts_used`` of ``experts`` for each token.
    ``head``: weights of the output matrix; ``parameters``: all weights, embeddings among them.
    """

    name: str
    windows: tuple[int | None, ...]
    query_dim: int
    step_dim: int
    cached: int
    dense: int
    expert: int
    experts: int
    experts_used: int
    head: int
    parameters: int

    @property
    def active(self) -> int:
        """Weights of the layers that one token is multiplied with."""
        return self.dense + self.experts_used * self.expert

    def read(self, batch: int) -> float:
        """Return how many weights a step reads for ``batch`` tokens: of the experts those that any of them uses.

        Experts are taken to be drawn independently and equally often.
        """
        left_alone = (1 - self.experts_used / self.experts) ** batch if self.experts else 0.0
        return self.dense + self.expert * self.experts * (1 - left_alone) + self.head


_FULL = {"llama", "gemma", "olmo2", "deepseek_v2", "deepseek_v3"}
"""Every layer sees all that is before it."""
_ONE_WINDOW = {"mistral", "mixtral", "phi3"}
"""Every layer has the window, if there is one."""
_LAST_LAYERS = {"qwen2", "qwen3"}
"""With ``use_sliding_window``, layers from ``max_window_layers`` on have it."""
_SWITCHED = {"qwen2_moe", "qwen3_moe", "smollm3"}
"""No windows, unless ``use_sliding_window`` says so: then ``layer_types`` must say where."""
_ALTERNATING = {"gemma2": 2, "gemma3_text": 6}
"""One layer in so many sees everything; the others have the window."""
_LATENT = {"deepseek_v2", "deepseek_v3"}
KNOWN = frozenset(_FULL | _ONE_WINDOW | _LAST_LAYERS | _SWITCHED | set(_ALTERNATING))
"""The values of ``model_type`` whose cost is known."""

_OWN_HEAD = {"qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text"}
"""Their heads are not ``hidden_size / num_attention_heads`` long: ``head_dim`` must be told."""
_ALL_HEADS = {"llama", "phi3", "olmo2", "deepseek_v2", "deepseek_v3"}
"""Without ``num_key_value_heads``, each head has keys of its own."""
_TIED = {"gemma", "gemma2", "gemma3_text", "smollm3"}
"""Embeddings serve as output matrix unless told otherwise."""


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Read a ``config.json``; of a model with several parts, that of its text.

    Raises ``UsageError`` naming the kind of model that is not known, or the fields that are missing.
    """
    inner = config.get("text_config")
    fields = _Fields(inner if isinstance(inner, Mapping) and "hidden_size" in inner else config)
    fields.require("model_type")
    if fields.kind not in KNOWN:
        raise UsageError(f"model_type {fields.kind!r}: its cost is not known; known are {', '.join(sorted(KNOWN))}")
    fields.require("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    hidden, layers = fields["hidden_size"], fields["num_hidden_layers"]
    attention = _latent(fields) if fields.kind in _LATENT else _grouped(fields)
    dense, expert, experts, used = _feed_forward(fields)
    head = hidden * fields["vocab_size"]
    tied = fields.get("tie_word_embeddings", fields.kind in _TIED)
    dense += layers * attention.weights
    return Architecture(
        fields.kind,
        _windows(fields),
        attention.query_dim,
        attention.step_dim,
        attention.cached,
        dense,
        expert,
        experts,
        used,
        head,
        dense + experts * expert + head * (1 if tied else 2),
    )


class _Fields:
    """A configuration whose missing fields are named."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.kind = str(values.get("model_type"))

    def require(self, *names: str) -> None:
        lacking = [name for name in names if self.values.get(name) is None]
        if lacking:
            raise UsageError(f"model_type {self.kind!r}: the configuration lacks {', '.join(lacking)}")

    def __getitem__(self, name: str) -> int:
        self.require(name)
        return int(self.values[name])

    def get(self, name: str, default: Any) -> Any:
        """Return a field; null counts as not there."""
        value = self.values.get(name)
        return default if value is None else value


@dataclass(frozen=True, slots=True)
class _Attention:
    """The attention of one layer."""

    weights: int
    query_dim: int
    step_dim: int
    cached: int


def _grouped(fields: _Fields) -> _Attention:
    """Read attention whose heads share keys in groups (or do not)."""
    if fields.kind in _OWN_HEAD:
        fields.require("head_dim")
    if fields.kind not in _ALL_HEADS:
        fields.require("num_key_value_heads")
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    length = int(fields.get("head_dim", hidden // heads))
    key_heads = int(fields.get("num_key_value_heads", heads))
    both = 2 * heads * length
    return _Attention(hidden * (both + 2 * key_heads * length), both, both, 2 * key_heads * length)


def _latent(fields: _Fields) -> _Attention:
    """Read multi-head latent attention: a layer keeps one latent vector and one rotated key of a token.

    A prompt's keys and values are expanded from them; in a step the queries are brought to the latent space instead.
    """
    fields.require("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    hidden, heads, latent = fields["hidden_size"], fields["num_attention_heads"], fields["kv_lora_rank"]
    plain, rotated, value = fields["qk_nope_head_dim"], fields["qk_rope_head_dim"], fields["v_head_dim"]
    rank = fields.get("q_lora_rank", None)
    queries = heads * (plain + rotated)
    weights = hidden * queries if rank is None else rank * (hidden + queries)
    weights += hidden * (latent + rotated) + latent * heads * (plain + value) + heads * value * hidden
    return _Attention(weights, queries + heads * value, heads * (2 * latent + rotated), latent + rotated)


def _feed_forward(fields: _Fields) -> tuple[int, int, int, int]:
    """Return the weights of all layers that each token meets, those of one expert, the experts, and those used.

    All known kinds have gated layers: three matrices each.
    """
    hidden, layers, width = fields["hidden_size"], fields["num_hidden_layers"], 3 * fields["hidden_size"]
    plain = width * fields["intermediate_size"]
    if fields.kind == "mixtral":
        experts = fields["num_local_experts"]
        return layers * hidden * experts, layers * plain, experts, fields["num_experts_per_tok"]
    if fields.kind in ("qwen2_moe", "qwen3_moe"):
        experts = int(fields.get("num_experts", fields.get("num_local_experts", 0)))
        if not experts:
            fields.require("num_experts")
        every, alone = int(fields.get("decoder_sparse_step", 1)), set(fields.get("mlp_only_layers", ()))
        sparse = sum(layer not in alone and (layer + 1) % every == 0 for layer in range(layers))
        shared = width * fields["shared_expert_intermediate_size"] + hidden if fields.kind == "qwen2_moe" else 0
    elif fields.kind in _LATENT and fields.get("n_routed_experts", 0):
        experts = fields["n_routed_experts"]
        fields.require("first_k_dense_replace")
        sparse = max(0, layers - fields["first_k_dense_replace"])
        shared = width * fields["moe_intermediate_size"] * int(fields.get("n_shared_experts", 0))
    else:
        return layers * plain, 0, 0, 0
    dense = (layers - sparse) * plain + sparse * (hidden * experts + shared)
    return dense, sparse * width * fields["moe_intermediate_size"], experts, fields["num_experts_per_tok"]


def _windows(fields: _Fields) -> tuple[int | None, ...]:
    layers = fields["num_hidden_layers"]
    types = fields.get("layer_types", None)
    if types is not None:
        strange = sorted(set(types) - {"full_attention", "sliding_attention"})
        if strange or len(types) != layers:
            what = ", ".join(strange) or f"{len(types)} layer_types for {layers} layers"
            raise UsageError(f"model_type {fields.kind!r}: the cost of {what} is not known")
        slides = [kind == "sliding_attention" for kind in types]
    elif fields.kind in _ONE_WINDOW:
        slides = [fields.get("sliding_window", None) is not None] * layers
    elif fields.kind in _ALTERNATING:
        every = int(fields.get("sliding_window_pattern", _ALTERNATING[fields.kind]))
        slides = [(layer + 1) % every != 0 for layer in range(layers)]
    elif fields.get("use_sliding_window", False) and fields.kind in _LAST_LAYERS:
        first = fields["max_window_layers"]
        slides = [layer >= first for layer in range(layers)]
    elif fields.get("use_sliding_window", False):
        fields.require("layer_types")
    else:
        slides = [False] * layers
    return tuple(fields["sliding_window"] if slide else None for slide in slides)
