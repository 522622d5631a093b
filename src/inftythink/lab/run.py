"""Carries a plan out: data, then models, then examinations, each a step of its own that is kept.

    FOLDER/plan.yaml             the preset and its settings
    FOLDER/tokenizer/            the laboratory's tokenizer
    FOLDER/data/NAME/            a data set (``lab.data``)
    FOLDER/models/NAME/          a training run (``train.sft``); its ``model/`` is the model
    FOLDER/exams/NAME.jsonl      one record a problem (``lab.evaluate``)

Steps run in processes of their own with one thread each, since a model this small does not gain from more. A run that
was interrupted goes on with the steps that are not whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

from inftythink._process import end_with
from inftythink.backends.connect import SHIPPED
from inftythink.lab.data import convert, draw, select, write_traces
from inftythink.lab.plan import GAMMA, WINDOW, DataSet, Exam, Model, Plan
from inftythink.store import write_whole

Progress = Callable[[str], None]
"""Told a line whenever a step is done."""

BATCH = 512
"""Tokens in a step of the optimizer: many small steps teach a small model more than few large ones."""

SHAPE: dict[str, int | float | bool | str] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    # These two matter most. With the usual 0.02 so small a model hardly begins to learn; with the usual base of 10,000
    # most frequencies of the positions are too slow to tell one place of a small window from the next.
    "initializer_range": 0.08,
    "rope_theta": 100.0,
}
"""The model: 0.9 million parameters."""


@dataclass(frozen=True)
class Step:
    """A step of the plan by its kind and name, and the steps that must be whole before."""

    kind: str
    name: str
    needs: tuple[str, ...] = ()


def run(plan: Plan, folder: Path, workers: int, progress: Progress) -> None:
    """Carry out all steps of a plan that are not whole yet, ``workers`` at once."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(folder / "tokenizer")
    waiting = {step.name: step for step in steps(plan)}
    whole: set[str] = set()
    # Spawned, not forked: torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (os.getpid(),)) as pool:
        running: dict[Future[str], str] = {}
        while waiting or running:
            ready = [step for step in waiting.values() if whole.issuperset(step.needs)]
            for step in ready[: max(0, workers - len(running))]:
                running[pool.submit(_perform, plan, folder, step)] = step.name
                del waiting[step.name]
            done = next(as_completed(running))
            progress(done.result())
            whole.add(running.pop(done))


def steps(plan: Plan) -> list[Step]:
    """Return the steps of a plan in the order in which they are best begun."""
    found: list[Step] = []
    for model in plan.models:
        known = {step.name for step in found}
        found += [Step("data", data) for data, _ in model.data if data not in known]
        needs = (*(data for data, _ in model.data), *([f"model {model.start}"] if model.start else []))
        found.append(Step("model", f"model {model.name}", needs))
        mine = [exam for exam in plan.exams if exam.model == model.name]
        found += [Step("exam", f"exam {exam.name}", (f"model {model.name}",)) for exam in mine]
    return found


def _begin(parent: int) -> None:
    end_with(parent)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


def _perform(plan: Plan, folder: Path, step: Step) -> str:
    """Carry out one step; return a line that says what came of it."""
    began = monotonic()
    name = step.name.split(" ", 1)[-1]
    if step.kind == "data":
        told = make_data(next(d for d in plan.data if d.name == name), folder)
    elif step.kind == "model":
        told = train(next(m for m in plan.models if m.name == name), folder)
    else:
        told = examine(next(e for e in plan.exams if e.name == name), plan, folder)
    return f"{step.kind:<5} {name}: {told} ({monotonic() - began:.0f} s)"


def make_data(data: DataSet, folder: Path) -> str:
    """Draw puzzles, convert them as any traces, and keep the rows that are trained on."""
    place = folder / "data" / data.name
    counts = place / "counts.json"
    if not counts.is_file():
        shutil.rmtree(place, ignore_errors=True)
        number = write_traces(draw(data.drawings, data.seed), place / "traces.jsonl")
        made = convert(place / "traces.jsonl", place / "converted", folder / "tokenizer", data.eta, GAMMA)
        kept: dict[str, int] = {"traces": number, "instances": made["stages"]["form"]["instances"]}
        if data.middle is not None:
            kept |= select(place / "converted", place / "selected", data.middle, data.seed)
        write_whole(counts, json.dumps(kept))  # says that the data set is whole
    return ", ".join(f"{number:,} {what}" for what, number in json.loads(counts.read_text(encoding="utf-8")).items())


