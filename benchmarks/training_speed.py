"""How fast training is, measured: packed against padded fine-tuning; a step of RL in rounds against one in chains.

    python benchmarks/training_speed.py [sft] [rl] [bubble] [--depths 1024 4096]

Models have random weights and cost what any of their shape costs. Fine-tuning: one epoch over rows of the lengths that
``trace_tokens.json`` has, an eighth as long, cut at an eighth of ``eta``; tokens a second are those that are not
padding. On a CPU a pack's attention is computed between all its tokens and then masked, which FlashAttention is not.
RL: no trajectory ends before its limit (the output matrix never lets it). It thinks ``depth`` tokens as rounds that are
cut after ``--round`` and then write a summary, as one chain by the same trainer, or as one chain by TRL's own
``GRPOTrainer``, whose sampler is that of transformers. Tokens differ by the summaries, and are told. Half of the
trajectories are right by chance. The second of two steps is told.

Bubble: the share of places in decoding steps that nobody takes, when the model that ships samples 64 trajectories of
its puzzles, whose lengths differ; beside it what the same lengths give when every round waits for the longest one.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaModel, PrinterCallback, TrainerCallback
from transformers.utils import logging

from inftythink.grade.base import Ask, Grade
from inftythink.protocol import Problem, Trajectory
from inftythink.store import read_trajectories
from inftythink.tasks.base import Item, TaskSettings
from inftythink.train.rl import RlConfig, train_rl
from inftythink.train.rl_settings import Examination, Group, Questions, Rounds
from inftythink.train.settings import Batch, Data, ModelSource
from inftythink.train.sft import Rows, SftConfig, train_sft
from inftythink.train.tokens import TokenRows
from simulate_cluster import LENGTHS, cut
from vllm_server import SHIPPED

SHORTER = 8
"""Rows are so many times shorter than those of real traces: with them this takes minutes on two cores, not a day."""

QUESTIONS, SAMPLES = 2, 8
MICRO_TOKENS = 16384


def make_model(folder: Path, positions: int) -> Path:
    """Write a Llama with random weights that never draws a special token, and the tokenizer of the shipped model."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        head = model.lm_head.weight
        head *= 30  # logits lie some ten apart, so that one of 0 is never drawn
        head[[*tokenizer.added_tokens_decoder]] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# -- fine-tuning --


def rows_of(lengths: list[tuple[int, int]], vocabulary: int) -> TokenRows:
    """Return rows of random tokens: ``lengths`` has those of the prompt and those that are trained."""
    ends = np.cumsum([prompt + made for prompt, made in lengths])
    ids = np.random.default_rng(0).integers(5, vocabulary, int(ends[-1]), dtype=np.int32)
    trained = np.concatenate([np.arange(prompt + made) >= prompt for prompt, made in lengths])
    return TokenRows([(ids, trained, ends.astype(np.int64))])


