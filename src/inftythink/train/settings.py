"""The settings of supervised fine-tuning; recipes are files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inftythink.config import REQUIRED, Count, option
from inftythink.errors import UsageError


@dataclass(frozen=True)
class ModelSource:
    """The model that is trained: one that exists, or a new one with random weights."""

    path: str | None = option(None, "folder or Hub name of the model to train", flag="--model")
    config: Path | None = option(
        None, "config.json (or its folder) of a new model with random weights, instead of a model", flag="--from-config"
    )
    settings: dict[str, int | float | bool | str] = option(
        {}, "setting of the model's configuration (rope_theta=300000); model_type=llama makes a new one of them alone"
    )
    tokenizer: str | None = option(
        None, "folder or Hub name of the tokenizer, when not the model's", flag="--tokenizer"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "number type of the weights; auto is float32, for LoRA on a GPU the frozen ones in bfloat16"
    )
    attention: str = option("auto", "implementation of attention; auto is FlashAttention 2 where it is, else sdpa")
    special_tags: bool = option(False, "add the summary and history tags to the tokenizer as tokens of their own")


@dataclass(frozen=True)
class Data:
    """What is trained on: folders made by ``inftythink data``."""

    folders: tuple[str, ...] = option(REQUIRED, "folders with instances/train (or segments/)", flag="--data")
    weights: tuple[float, ...] = option(
        (), "how often each folder's rows are used an epoch; 1 each when not given", flag="--weights"
    )
    carry: Literal["summary", "tail", "none"] = option(
        "summary",
        "what crosses rounds: summaries; head and tail of the thought (Delethink); nothing (vanilla)",
        flag="--carry",
    )
    eta: Count | None = option(None, "tokens of a round (the carry tail makes rows of that length); the data's own")
    gamma: Count | None = option(None, "most tokens of a summary, told to users of the model; the data's own")
    instruction: str = option("", "text behind every question, where a folder has only segments")
    template: Literal["auto", "chat", "plain"] = option("auto", "prompt layout; plain is for base models")
    template_option: dict[str, int | float | bool | str] = option({}, "option of the chat template")
    max_length: Count = option(
        16384, "window: longer rows are rejected; with packing the size of a pack", flag="--max-length"
    )
    packing: Literal["auto", "bfd", "none"] = option(
        "auto", "put rows into packs, best fit first; auto does so with FlashAttention", flag="--packing"
    )
    validation: float = option(0.01, "share of questions kept for validation where a folder has only segments")


@dataclass(frozen=True)
class Batch:
    """What one step of the optimizer sees, over all processes."""

    rows: int = option(32, "rows (with packing: packs) a step")
    tokens: Count | None = option(None, "tokens a step, padding included, instead of rows")
    micro: int = option(1, "rows (packs) that a device takes at once")
    micro_tokens: Count | None = option(None, "tokens that a device takes at once; with tokens; all of them by default")
    group: bool = option(True, "put rows of like length together, where they are padded")


@dataclass(frozen=True)
class Optimizer:
    """AdamW and its learning rate."""

    rate: float = option(2e-5, "highest learning rate", flag="--rate")
    schedule: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = option("cosine", "course of the rate")
    warmup: float = option(0.03, "share of the steps in which the rate rises")
    decay: float = option(0.2, "share of the steps in which it falls at the end; for warmup_stable_decay")
    floor: float = option(0.0, "where the rate ends, as a share of the highest; not for linear")
    betas: tuple[float, float] = option((0.9, 0.999), "of AdamW")
    epsilon: float = option(1e-8, "of AdamW")
    weight_decay: float = option(0.0, "of AdamW, on matrices only")
    clip: float = option(1.0, "largest norm of the gradient; 0 does not clip")


@dataclass(frozen=True)
class Lora:
    """Train low-rank adapters instead of all weights."""

    rank: int = option(0, "rank of the adapters; 0 trains all weights", flag="--lora")
    alpha: float = option(32.0, "scale of the adapters: alpha / rank")
    dropout: float = option(0.0, "in the adapters")
    targets: tuple[str, ...] = option(("all-linear",), "names of the layers that get one")
    merge: bool = option(True, "export the model with the adapters merged into it, beside the adapters")


@dataclass(frozen=True)
class SftConfig:
    """``inftythink sft``."""

    output: Path = option(REQUIRED, "folder to write; the same command again goes on where it stopped", identity=False)
    model: ModelSource = option(ModelSource(), "the model")
    data: Data = option(REQUIRED, "the data")
    batch: Batch = option(Batch(), "the batch")
    optimizer: Optimizer = option(Optimizer(), "the optimizer")
    lora: Lora = option(Lora(), "adapters")
    epochs: float = option(1.0, "passes over the data")
    steps: int = option(0, "steps of the optimizer instead of epochs; 0 goes by epochs")
    checkpointing: bool = option(True, "compute activations again in the backward pass, which saves memory")
    eval_every: int = option(500, "steps between evaluations on the validation split; 0 evaluates at the end only")
    eval_at_start: bool = option(False, "also evaluate before the first step", identity=False)
    save_every: int = option(500, "steps between checkpoints; 0 writes none", identity=False)
    keep: int = option(1, "checkpoints that are kept", identity=False)
    log_every: int = option(10, "steps between entries of the history", identity=False)
    report_to: tuple[str, ...] = option((), "trackers that are told (wandb, tensorboard, ...)", identity=False)
    device: Literal["auto", "cpu"] = option("auto", "cpu trains there even where there is a GPU", identity=False)
    workers: int = option(4, "processes that turn data into tokens", identity=False)
    seed: int = option(0, "of the weights that are new and of the order of rows")

    def __post_init__(self) -> None:
        source = self.model
        if (source.path is None) == (source.config is None and "model_type" not in source.settings):
            raise UsageError(
                "say which model is trained: --model FOLDER_OR_HUB_NAME for one that exists; or for a new one "
                "--from-config config.json, or model.settings with a model_type; not both"
            )
        if self.data.weights and len(self.data.weights) != len(self.data.folders):
            raise UsageError(
                f"{len(self.data.folders)} data folders need as many weights, not {len(self.data.weights)}"
            )
        if self.lora.rank and self.model.path is None:
            raise UsageError("adapters (--lora) need a model that exists (--model)")