def train(model: Model, folder: Path) -> str:
    """Train a model with ``train.sft``; one that is trained already is left alone, one that ships is copied."""
    if not model.data:
        target = folder / "models" / model.name / "model"
        shutil.copytree(SHIPPED.parent / model.name, target, dirs_exist_ok=True)
        return f"as it ships, {sum(path.stat().st_size for path in target.iterdir()) / 1e6:.1f} MB"

    from inftythink.train.sft import train_sft

    result = train_sft(sft_config(model, folder))
    figures = result.metrics
    return f"{figures['steps']:,} steps, loss {figures['loss_first']:.3f} -> {figures['loss_last']:.4f}"


def sft_config(model: Model, folder: Path) -> Any:
    """Return the settings of a model's training run, as ``inftythink sft`` has them."""
    from inftythink.lab.tokenizer import make_tokenizer
    from inftythink.train.sft import Batch, Data, ModelSource, Optimizer, SftConfig

    if model.start is None:
        end = make_tokenizer().eos_token_id
        own = {"max_position_embeddings": model.window, "eos_token_id": end, "pad_token_id": end}
        source = ModelSource(settings=SHAPE | own, tokenizer=str(folder / "tokenizer"))
    else:
        started = folder / "models" / model.start / "model"
        source = ModelSource(path=str(started if model.window == WINDOW else _stretched(folder, model)))
    return SftConfig(
        output=folder / "models" / model.name,
        model=source,
        data=Data(
            folders=tuple(str(_rows(folder / "data" / name)) for name, _ in model.data),
            weights=tuple(weight for _, weight in model.data),
            carry=model.carry,
            eta=model.eta,
            gamma=model.gamma,
            max_length=model.window,
        ),
        batch=Batch(tokens=max(BATCH, 2 * model.window)),
        optimizer=Optimizer(
            rate=1.5e-3 if model.start is None else 7e-4,
            schedule="linear",
            betas=(0.9, 0.98),
            weight_decay=0.01,
        ),
        steps=model.steps,
        checkpointing=False,
        eval_every=0,
        save_every=2000,
        log_every=100,
        device="cpu",
        workers=1,
        seed=model.seed,
    )


def _rows(data: Path) -> Path:
    """Return the folder with a data set's rows: those that were selected, or all."""
    selected = data / "selected"
    return selected if selected.is_dir() else data / "converted"


def _stretched(folder: Path, model: Model) -> Path:
    """Return a copy of the model to start from, with its positions scaled so that the longer window fits (linear)."""
    source, target = folder / "models" / str(model.start) / "model", folder / "models" / f"{model.name}-start"
    if not target.is_dir():
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        config["max_position_embeddings"] = model.window
        rope = {"rope_type": "linear", "factor": model.window / WINDOW}
        config["rope_parameters"] = config.get("rope_parameters", {}) | rope
        (part / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        part.replace(target)
    return target


def examine(exam: Exam, plan: Plan, folder: Path) -> str:
    """Have a model solve the problems of an exam; return its accuracy."""
    from inftythink.lab.evaluate import interval, read_records, records, solve, write_records
    from inftythink.lab.problems import problems
    from inftythink.render import Renderer
    from inftythink.tasks.puzzle import families

    path = folder / "exams" / f"{exam.name}.jsonl"
    if not path.is_file():
        model = next(m for m in plan.models if m.name == exam.model)
        renderer = Renderer.load(folder / "tokenizer")
        rows = []
        for family in (f for f in families() if f.name in exam.families):
            asked = problems(family, exam.span, exam.number, renderer=renderer, window=WINDOW, seed=model.seed)
            solved = solve(folder / "models" / exam.model / "model", asked, exam.setup)
            rows += records(solved, asked)
            _keep_some(folder / "trajectories" / f"{exam.name}-{family.name}.jsonl", solved)
        write_records(path, rows)
    rows = read_records(path)
    right = sum(row.correct for row in rows)
    low, high = interval(right, len(rows))
    return f"{right} of {len(rows)} right, {right / len(rows):.1%} [{low:.1%}, {high:.1%}]"


def _keep_some(path: Path, solved: Iterable[Any], number: int = 20) -> None:
    """Keep some trajectories to look at: those that went wrong first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = sorted(solved, key=lambda t: bool(t.grade and t.grade["correct"]))[:number]
    path.write_text("".join(json.dumps(t.to_json()) + "\n" for t in chosen), encoding="utf-8")


def _save_tokenizer(folder: Path) -> None:
    from inftythink.lab.tokenizer import make_tokenizer

    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        make_tokenizer().save_pretrained(part)
        part.replace(folder)
