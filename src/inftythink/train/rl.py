"""Reinforcement learning over whole trajectories: ``train_rl(config)``, and the command ``inftythink rl``.

OUTPUT/config.yaml          the configuration and its digest
OUTPUT/rollouts/000001/     what step 1 sampled: problems.jsonl, trajectories.jsonl, rewards.jsonl; rows.* if asked for
OUTPUT/examinations/000010/ what was answered after step 10: problems.jsonl, trajectories.jsonl
OUTPUT/checkpoints/         needed to go on after an interruption
OUTPUT/model/               the result: loads in transformers and in servers as any model does
OUTPUT/adapter/             the adapters alone, when trained with LoRA
OUTPUT/weights/             the last weights or adapters that a server was given, where one samples
OUTPUT/metrics.json         the closing figures; OUTPUT/history.jsonl has the curve
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inftythink import config as settings
from inftythink.errors import missing
from inftythink.tasks.base import Item
from inftythink.train.arguments import weights_dtype
from inftythink.train.folder import Result, claimed, last_checkpoint
from inftythink.train.rl_run import Run, read_items
from inftythink.train.rl_settings import RlConfig, fit
from inftythink.train.rollout import Grading, grade_here
from inftythink.train.server import make_sampler, nccl_arguments

if TYPE_CHECKING:
    from inftythink.train.rl_trainer import RoundsTrainer
    from inftythink.train.trainer import Progress

__all__ = ["RlConfig", "RlResult", "train_rl"]

UNTOLD = ("time", "total_flos", "train_", "epoch", "num_tokens", "step_time")
"""Beginnings of names that the history leaves out: what a run repeated would not repeat, or what says nothing."""


class RlResult(Result):
    """Where the model is, the closing figures of the run, and its curve.

    An entry of ``history`` has a ``step`` and the figures of that step (``reward, accuracy, rounds, tokens``, …), or
    those of an examination (``eval_accuracy``, …).
    """


def train_rl(
    config: RlConfig,
    *,
    items: Sequence[Item] | None = None,
    examined: Sequence[Item] | None = None,
    grading: Grading = grade_here,
    progress: Progress | None = None,
) -> RlResult:
    """Train, export and return the result; a run that was interrupted goes on, a finished one is only read.

    ``items`` and ``examined`` take the place of the tasks of the configuration; ``grading`` judges answers (the command
    does it in processes that can be stopped); ``progress`` is told of every entry of the log. In a process group
    (``accelerate launch``) every process calls this.

    Raises:
        UsageError: The settings cannot work together, or the output folder was made with others, or is in use.
        InputError: Tasks, tokenizer or model cannot be loaded.
        MissingDependencyError: The extra ``train`` is not installed.
    """
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
        if find_spec(package) is None:
            raise missing(package, "train")
    from accelerate import PartialState

    config = fit(config)
    state = PartialState(cpu=config.device == "cpu")
    with claimed(config, state.is_main_process):
        state.wait_for_everyone()
        if (config.output / "metrics.json").is_file():
            return RlResult.read(config.output)
        asked = read_items(config.train.task, config.train.settings) if items is None else items
        if examined is None:
            task = config.examine.task
            examined = [] if task is None else read_items(task, config.examine.settings)
        run = Run(config, asked, examined, grading)
        trainer = _trainer(run, state.device.type == "cuda", progress)
        with closing(run.sampler):
            return _finish(run, trainer)


def _trainer(run: Run, on_gpu: bool, progress: Progress | None) -> RoundsTrainer:
    """Load the model and return a trainer of it that samples with ``run``."""
    from inftythink.render import Renderer
    from inftythink.train.arguments import optimizer_arguments
    from inftythink.train.model import adapters, ends_of, load_model, load_tokenizer
    from inftythink.train.rl_trainer import make_arguments, make_trainer

    config = run.config
    tokenizer, _ = load_tokenizer(config.model)
    rounds = config.rounds
    run.renderer = Renderer(
        tokenizer,
        template=rounds.template,
        template_options=rounds.template_option,
        eos_ids=ends_of(config.model.path),
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    arguments = make_arguments(
        _arguments(config, on_gpu, bool(run.examined))
        | optimizer_arguments(config.optimizer, config.steps * config.group.updates * config.group.passes)
    )
    attention = "sdpa" if config.model.attention == "auto" else config.model.attention
    model = load_model(
        config.model,
        dtype=weights_dtype(config.model, config.lora, on_gpu),
        attention=attention,
        seed=config.seed,
        vocabulary=len(tokenizer),
    )
    run.trainer = make_trainer(
        config,
        model,
        tokenizer,
        arguments,
        run.roll_out,
        run.examine,
        adapters=adapters(config.lora, model, []) if config.lora.rank else None,
        progress=progress,
    )
    run.sampler = make_sampler(config, run.trainer, run.renderer)
    return run.trainer


def _arguments(config: RlConfig, on_gpu: bool, examines: bool) -> dict[str, Any]:
    """Return the settings as ``trl.GRPOConfig`` calls them. Its steps are updates."""
    each = config.group.updates * config.group.passes
    return {
        "output_dir": str(config.output / "checkpoints"),
        "run_name": config.output.name,
        "max_steps": config.steps * each,
        "gradient_checkpointing": config.checkpointing,
        "bf16": on_gpu,
        "use_cpu": config.device == "cpu",
        "seed": config.seed,
        "beta": config.loss.kl,
        "temperature": config.group.temperature,
        "logging_steps": each,
        "eval_strategy": "steps" if examines and config.examine.every else "no",
        "eval_steps": config.examine.every * each or None,
        "eval_on_start": bool(examines and config.examine.every),
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": config.save_every * each or 1,  # between two rollouts, which are not saved
        "save_total_limit": config.keep,
        "report_to": list(config.report_to) or "none",
    } | nccl_arguments(config.sampler, on_gpu)


def _finish(run: Run, trainer: RoundsTrainer) -> RlResult:
    """Train to the end, examine, export, and write the figures last: they say that the run is whole."""
    config = run.config
    checkpoint = last_checkpoint(config.output)
    trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    log, last = trainer.state.log_history, trainer.state.global_step
    if run.examined and not any("eval_accuracy" in entry and entry["step"] == last for entry in log):
        trainer.evaluate()
    each = config.group.updates * config.group.passes
    history = [_entry(entry, each) for entry in log if "reward" in entry or "eval_accuracy" in entry]
    metrics = _metrics(config, history)
    _export(run, trainer, metrics)
    result = RlResult(config.output / "model", metrics, history)
    if trainer.is_world_process_zero():
        result.write(config.output)
    trainer.accelerator.wait_for_everyone()
    return result


def _entry(logged: dict[str, float], each: int) -> dict[str, float]:
    """Return an entry of the trainer's log, its ``step`` first, without what a run repeated would not repeat."""
    told = {name: value for name, value in logged.items() if not name.startswith(UNTOLD) and name != "step"}
    told = {name: value for name, value in told.items() if not name.endswith(("runtime", "per_second"))}
    step = logged["step"] / each if logged["step"] % each else logged["step"] // each
    return {"step": step} | dict(sorted(told.items()))  # a checkpoint keeps them in another order


