"""TRL's GRPO trainer, taught that a trajectory has many rounds. This module imports torch, transformers and TRL.

What is TRL's: model, adapters, reference model, optimizer, schedule, checkpoints, trackers, mixed precision and
sharding, and a head that never holds all logits. What is not: a trajectory of TRL is one row, its micro-batches have a
fixed number of rows, and its loss is normalised for a fixed number of micro-batches. Here one item of the data loader
is one update of the weights, whose rows are divided into micro-batches by their tokens.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from inftythink.train.rl_loss import IGNORED, MicroBatch, share, surrogate
from inftythink.train.rl_settings import RlConfig
from inftythink.train.rollout import Group, RoundRow
from inftythink.train.trainer import Progress, Watch

RollOut = Callable[[int], tuple[list[Group], dict[str, float]]]
"""Called by all processes with the number of a step; returns the groups of all of them, and figures to be logged."""


class RoundsTrainer(GRPOTrainer):  # type: ignore[misc]
    """Learns from groups of trajectories; ``make_trainer`` makes one."""

    config: RlConfig
    roll_out: RollOut
    examine: Callable[[int], dict[str, float]]
    _updates: list[tuple[list[MicroBatch], int]]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the numbers of all updates: every process sees each."""
        numbers: Any = range(self.args.max_steps)
        return DataLoader(numbers, batch_size=1, collate_fn=_number)

    def training_step(self, model: Any, inputs: dict[str, int], num_items_in_batch: Any = None) -> Tensor:
        """Compute the gradient of one update; sample first where a step begins. Returns this process's loss."""
        step, update = divmod(inputs["update"], self.config.group.updates * self.config.group.passes)
        if update == 0:
            groups, figures = self.roll_out(step)
            self._log(figures)
            self._prepare_updates(model, groups)
        batches, tokens = self._updates[update % self.config.group.updates]
        model.train()
        total = torch.zeros((), device=self.args.device)
        sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            self.accelerator.gradient_state._set_sync_gradients(last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss, found = self._micro_batch(model, batch.to(self.args.device), tokens)
                self.accelerator.backward(loss, **self._backward_settings)
            total += loss.detach().to(total.dtype)
            for name, value in found.items():
                sums[name] += value
        self._log_tokens(sums)
        return total

    @property
    def _backward_settings(self) -> dict[str, Any]:
        # The loss is divided by all tokens already; DeepSpeed would divide it by its number of micro-batches again.
        return {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}

    def _micro_batch(self, model: Any, batch: MicroBatch, tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the share of a micro-batch in the loss of the update, and sums of figures over its tokens.

        Gradients of the processes are averaged, so that each one's share counts as often as there are.
        """
        with self.compute_loss_context_manager():
            outputs = _outputs(model, batch)
            reference = self._reference(model, batch) if self.config.loss.kl else None
            loss, sums = surrogate(outputs.log_probs, batch, self.config.loss, self.config.mismatch, reference)
        sums["entropy"] = outputs.entropy.detach()[batch.trained].sum()
        sums["tokens"] = batch.trained.sum()
        return loss * (self.accelerator.num_processes / max(1, tokens)), sums

    def _reference(self, model: Any, batch: MicroBatch) -> Tensor:
        """Return the log-probabilities under the model at the start: a copy of it, or the one below the adapters."""
        with torch.no_grad():
            if self.ref_model is not None:
                logprobs: Tensor = _outputs(self.ref_model, batch).log_probs
                return logprobs
            with self.accelerator.unwrap_model(model).disable_adapter():
                logprobs = _outputs(model, batch).log_probs
                return logprobs

    def _prepare_updates(self, model: Any, groups: Sequence[Group]) -> None:
        """Divide a step's rows into its updates and those into micro-batches; note what the policy says before them."""
        number = self.config.group.updates
        parts = [[row for group in groups[part::number] for row in group.rows()] for part in range(number)]
        self._updates = [(self._share(rows), sum(row.tokens for row in rows)) for rows in parts]
        self._log({"rows": sum(map(len, parts)), "trained_tokens": sum(tokens for _, tokens in self._updates)})
        if number * self.config.group.passes == 1:
            return
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in (batch for batches, _ in self._updates for batch in batches):
                batch.before = _outputs(model, batch.to(self.args.device)).log_probs.cpu()

    def _share(self, rows: list[RoundRow]) -> list[MicroBatch]:
        """Return this process's micro-batches. Rows without any gradient are not computed; they count as tokens."""
        if not self.config.loss.kl:
            rows = [row for row in rows if row.advantage != 0]
        there = self.accelerator
        pad_id = self.processing_class.pad_token_id
        return share(rows, self.config.micro_tokens, there.num_processes, there.process_index, pad_id)

    def _log(self, figures: dict[str, float], mode: str = "train") -> None:
        """Add figures to the next entry of the log, which has their means."""
        for name, value in figures.items():
            self._metrics[mode][name].append(float(value))

    def _log_tokens(self, sums: dict[str, Tensor]) -> None:
        """Log means over the tokens that were trained, of all processes."""
        names = sorted(sums)
        gathered = self.accelerator.reduce(torch.stack([sums[name].double() for name in names]), "sum").tolist()
        found = dict(zip(names, gathered, strict=True))
        if tokens := found.pop("tokens"):
            self._log({name: value / tokens for name, value in found.items()})

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Examine the policy; return and log the figures."""
        step = self.state.global_step // (self.config.group.updates * self.config.group.passes)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.examine(step).items()}
        self.model.eval()
        self.log(dict(metrics))
        self.model.train()
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: inputs are numbers of updates."""
        return 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no card beside checkpoints; the export has its own."""


def _number(some: list[int]) -> dict[str, int]:
    return {"update": some[0]}


def _outputs(model: Any, batch: MicroBatch) -> Any:
    """Return ``log_probs`` and ``entropy`` of tokens 1.., [rows, length - 1]; 0 where a token was not drawn."""
    labels = batch.labels.masked_fill(batch.mask == 0, IGNORED)
    return model(input_ids=batch.ids, attention_mask=batch.mask, labels=labels, fused_lm_head=True)


def make_arguments(settings: dict[str, Any]) -> Any:
    """Return the trainer's arguments. Make them before the model: they say whether it is loaded in shares (ZeRO-3)."""
    with warnings.catch_warnings():  # transformers has begun to rename a setting that TRL knows by its old name
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated")
        return GRPOConfig(**settings, **_OURS)


def make_trainer(
    config: RlConfig,
    model: Any,
    tokenizer: Any,
    arguments: Any,
    roll_out: RollOut,
    examine: Callable[[int], dict[str, float]],
    *,
    adapters: Any = None,
    progress: Progress | None = None,
) -> RoundsTrainer:
    """Return a trainer that samples with ``roll_out``; ``arguments`` are of ``make_arguments``."""
    nothing = Dataset.from_dict({"prompt": [""]})
    trainer = RoundsTrainer(
        model=model,
        reward_funcs=_no_reward,
        args=arguments,
        train_dataset=nothing,
        eval_dataset=nothing if arguments.eval_strategy != "no" else None,
        processing_class=tokenizer,
        peft_config=adapters,
    )
    trainer.config, trainer.roll_out, trainer.examine = config, roll_out, examine
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if progress:
        trainer.add_callback(Watch(progress, "reward", "eval_accuracy"))
    return trainer


def _no_reward(completions: list[Any], **_: Any) -> list[float]:
    """Stand where TRL wants a reward; ours is given to trajectories."""
    raise NotImplementedError("rewards are given to trajectories, in the rollout")


_OURS: dict[str, Any] = {
    # TRL's own batches are never made; these let its checks pass.
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "num_generations": 2,
    "gradient_accumulation_steps": 1,  # an update is one step of the loop, with all its micro-batches
    "num_train_epochs": 1,
    "remove_unused_columns": False,
    "ddp_find_unused_parameters": False,
    "disable_dropout": True,  # or the policy that is trained would not be the one that was sampled
    "disable_tqdm": True,
    "logging_nan_inf_filter": False,  # a loss that is not a number is to be seen
}
