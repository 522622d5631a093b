"""Supervised fine-tuning on converted data: ``train_sft(config)``, and the command ``inftythink sft``.

OUTPUT/config.yaml    the configuration and its digest
OUTPUT/tokens/        the rows as token ids, written once
OUTPUT/rejects.jsonl  every row that is not trained on, and why
OUTPUT/checkpoints/   needed to go on after an interruption
OUTPUT/model/         the result: loads in transformers and in servers as any model does
OUTPUT/adapter/       the adapters alone, when trained with LoRA
OUTPUT/metrics.json   every figure of the closing table; OUTPUT/history.jsonl has the curve
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inftythink import config as settings
from inftythink.errors import UsageError, missing
from inftythink.store import write_whole
from inftythink.train.arguments import layout, shape_of, trainer_arguments, weights_dtype
from inftythink.train.batches import in_order, plan
from inftythink.train.folder import Result, claimed, last_checkpoint
from inftythink.train.settings import Batch, Data, Lora, ModelSource, Optimizer, SftConfig

if TYPE_CHECKING:
    from inftythink.render import Renderer
    from inftythink.train.tokens import TokenRows
    from inftythink.train.trainer import Progress, RowsTrainer

__all__ = ["Batch", "Data", "Lora", "ModelSource", "Optimizer", "SftConfig", "SftResult", "train_sft"]


class SftResult(Result):
    """Where the model is, the figures of the run, and its curve.

    ``metrics`` has, among others, ``rows, tokens, trained_tokens, rejected, steps, loss_first, loss_last, eval_loss``;
    an entry of ``history`` has a ``step`` and a ``loss`` (mean since the entry before) or an ``eval_loss``.
    """


@dataclass(frozen=True)
class Rows:
    """The rows of a run: those of every data set in order, and those that are evaluated on."""

    train: Sequence[TokenRows]
    validation: TokenRows
    rejected: int = 0


def train_sft(config: SftConfig, *, rows: Rows | None = None, progress: Progress | None = None) -> SftResult:
    """Train, export and return the result; a run that was interrupted goes on, a finished one is only read.

    ``rows`` takes the place of ``config.data.folders``; ``progress`` is told of every entry of the history. In a
    process group (``accelerate launch``, ``torchrun``) every process calls this.

    Raises:
        UsageError: The settings cannot work together, or the output folder was made with others, or is in use.
        InputError: Data, tokenizer or model cannot be loaded.
        MissingDependencyError: The extra ``train`` is not installed.
    """
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        if find_spec(package) is None:
            raise missing(package, "train")
    from accelerate import PartialState

    state = PartialState(cpu=config.device == "cpu")
    with claimed(config, state.is_main_process):
        state.wait_for_everyone()
        if (config.output / "metrics.json").is_file():
            return SftResult.read(config.output)
        tokenizer, new_ids, renderer = _renderer(config)
        if rows is None:
            rows = _rows(config, tokenizer, renderer, state)
        trainer = _trainer(config, rows, tokenizer, new_ids, state, progress)
        return _finish(config, trainer, rows, new_ids, renderer)


def _renderer(config: SftConfig) -> tuple[Any, list[int], Renderer]:
    """Return the tokenizer, the ids of tokens added to it, and the renderer that inference would use."""
    from inftythink.render import Renderer
    from inftythink.train.model import ends_of, load_tokenizer

    tokenizer, new_ids = load_tokenizer(config.model)
    data = config.data
    renderer = Renderer(
        tokenizer,
        template=data.template,
        template_options=data.template_option,
        eos_ids=ends_of(config.model.path),
    )
    return tokenizer, new_ids, renderer


def _rows(config: SftConfig, tokenizer: Any, renderer: Renderer, state: Any) -> Rows:
    """Turn the data into rows, once, and map them into memory."""
    from inftythink.train.tokens import Encoding, TokenRows, encode_folder

    folder, data = config.output / "tokens", config.data
    targets = [folder / str(number) for number in range(len(data.folders))]
    whole = folder / "rejects.json"
    if state.is_main_process and not whole.is_file():
        tokenizer.save_pretrained(folder / "tokenizer")
        eta, _ = sizes(data)
        if data.carry == "tail" and eta is None:
            raise UsageError("the data does not say its eta; set data.eta, the tokens of a round of the carry tail")
        encoding = Encoding(
            tokenizer=folder / "tokenizer",
            template=data.template,
            options=dict(data.template_option),
            eos_ids=tuple(renderer.eos_ids),
            carry=data.carry,
            eta=eta or 1,
            max_length=data.max_length,
            instruction=data.instruction,
            validation=data.validation,
            seed=config.seed,
        )
        rejects = [
            reject
            for source, target in zip(data.folders, targets, strict=True)
            for reject in encode_folder(Path(source), target, encoding, config.workers)
        ]
        lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)
        (config.output / "rejects.jsonl").write_text(lines, encoding="utf-8")
        write_whole(whole, json.dumps(len(rejects)))  # says that the rows are whole
    state.wait_for_everyone()
    train = [TokenRows.load(target / "train") for target in targets]
    validation = TokenRows([part for target in targets for part in TokenRows.load(target / "validation").parts])
    return Rows(train, validation, json.loads(whole.read_text(encoding="utf-8")))


def sizes(data: Data) -> tuple[int | None, int | None]:
    """Return eta and gamma as set, or else as the manifest of the first data set that has one tells."""
    told: dict[str, Any] = {}
    for folder in data.folders:
        path = Path(folder) / "manifest.json"
        if path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            break
    return data.eta or told.get("eta"), data.gamma or told.get("gamma")


def _trainer(
    config: SftConfig, rows: Rows, tokenizer: Any, new_ids: list[int], state: Any, progress: Progress | None
) -> RowsTrainer:
    """Load the model and return a trainer with the whole run's batches."""
    from inftythink.train.model import adapters, give_rows, load_model
    from inftythink.train.tokens import TokenRows
    from inftythink.train.trainer import make_arguments, make_trainer

    on_gpu = state.device.type == "cuda"
    attention, packed = layout(config, on_gpu)
    shape = shape_of(config.batch, config.data.max_length, packed, state.num_processes)
    every = TokenRows([part for some in (*rows.train, rows.validation) for part in some.parts])
    trained = sum(map(len, rows.train))
    weights = config.data.weights or (1.0,) * len(rows.train)
    batches = plan(
        every.lengths[:trained].tolist(),
        [(len(some), weight) for some, weight in zip(rows.train, weights, strict=True)],
        shape,
        epochs=config.epochs,
        steps=config.steps,
        seed=config.seed,
    )
    checked = [
        [row + trained if row >= 0 else row for row in batch]
        for batch in in_order(rows.validation.lengths.tolist(), shape)
    ]
    steps, accumulation = len(batches) // shape.parts, shape.parts // state.num_processes
    arguments = make_arguments(trainer_arguments(config, steps, accumulation, on_gpu, bool(checked)))
    model = load_model(
        config.model,
        dtype=weights_dtype(config.model, config.lora, on_gpu),
        attention=attention,
        seed=config.seed,
        vocabulary=len(tokenizer),
    )
    give_rows(model, tokenizer, new_ids)
    return make_trainer(
        model,
        tokenizer,
        arguments,
        every,
        batches,
        checked,
        packed=packed,
        adapters=adapters(config.lora, model, new_ids) if config.lora.rank else None,
        progress=progress,
    )