def _metrics(config: RlConfig, history: list[dict[str, float]]) -> dict[str, Any]:
    """Return the closing figures: those of the first and the last steps and examinations."""
    steps = [entry for entry in history if "reward" in entry]
    examinations = [entry for entry in history if "eval_accuracy" in entry]
    found: dict[str, Any] = {"steps": config.steps}
    for some, names in (
        (steps, ("reward", "accuracy", "rounds", "tokens")),
        (examinations, ("eval_accuracy", "eval_rounds", "eval_tokens")),
    ):
        for name in names:
            found[f"{name}_first"] = some[0][name] if some else None
            found[f"{name}_last"] = some[-1][name] if some else None
    return found


def _export(run: Run, trainer: RoundsTrainer, metrics: dict[str, Any]) -> None:
    """Write the model folder (and the adapters); every process calls this."""
    from inftythink.train.export import merge, number_type, save_surroundings, save_weights
    from inftythink.train.model import load_model

    config, tokenizer = run.config, trainer.processing_class
    dtype = number_type(trainer, config.model, config.lora)
    folder = config.output / ("adapter" if config.lora.rank else "model")
    save_weights(trainer, folder, dtype)
    if not trainer.is_world_process_zero():
        return
    folders = [folder]
    if config.lora.rank and config.lora.merge:
        name = weights_dtype(config.model, config.lora, on_gpu=False)
        base = load_model(config.model, dtype=name, attention="sdpa", seed=0, vocabulary=len(tokenizer))
        folders.append(config.output / "model")
        merge(base, folder, folders[-1], dtype)
    rounds = config.rounds
    trained = {"carry": rounds.carry, "eta": rounds.eta, "gamma": rounds.gamma}
    for each in folders:
        save_surroundings(each, tokenizer, run.renderer, trained)
        (each / "README.md").write_text(_card(config, metrics), encoding="utf-8")


def _card(config: RlConfig, metrics: dict[str, Any]) -> str:
    """Return the README.md of the model folder."""
    base = Path(str(config.model.path))
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items() if value is not None)
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [inftythink, reasoning]\n---\n\n"
        f"# {config.output.name}\n\n`{base.name if base.is_dir() else base}`, trained by reinforcement learning "
        "over whole trajectories to reason in rounds of bounded context (InftyThink+, arXiv 2602.06960) with "
        "[inftythink](https://pypi.org/project/inftythink/).\n\n"
        f"Reward: {' * '.join(config.reward)}. Configuration: `{settings.digest(config)}` (`config.yaml`).\n\n"
        f"| figure | |\n|---|---|\n{rows}\n"
    )
