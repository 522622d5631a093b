"""How much memory of a GPU a run needs, computed from the model's configuration and the run's settings.

Counted are, for training in bfloat16 mixed precision with FlashAttention and TRL's head:

==============  =====================================================================================================
weights         4 bytes (float32) each; 2 (bfloat16) under ZeRO, and where they are frozen (LoRA)
gradients       4 bytes for each trained weight; 2 under ZeRO
optimizer       8 bytes for each trained weight: two moments of AdamW; 12 under ZeRO: and the float32 weights
gathered        bfloat16 copies that a pass needs at hand. Without sharding: of all trained weights. Else of the
                embeddings and two layers (one is fetched ahead), and the gradients of one
activations     with checkpointing the input of each layer, and all of one layer twice (its values and their
                gradients); else all of every layer
head            the float32 gradient of the output matrix, three tiles of logits, the gradients of the last states
==============  =====================================================================================================

Weights, gradients and optimizer are divided among the processes when sharded. Not counted: the CUDA context and
libraries (about 1 GiB), and what the allocator cannot use.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from inftythink.train.settings import SftConfig

Sharding = Literal["none", "fsdp", "zero3"]

GIB = 1024**3
_TILE = 4096 * 32768 * 4
"""Bytes of a tile of logits in TRL's head: 4,096 tokens by 32,768 entries of the vocabulary, float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    head: float

    @property
    def total(self) -> float:
        """All of it, in GiB."""
        return float(sum(getattr(self, field.name) for field in fields(self))) / GIB


@dataclass(frozen=True)
class Counts:
    """Parameters of a model: all, those of one layer, of embeddings and head, and those of its adapters' inputs."""

    total: int
    layer: int
    embeddings: int
    linear_sizes: int
    """Sum of inputs and outputs of the linear layers in all blocks: an adapter of rank r has r times as many."""


def count(config: Any) -> Counts:
    """Count the parameters of the model that a ``transformers`` configuration describes, without making it."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = model.base_model.layers
    linear = [module for module in blocks.modules() if isinstance(module, torch.nn.Linear)]
    total, layers = (sum(p.numel() for p in module.parameters()) for module in (model, blocks))
    return Counts(
        total, layers // len(blocks), total - layers, sum(each.in_features + each.out_features for each in linear)
    )


def estimate(config: Any, run: SftConfig, processes: int = 1, sharding: Sharding = "none") -> Memory:
    """Return what one GPU of ``processes`` holds when it trains on ``run.batch.micro`` full packs at once."""
    sizes = count(config)
    trained = run.lora.rank * sizes.linear_sizes if run.lora.rank else sizes.total
    frozen = sizes.total if run.lora.rank else 0
    share = 1 if sharding == "none" else processes
    zero = sharding == "zero3"
    cast = 0 if run.lora.rank else 2 * trained
    tokens = run.batch.micro_tokens or run.batch.tokens or run.batch.micro * run.data.max_length
    return Memory(
        weights=(2 * frozen + (2 if zero else 4) * trained) / share,
        gradients=(2 if zero else 4) * trained / share,
        optimizer=(12 if zero else 8) * trained / share,
        gathered=cast if sharding == "none" else 2 * (sizes.embeddings + 3 * sizes.layer),
        activations=tokens * _activations(config, run.checkpointing, residual=4 if sharding == "none" else 2),
        head=4 * config.vocab_size * config.hidden_size * (not run.lora.rank)
        + 3 * _TILE
        + 6 * tokens * config.hidden_size,
    )


def _activations(config: Any, checkpointing: bool, residual: int) -> int:
    """Return the bytes of activations of one token; ``residual`` is the size of a number between layers.

    A layer keeps: its input and the sum in the middle; what leaves each norm; queries, keys, values and what attention
    returns; gate, its activation, the other half and their product.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    attention = 2 * heads * head + 2 * config.num_key_value_heads * head
    layer = 2 * residual * hidden + 2 * (2 * hidden + attention + 4 * config.intermediate_size)
    layers = int(config.num_hidden_layers)
    return int(layers * residual * hidden + 2 * layer) if checkpointing else int(layers * layer)