def fine_tuning(folder: Path, args: argparse.Namespace) -> list[list[str]]:
    model = make_model(folder / "model", 4096)
    traces = json.loads(LENGTHS.read_text(encoding="utf-8"))
    chosen = random.Random(0).sample(traces, args.traces)
    eta, gamma = args.eta // SHORTER, args.gamma // SHORTER
    lengths = [(this.prompt, this.generated) for each in chosen for this in cut(each // SHORTER, eta, gamma, 40)]
    pack = 2 * eta
    ways = {
        "packed, best fit": ("bfd", Batch(rows=8)),
        "padded, like lengths together": ("none", Batch(tokens=8 * pack, micro_tokens=pack)),
        "8 rows at once, as they come": ("none", Batch(rows=32, micro=8, group=False)),
        "one row at a time": ("none", Batch(rows=32, micro=1)),
    }
    rows = rows_of(lengths, len(AutoTokenizer.from_pretrained(model)))
    seen: dict[str, Seen] = {}
    for number, (name, (packing, batch)) in enumerate(ways.items()):
        config = SftConfig(
            output=folder / f"sft{number}",
            model=ModelSource(path=str(model)),
            data=Data(folders=(), max_length=pack, packing=packing),
            batch=batch,
            device="cpu",
            checkpointing=False,
            save_every=0,
        )
        with watched() as seen[name]:
            train_sft(config, rows=Rows([rows], TokenRows([])))
    best = seen["packed, best fit"].speed
    return [
        [name, f"{this.tokens / this.laid:.1%}", f"{this.tokens:,}", f"{this.speed:,.0f}", f"{this.speed / best:.2f}"]
        for name, this in seen.items()
    ]


@dataclass
class Seen:
    """What a model was called with: when, how many tokens; in decoding how many rows in how many steps."""

    moments: list[float] = field(default_factory=list)
    each: list[int] = field(default_factory=list)
    laid: int = 0
    decoded: int = 0
    decoding: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of all calls in training that were not padding."""
        return sum(self.each)

    @property
    def speed(self) -> float:
        """Tokens a second, from the second call in training to the last."""
        return sum(self.each[1:-1]) / (self.moments[-1] - self.moments[1])


@contextmanager
def watched() -> Iterator[Seen]:
    """Watch every Llama of this process."""
    whole, seen = LlamaModel.forward, Seen()

    def forward(model: Any, input_ids: Any = None, attention_mask: Any = None, **rest: Any) -> Any:
        if torch.is_grad_enabled():
            seen.moments.append(perf_counter())
            seen.laid += input_ids.numel()
            mask = attention_mask
            seen.each.append(input_ids.numel() if mask is None else int(mask.sum()))
        elif input_ids.shape[1] == 1:
            seen.decoded += len(input_ids)
            seen.decoding += 1
        return whole(model, input_ids=input_ids, attention_mask=attention_mask, **rest)

    LlamaModel.forward = forward
    try:
        yield seen
    finally:
        LlamaModel.forward = whole


# -- reinforcement learning --


@dataclass
class Steps:
    """What each step took."""

    ends: list[float] = field(default_factory=list)
    sampling: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def entry(self, step: int, steps: int, logged: dict[str, float]) -> None:
        self.ends.append(perf_counter())
        self.sampling.append(logged["time/sampling"])
        self.tokens.append(logged["tokens"] * QUESTIONS * SAMPLES)

    def cells(self) -> list[float]:
        """Return tokens, seconds of sampling, and seconds of learning."""
        step = self.ends[-1] - self.ends[-2]
        return [self.tokens[-1], self.sampling[-1], step - self.sampling[-1]]


def chance(trajectory: Trajectory) -> float:
    """Return a reward by chance: half of the trajectories are right."""
    return float(zlib.crc32(f"{trajectory.problem.id}/{trajectory.sample}".encode()) % 2)


def ours(folder: Path, model: Path, carry: str, depth: int, args: argparse.Namespace) -> Steps:
    """Two steps of this project's trainer."""
    eta, gamma = args.round - args.summary, args.summary
    rounds = (
        Rounds(carry="summary", eta=eta, gamma=gamma, phi=depth // args.round, on_cut="summarise")
        if carry == "summary"
        else Rounds(carry="none", eta=depth, gamma=gamma, phi=1)
    )
    items = [Item(Problem(f"q{i}", f"what is {i} and {i}?", "1"), grade) for i in range(2 * QUESTIONS)]
    config = RlConfig(
        output=folder,
        model=ModelSource(path=str(model)),
        rounds=rounds,
        train=Questions(task="gsm8k", settings=TaskSettings()),
        examine=Examination(),
        group=Group(questions=QUESTIONS, samples=SAMPLES),
        reward=("training_speed:chance",),
        steps=2,
        micro_tokens=MICRO_TOKENS,
        cache_tokens=10**7,
        max_batch=QUESTIONS * SAMPLES,
        checkpointing=False,
        save_every=0,
        device="cpu",
    )
    steps = Steps()
    train_rl(config, items=items, examined=[], progress=steps.entry)
    return steps


def grade(_: Ask) -> Grade:
    raise AssertionError("no trajectory answers")


def trl(folder: Path, model: Path, depth: int) -> Steps:
    """Two steps of TRL's trainer: the same questions, samples and tokens."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    steps = Steps()

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate_single_turn(self, *args: Any, **rest: Any) -> Any:
            began = perf_counter()
            try:
                return super()._generate_single_turn(*args, **rest)
            finally:
                steps.sampling.append(perf_counter() - began)

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **rest: Any) -> None:
            steps.ends.append(perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if "completions/mean_length" in logs:
                steps.tokens.append(logs["completions/mean_length"] * QUESTIONS * SAMPLES)

    parts = 1  # a power of two, as the number of trajectories is
    while QUESTIONS * SAMPLES // parts * depth > MICRO_TOKENS:
        parts *= 2
    arguments = GRPOConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=QUESTIONS * SAMPLES // parts,
        gradient_accumulation_steps=parts,
        num_generations=SAMPLES,
        max_completion_length=depth,
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
    )
    half = random.Random(0)
    trainer = Timed(
        model=str(model),
        reward_funcs=lambda completions, **_: [float(half.random() < 0.5) for _ in completions],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [f"what is {i} and {i}?" for i in range(2 * QUESTIONS)]}),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Ends()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return steps


def learning(folder: Path, args: argparse.Namespace) -> list[list[str]]:
    cells = []
    for depth in args.depths:
        model = make_model(folder / f"model{depth}", depth + 512)
        ways: dict[str, Callable[[], Steps]] = {
            "rounds": lambda d=depth, m=model: ours(folder / f"rounds{d}", m, "summary", d, args),
            "one chain": lambda d=depth, m=model: ours(folder / f"chain{d}", m, "none", d, args),
            # Ours may also say ``summary`` tokens more, in the last round, for an answer.
            "one chain, TRL's GRPOTrainer": lambda d=depth, m=model: trl(folder / f"trl{d}", m, d + args.summary),
        }
        first = 0.0
        for name, way in ways.items():
            tokens, sampled, learned = way().cells()
            first = first or sampled + learned
            step = f"{sampled + learned:.1f}", f"{(sampled + learned) / first:.2f}"
            cells.append([f"{depth:,}", name, f"{tokens:,.0f}", f"{sampled:.1f}", f"{learned:.1f}", *step])
            print(*cells[-1], sep=" | ", flush=True)
    return cells


def bubbles(folder: Path) -> list[list[str]]:
    """One step of RL on puzzles, with a place for each of 64 trajectories, and with a place for every fourth."""
    cells = []
    for places in (64, 16):
        config = RlConfig(
            output=folder / f"bubble{places}",
            model=ModelSource(path=str(SHIPPED)),
            rounds=Rounds(phi=32),
            train=Questions(task="automaton", settings=TaskSettings(problems=16, lines=(4, 48))),
            group=Group(questions=16, samples=4),
            reward=("training_speed:chance",),
            steps=1,
            max_batch=places,
            checkpointing=False,
            save_every=0,
            device="cpu",
        )
        with watched() as seen:
            train_rl(config, examined=[])
        made = [
            [sum(call.completion_tokens for call in this.calls) for this in trajectory.rounds]
            for trajectory in read_trajectories(config.output / "rollouts" / "000001")
        ]
        barrier = 0
        for first in range(0, len(made), places):
            some = made[first : first + places]
            barrier += sum(max(rounds[k] for rounds in some if k < len(rounds)) for k in range(max(map(len, some))))
        tokens, most = sum(map(sum, made)), max(map(sum, made))
        cells.append([str(places), f"{tokens:,}", f"{most:,}", f"{1 - seen.decoded / seen.decoding / places:.0%}"])
        cells[-1].append(f"{1 - tokens / barrier / places:.0%}")
    return cells


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["sft", "rl", "bubble"], help="sft, rl, bubble; all without any")
    parser.add_argument("--traces", type=int, default=256, help="traces that rows are made of")
    parser.add_argument("--eta", type=int, default=4096)
    parser.add_argument("--gamma", type=int, default=1024)
    parser.add_argument("--depths", type=int, nargs="+", default=[1024, 4096], help="tokens of a trajectory")
    parser.add_argument("--round", type=int, default=512, help="tokens of a round of RL")
    parser.add_argument("--summary", type=int, default=64)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    with tempfile.TemporaryDirectory() as name:
        if "sft" in args.parts:
            columns = ["batches", "not padding", "tokens", "tokens a second", "packed = 1"]
            show(f"fine-tuning, {args.traces} traces", columns, fine_tuning(Path(name), args))
        if "rl" in args.parts:
            columns = ["depth", "", "tokens", "sampling, s", "learning, s", "step, s", "rounds = 1"]
            show(f"a step of {QUESTIONS} x {SAMPLES} trajectories", columns, learning(Path(name), args))
        if "bubble" in args.parts:
            columns = ["places", "tokens", "of the longest", "bubble", "with a barrier after each round"]
            show("64 trajectories of puzzles", columns, bubbles(Path(name)))


if __name__ == "__main__":
    main()
