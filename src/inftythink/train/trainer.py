"""TRL's trainer, fed with batches that were planned beforehand. This module imports torch, transformers and TRL."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from inftythink.train.tokens import TokenRows

Progress = Callable[[int, int, dict[str, float]], None]
"""Told ``(step, steps, entry)`` whenever an entry of the history is written."""


class Batches:
    """Makes the tensors of one micro-batch, given as ``[{"rows": [3, 17]}]``.

    Rows are padded, or with ``packed`` laid end to end. A row below 0 carries no loss (``batches.in_order``).
    """

    def __init__(self, rows: TokenRows, pad_id: int, packed: bool) -> None:
        self._rows = rows
        self._collate = DataCollatorForLanguageModeling(pad_token_id=pad_id, padding_free=packed)

    def __call__(self, batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Return what the model is called with."""
        examples = []
        for index in batch[0]["rows"]:
            ids, labels = self._rows.row(max(0, index))
            examples.append({"input_ids": ids, "labels": labels if index >= 0 else labels * 0 - 100})
        tensors: dict[str, Any] = self._collate(examples)
        return tensors


class RowsTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on planned micro-batches, and computes of each step only its loss.

    TRL also takes the entropy and the accuracy of every token, and waits for them in every step.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the sum of the tokens' losses over the number of trained tokens in the whole step.

        The gradients of all processes are averaged, so that each process's share counts as often as there are.
        """
        total, count = self._total(model, inputs)
        loss = total / torch.as_tensor(count if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _total(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of the losses of a micro-batch's trained tokens, and their number.

        TRL's head never holds all logits at once, but it knows a plain layer only: not one of which ``peft`` trains
        some rows.
        """
        if isinstance(self.accelerator.unwrap_model(model).get_output_embeddings(), torch.nn.Linear):
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            return -outputs.log_probs.sum(), outputs.label_mask.sum()
        labels = inputs["labels"][:, 1:]
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}, use_cache=False).logits[:, :-1]
        total = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
        return total, (labels != -100).sum()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the mean loss of all trained tokens, each counted once, however they are batched."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                inputs = self._prepare_inputs(batch)
                with self.compute_loss_context_manager():
                    sums += torch.stack([value.double() for value in self._total(self.model_wrapped, inputs)])
        self.model.train()
        loss, tokens = self.accelerator.reduce(sums, "sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / max(1.0, tokens), f"{metric_key_prefix}_tokens": tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card beside checkpoints; the export has its own."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Passes each entry of the log on that has one of ``names``."""

    def __init__(self, progress: Progress, *names: str) -> None:
        self._progress, self._names = progress, names

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Tell of the entry that was just written."""
        if state.is_world_process_zero and logs and any(name in logs for name in self._names):
            self._progress(state.global_step, state.max_steps, logs)


def make_arguments(settings: dict[str, Any]) -> Any:
    """Return the trainer's arguments. Make them before the model: they say whether it is loaded in shares (ZeRO-3)."""
    with warnings.catch_warnings():  # transformers has begun to rename a setting that TRL knows by its old name
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated")
        return TrlConfig(**settings, **_PLANNED)


def make_trainer(
    model: Any,
    tokenizer: Any,
    arguments: Any,
    rows: TokenRows,
    batches: list[list[int]],
    validation: list[list[int]],
    *,
    packed: bool,
    adapters: Any = None,
    progress: Progress | None = None,
) -> RowsTrainer:
    """Return a trainer for rows, and micro-batches of them to train and (unless empty) to evaluate on.

    ``arguments`` are of ``make_arguments``; ``adapters`` is a ``peft`` configuration.
    """
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    trainer = RowsTrainer(
        model=model,
        args=arguments,
        data_collator=Batches(rows, pad_id, packed),
        train_dataset=Dataset.from_dict({"rows": batches}),
        eval_dataset=Dataset.from_dict({"rows": validation}) if validation else None,
        processing_class=tokenizer,
        peft_config=adapters,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if progress:
        trainer.add_callback(Watch(progress, "loss", "eval_loss"))
    return trainer


_PLANNED: dict[str, Any] = {
    "per_device_train_batch_size": 1,  # an item of the data set is a micro-batch
    "per_device_eval_batch_size": 1,
    "train_sampling_strategy": "sequential",
    "num_train_epochs": 1,
    "remove_unused_columns": False,
    "ddp_find_unused_parameters": False,
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "max_length": None,
    "disable_tqdm": True,
    "logging_nan_inf_filter": False,  # a loss that is not a number is to be seen
}