def _finish(config: SftConfig, trainer: RowsTrainer, rows: Rows, new_ids: list[int], renderer: Renderer) -> SftResult:
    """Train to the end, evaluate, export, and write the figures last: they say that the run is whole."""
    checkpoint = last_checkpoint(config.output)
    trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    log, step = trainer.state.log_history, trainer.state.global_step
    if trainer.eval_dataset is not None and not any("eval_loss" in entry and entry["step"] == step for entry in log):
        trainer.evaluate()
    history = [_entry(entry) for entry in log if "loss" in entry or "eval_loss" in entry]
    metrics = _metrics(trainer, rows, history)
    _export(config, trainer, new_ids, renderer, metrics, history)
    result = SftResult(config.output / "model", metrics, history)
    if trainer.is_world_process_zero():
        result.write(config.output)
    trainer.accelerator.wait_for_everyone()
    return result


def _entry(logged: dict[str, float]) -> dict[str, float]:
    """Return an entry of the trainer's log in our words."""
    names = {"step": "step", "loss": "loss", "learning_rate": "rate", "grad_norm": "gradient", "eval_loss": "eval_loss"}
    return {name: logged[key] for key, name in names.items() if key in logged}


def _metrics(trainer: RowsTrainer, rows: Rows, history: list[dict[str, float]]) -> dict[str, Any]:
    """Return the figures of the closing table."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    evaluations = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    return {
        "rows": sum(map(len, rows.train)),
        "validation_rows": len(rows.validation),
        "tokens": sum(some.tokens for some in rows.train),
        "trained_tokens": sum(some.trained_tokens for some in rows.train),
        "rejected": rows.rejected,
        "steps": trainer.state.global_step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "eval_loss": evaluations[-1] if evaluations else None,
    }


def _export(
    config: SftConfig,
    trainer: RowsTrainer,
    new_ids: list[int],
    renderer: Renderer,
    metrics: dict[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Write the model folder (and the adapters); every process calls this."""
    from inftythink.train.export import card, merge, number_type, save_surroundings, save_weights
    from inftythink.train.model import give_rows, load_model

    tokenizer = trainer.processing_class
    dtype = number_type(trainer, config.model, config.lora)
    folder = config.output / ("adapter" if config.lora.rank else "model")
    save_weights(trainer, folder, dtype)
    if not trainer.is_world_process_zero():
        return
    folders = [folder]
    if config.lora.rank and config.lora.merge:
        name = weights_dtype(config.model, config.lora, on_gpu=False)
        base = load_model(config.model, dtype=name, attention="sdpa", seed=0, vocabulary=len(tokenizer))
        give_rows(base, tokenizer, new_ids)
        folders.append(config.output / "model")
        merge(base, folder, folders[-1], dtype)
    eta, gamma = sizes(config.data)
    facts = {"carry": config.data.carry, "eta": eta, "gamma": gamma}
    told = metrics | facts | {"digest": settings.digest(config), "data": ", ".join(config.data.folders) or "rows made"}
    for each in folders:
        save_surroundings(each, tokenizer, renderer, facts)
        (each / "README.md").write_text(card(config.output.name, config.model.path, told, history), encoding="utf-8")
