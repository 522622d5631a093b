"""Does reinforcement learning teach? A model of the laboratory that solves some of its puzzles, before and after.

    python benchmarks/rl.py --model runs/lab/models/NAME/model --output runs/rl-lab
    python benchmarks/rl.py --noise 0.2 --output runs/rl-noise

Without ``--model`` the model that ships is taken, with noise on its weights. It is trained on puzzles that are not held
out, and examined on held-out ones: of the lengths that it is trained on, and three times longer. Printed are accuracy
(greedy), rounds and tokens of every examination, and the seconds of the whole run.
"""

from __future__ import annotations

import argparse
import random
import shutil
from dataclasses import replace
from pathlib import Path
from time import monotonic

import torch
from transformers import AutoModelForCausalLM

from inftythink.backends.connect import SHIPPED
from inftythink.protocol import Problem
from inftythink.store import read_trajectories
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.laboratory import grade_puzzle
from inftythink.tasks.puzzle import families, held_out_question
from inftythink.tasks.registry import load_task
from inftythink.train.rl import RlConfig, train_rl
from inftythink.train.rl_settings import Examination, Group, Questions, Rounds
from inftythink.train.rollout import figures
from inftythink.train.settings import ModelSource, Optimizer


def main() -> None:
    """Train, and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--noise", type=float, default=0.2, help="share of each matrix's deviation")
    parser.add_argument("--family", default="automaton")
    parser.add_argument("--lines", type=int, nargs=2, default=(8, 24), help="lines of reasoning of a training puzzle")
    parser.add_argument("--reward", nargs="+", default=["task"])
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--phi", type=int, default=36, help="most rounds; the longer puzzles need three times as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    began = monotonic()
    config = RlConfig(
        output=asked.output / "run",
        model=ModelSource(path=str(asked.model or noisy(asked.output / "start", asked.noise, asked.seed))),
        rounds=Rounds(phi=asked.phi),
        train=Questions(task=asked.family),
        examine=Examination(task=asked.family, every=5),
        group=Group(questions=8, samples=8),
        reward=tuple(asked.reward),
        optimizer=Optimizer(rate=asked.rate, schedule="constant", warmup=0.0, betas=(0.9, 0.98)),
        steps=asked.steps,
        micro_tokens=4096,
        checkpointing=False,
        save_every=5,
        device="cpu",
        seed=asked.seed,
    )
    low, high = asked.lines
    trained = drawn(asked.family, (low, high), 8 * asked.steps, asked.seed)
    examined = [
        _named(item, f"{name}/{item.problem.id}")
        for name, lines in (("near", (low, high)), ("far", (3 * low, 3 * high)))
        for item in load_task(asked.family).items(TaskSettings(problems=100, lines=lines, seed=asked.seed))
    ]
    train_rl(config, items=trained, examined=examined)
    for folder in sorted((config.output / "examinations").iterdir()):
        every = list(read_trajectories(folder))
        for name in ("near", "far"):
            told = figures([trajectory for trajectory in every if trajectory.problem.id.startswith(name)])
            shown = "  ".join(f"{key} {told[key]:.3f}" for key in ("accuracy", "rounds", "tokens"))
            print(f"{name:<5} after step {int(folder.name):>3}: {shown}")
    print(f"{monotonic() - began:.0f} s")


def drawn(family: str, lines: tuple[int, int], number: int, seed: int) -> list[Item]:
    """Draw puzzles to train on: none is one of those that examinations ask."""
    kind = next(kind for kind in families() if kind.name == family)
    rng, questions = random.Random(f"rl/{seed}"), dict[str, str]()
    while len(questions) < number:
        puzzle = kind.sample(rng, lines)
        if not held_out_question(puzzle.question):
            questions[puzzle.question] = puzzle.answer
    return [
        Item(Problem(f"train/{i}", question, answer), grade_puzzle, {"question": question}, family)
        for i, (question, answer) in enumerate(questions.items())
    ]


def noisy(folder: Path, noise: float, seed: int) -> Path:
    """Write the model that ships with noise on its weights."""
    if not folder.is_dir():
        shutil.copytree(SHIPPED, folder)
        model = AutoModelForCausalLM.from_pretrained(SHIPPED)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
        model.save_pretrained(folder)
    return folder


def _named(item: Item, name: str) -> Item:
    return replace(item, problem=replace(item.problem, id=name))


if __name__ == "__main__":
    main()
