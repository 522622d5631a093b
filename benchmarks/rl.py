"""Does reinforcement learning teach? An under-trained model of the laboratory, before and after.

    python benchmarks/rl.py --output runs/rl-task --seed 0
    python benchmarks/rl.py --output runs/rl-short --seed 0 --reward task efficiency --start runs/rl-task/start/START

The start is a fine-tuning that is stopped early, on rounds of one line and of three (the window has room for three),
mixed: the first of its checkpoints of which 30 to 60% of what it samples at temperature 1 is right. It has learnt the
format, errs often, and summarises sooner than it must. Then it is trained on puzzles that are not held out,
of 1 to 3 windows, and examined on held-out ones with held-out states: of these lengths ("near"),
and three times longer ("far"), greedily and at temperature 1. With ``--timing``, the near ones also when rounds end
after a fixed or a random number of tokens instead of where the model decides, and with a rule's summaries (the last
whole line) in place of the model's. Written: OUTPUT/results.json, and the run in OUTPUT/run, whose curves
``inftythink report`` draws.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from inftythink.backends.base import Backend, Delta, Request, Sampling
from inftythink.errors import InftyThinkError
from inftythink.lab.data import Drawing
from inftythink.lab.evaluate import GREEDY, Behind, Setup, interval, records, solve
from inftythink.lab.plan import ETA, GAMMA, WINDOW, DataSet, Model
from inftythink.lab.problems import Sized, problems
from inftythink.lab.run import make_data, sft_config
from inftythink.lab.tokenizer import make_tokenizer
from inftythink.protocol import Completion, Problem, Trajectory
from inftythink.render import Renderer
from inftythink.tasks.base import Item
from inftythink.tasks.laboratory import grade_puzzle
from inftythink.tasks.puzzle import Family, families, held_out_question
from inftythink.train.rl import RlConfig, train_rl
from inftythink.train.rl_settings import Examination, Group, Questions, Rounds
from inftythink.train.settings import ModelSource, Optimizer
from inftythink.train.sft import train_sft

ONE_LINE = 28
"""An eta in which one line of the automaton has room."""

NEAR, FAR = (1.0, 3.0), (3.0, 9.0)
LINES = (6, 17)
"""Lines of reasoning of a puzzle that is trained on: about 1 to 3 windows."""

MOST_ROUNDS = {NEAR: 24, FAR: 72}
"""More than rounds of one line need."""

UNDERTRAINED = (0.3, 0.6)
"""Sampled accuracy of a start."""

EVERY = 100
"""Steps of fine-tuning between two checkpoints."""

DECODING = {"greedy": GREEDY, "sampled": Sampling(1.0, 1.0, seed=0)}


def main() -> None:
    """Fine-tune a little, train, examine, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a model to start from, instead of making one in OUTPUT/start")
    parser.add_argument(
        "--start-steps", type=int, default=3000, help="of the whole fine-tuning, which is stopped early"
    )
    parser.add_argument("--family", default="automaton")
    parser.add_argument("--reward", nargs="+", default=["task"])
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between examinations")
    parser.add_argument("--problems", type=int, default=300, help="of an examination before and after")
    parser.add_argument("--timing", action="store_true", help="also: when to summarise, and what, before and after")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    family = next(kind for kind in families() if kind.name == asked.family)
    renderer = Renderer(make_tokenizer())
    examined = {
        span: problems(family, span, asked.problems, renderer=renderer, window=WINDOW, seed=asked.seed)
        for span in (NEAR, FAR)
    }
    start = asked.start or undertrained(asked.output / "start", family, asked.start_steps, asked.seed)
    before = examinations(start, examined)
    print("before:", told(before), flush=True)
    whole, began = (asked.output / "run/metrics.json").is_file(), monotonic()
    result = train_rl(
        settings(asked, start),
        items=drawn(family, 8 * asked.steps, asked.seed),
        examined=[_item(sized.problem, family.name) for sized in examined[NEAR][:100]],
        progress=lambda step, _, logs: print(step, _shown(logs), flush=True),
    )
    seconds = monotonic() - began
    if whole:  # trained before, and only examined now
        seconds = json.loads((asked.output / "results.json").read_text(encoding="utf-8"))["seconds"]
    after = examinations(result.path, examined)
    print(f"after {asked.steps} steps, {seconds:.0f} s:", told(after))
    found = {"seed": asked.seed, "reward": asked.reward, "start": str(start)}
    found |= {"steps": asked.steps, "seconds": seconds}
    found |= {"before": before, "after": after, "history": result.history}
    if asked.timing:
        found["timing"] = {
            f"{when}, {timing}, {summaries} summaries": figures
            for when, model in (("before", start), ("after", result.path))
            for (timing, summaries), figures in timings(model, examined[NEAR]).items()
        }
        for which, figures in found["timing"].items():
            print(told({which: figures}))
    (asked.output / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


_SHOWN = ("reward", "accuracy", "rounds", "tokens", "entropy", "eval_accuracy", "eval_rounds", "groups_without_spread")


def _shown(logs: dict[str, float]) -> str:
    return "  ".join(f"{name} {logs[name]:.3f}" for name in _SHOWN if name in logs)


def settings(asked: argparse.Namespace, start: Path) -> RlConfig:
    """Return the settings of the run."""
    return RlConfig(
        output=asked.output / "run",
        model=ModelSource(path=str(start)),
        rounds=Rounds(eta=ETA, gamma=GAMMA, phi=MOST_ROUNDS[NEAR]),
        train=Questions(task=asked.family),
        examine=Examination(task=asked.family, every=asked.every),
        group=Group(questions=8, samples=8),
        reward=tuple(asked.reward),
        optimizer=Optimizer(rate=asked.rate, schedule="constant", warmup=0.0, betas=(0.9, 0.98)),
        steps=asked.steps,
        micro_tokens=4096,
        checkpointing=False,
        save_every=0,
        device="cpu",
        seed=asked.seed,
    )


def undertrained(folder: Path, family: Family, steps: int, seed: int) -> Path:
    """Fine-tune a model from nothing as the laboratory does, and return the folder of an early checkpoint.

    Raises ``InftyThinkError`` when none is as good, and as bad, as ``UNDERTRAINED`` says.
    """
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    drawings = (Drawing(family.name, 2400, (2, 40)), Drawing(family.name, 300, (40, 320)))
    data = tuple(DataSet(f"eta-{eta}", drawings, eta, seed=seed) for eta in (ONE_LINE, ETA))
    for each in data:
        print(each.name, make_data(each, folder), flush=True)
    model = Model("start", tuple((each.name, 1.0) for each in data), steps, seed=seed)
    train_sft(replace(sft_config(model, folder), save_every=EVERY, keep=steps // EVERY))
    # Others than the problems of the examinations, which would flatter what was chosen by them.
    asked = problems(family, NEAR, 100, renderer=Renderer(tokenizer), window=WINDOW, seed=10_000 + seed)
    for stopped in range(steps // 3, steps + 1, EVERY):
        path = folder / f"models/start/checkpoints/checkpoint-{stopped}"
        found = examine(path, asked, NEAR, "sampled")
        print(told({f"stopped after {stopped} of {steps} steps, sampled": found}), flush=True)
        if UNDERTRAINED[0] <= found["accuracy"] <= UNDERTRAINED[1]:
            return path
    raise InftyThinkError(f"no checkpoint between {UNDERTRAINED[0]:.0%} and {UNDERTRAINED[1]:.0%}")


def drawn(family: Family, number: int, seed: int) -> list[Item]:
    """Draw puzzles to train on; none is a held-out question."""
    rng, questions = random.Random(f"rl/{seed}"), dict[str, str]()
    while len(questions) < number:
        puzzle = family.sample(rng, LINES)
        if not held_out_question(puzzle.question):
            questions[puzzle.question] = puzzle.answer
    asked = (Problem(f"train/{place}", text, answer) for place, (text, answer) in enumerate(questions.items()))
    return [_item(problem, family.name) for problem in asked]


def examinations(model: Path, examined: dict[tuple[float, float], list[Sized]]) -> dict[str, Any]:
    """Return the figures of both lengths, each decoded greedily and sampled."""
    return {
        f"{name(span)}, {how}": examine(model, asked, span, how) for span, asked in examined.items() for how in DECODING
    }


def examine(model: Path, asked: Sequence[Sized], span: tuple[float, float], how: str = "greedy") -> dict[str, Any]:
    """Return accuracy with its 95% interval, mean rounds and mean tokens."""
    setup = Setup("summary", WINDOW, ETA, GAMMA, MOST_ROUNDS[span])
    return figures_of(solve(model, asked, setup, sampling=DECODING[how]), asked)


def figures_of(solved: Sequence[Trajectory], asked: Sequence[Sized]) -> dict[str, Any]:
    """Return what graded trajectories amount to."""
    rows = records(solved, asked)
    right, number = sum(row.correct for row in rows), len(rows)
    return {
        "accuracy": right / number,
        "interval": interval(right, number),
        "rounds": sum(row.rounds for row in rows) / number,
        "tokens": sum(row.tokens for row in rows) / number,
        "problems": number,
    }


TIMINGS: dict[str, tuple[int, int] | None] = {"adaptive": None, "fixed": (50, 50), "random": (20, ETA)}
"""Tokens of thought after which a round is summarised. A line has 21: 50 falls within one."""


def timings(model: Path, asked: Sequence[Sized]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the figures by who decides when to summarise, and by whose summaries are carried."""
    found = {}
    for timing, between in TIMINGS.items():
        setup = Setup("summary", WINDOW, ETA, GAMMA, MOST_ROUNDS[NEAR], interval=between)
        found[timing, "own"] = figures_of(solve(model, asked, setup), asked)
        found[timing, "perfect"] = figures_of(solve(model, asked, setup, behind=Perfect), asked)
    return found


class Perfect(Behind):
    """A backend whose summaries are a rule's: the last whole line that was thought, else what was carried already."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, "a rule's summaries")

    async def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Generate, in one piece."""
        yield await self.complete(request)

    async def complete(self, request: Request) -> Completion:
        """Generate, and put the rule's summary in the place of the model's."""
        done = await self._backend.complete(request)
        before = "".join(part.text for part in request.prompt.prefill)
        summary = _SUMMARY.search(before + done.text)
        if summary is None or summary.end(1) <= len(before):
            return done
        lines = _LINE.findall((before + done.text)[: summary.start()])
        if not lines:
            return done
        start = summary.start(1) - len(before)  # negative when the summary was begun in the round's call before
        rest = lines[-1][max(0, -start) :]
        text = f"{done.text[: max(0, start)]}{rest}{done.text[summary.end(1) - len(before) :]}"
        return replace(done, text=text, token_ids=None, logprobs=None)


_SUMMARY = re.compile(r"<summary>\n(.*?)\n</summary>", re.DOTALL)
_LINE = re.compile(r"^Left \d{3}\|[.#]{15}$", re.MULTILINE)


def name(span: tuple[float, float]) -> str:
    """Return what a span is called."""
    return "near" if span == NEAR else "far"


def told(exams: dict[str, dict[str, Any]]) -> str:
    """Return the figures of examinations on a line."""
    return "; ".join(
        f"{which} {exam['accuracy']:.1%} [{exam['interval'][0]:.1%}, {exam['interval'][1]:.1%}], "
        f"{exam['rounds']:.1f} rounds, {exam['tokens']:.0f} tokens"
        for which, exam in exams.items()
    )


def _item(problem: Problem, group: str) -> Item:
    named = problem if "/" in problem.id else replace(problem, id=f"near/{problem.id}")
    return Item(named, grade_puzzle, {"question": problem.question}, group)


if __name__ == "__main__":
    main()
