"""The settings in the words of transformers and TRL."""

from __future__ import annotations

import math
from typing import Any

from inftythink.errors import UsageError
from inftythink.train.batches import Shape
from inftythink.train.settings import Batch, Lora, ModelSource, Optimizer, SftConfig


def shape_of(batch: Batch, max_length: int, packed: bool, processes: int) -> Shape:
    """Return how steps are made. Raises ``UsageError`` when a step cannot be divided among the processes."""
    if batch.tokens is None:
        units, unit, each = batch.rows, "rows", batch.micro
        capacity = max_length if packed else 0
    else:
        each = batch.micro_tokens or batch.tokens // processes
        units, unit, capacity = batch.tokens, "tokens", each
    if units < each * processes or units % (each * processes):
        raise UsageError(
            f"a step of {units} {unit} cannot be divided among {processes} processes that take {each} at once: "
            f"set batch.{unit} to a multiple of {each * processes}"
        )
    parts = units // each
    return Shape(parts if batch.tokens else units, parts, capacity, packed, batch.group)


def layout(config: SftConfig, on_gpu: bool) -> tuple[str, bool]:
    """Return the implementation of attention, and whether rows are packed."""
    from transformers.utils import is_flash_attn_2_available

    attention = config.model.attention
    if attention == "auto":
        attention = "flash_attention_2" if on_gpu and is_flash_attn_2_available() else "sdpa"
    packing = config.data.packing
    return attention, packing == "bfd" or (packing == "auto" and attention.startswith("flash"))


def weights_dtype(source: ModelSource, lora: Lora, on_gpu: bool) -> str:
    """Return the number type of the weights in training."""
    if source.dtype != "auto":
        return source.dtype
    return "bfloat16" if lora.rank and on_gpu else "float32"


def trainer_arguments(
    config: SftConfig, steps: int, accumulation: int, on_gpu: bool, evaluates: bool
) -> dict[str, Any]:
    """Return the settings as ``trl.SFTConfig`` calls them."""
    return {
        "output_dir": str(config.output / "checkpoints"),
        "run_name": config.output.name,
        "max_steps": steps,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": config.checkpointing,
        "bf16": on_gpu,
        "use_cpu": config.device == "cpu",
        "seed": config.seed,
        "logging_steps": config.log_every,
        "logging_first_step": True,
        "eval_strategy": "steps" if evaluates and config.eval_every else "no",
        "eval_steps": config.eval_every or None,
        "eval_on_start": evaluates and config.eval_at_start,
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": config.save_every or 1,
        "save_total_limit": config.keep,
        "report_to": list(config.report_to) or "none",
    } | optimizer_arguments(config.optimizer, steps)


def optimizer_arguments(optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """Return the optimizer's settings as ``transformers.TrainingArguments`` calls them."""
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": optimizer.floor}),
        "linear": ("linear", {}),
        "constant": ("constant_with_warmup", {}),
        "warmup_stable_decay": (
            "warmup_stable_decay",
            {"num_decay_steps": math.ceil(optimizer.decay * steps), "min_lr_ratio": optimizer.floor},
        ),
    }
    kind, more = kinds[optimizer.schedule]
    return {
        "learning_rate": optimizer.rate,
        "lr_scheduler_type": kind,
        "lr_scheduler_kwargs": more,
        "warmup_steps": math.ceil(optimizer.warmup * steps),
        "adam_beta1": optimizer.betas[0],
        "adam_beta2": optimizer.betas[1],
        "adam_epsilon": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.clip,
    }
