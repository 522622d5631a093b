"""What rounds mean for training, counted and simulated: padding of a fine-tuning, and the idle time of an RL step.

    python benchmarks/training.py [--model Qwen2.5-Math-7B] [--engines 4]

Nothing is run. Rows are the 1,776 real traces of ``trace_tokens.json``, cut at ``--eta`` or whole; how they are laid
into batches is ``inftythink.train.batches``. A step of reinforcement learning samples 128 questions, 8 trajectories
each, with lengths drawn from those traces (times ``--longer``), on engines as ``benchmarks/simulate_cluster.py`` has
them; then as many GPUs train on them, at the speed of ``benchmarks/scaling.py``.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from inftythink.evals.architecture import Architecture
from inftythink.evals.cost import Setting, kv_bytes
from inftythink.evals.steps import curve
from inftythink.train.batches import Shape, plan
from scaling import EFFICIENCY, H100, RL_QUESTIONS, RL_SAMPLES, architecture, trained
from simulate_cluster import LENGTHS, Result, Round, Trajectory, cut, simulate

PACK = 16384
SHAPES = {
    "packed, best fit": Shape(32, 32, PACK, packed=True),
    "padded to 16k tokens, like lengths together": Shape(32, 32, PACK),
    "8 rows at once, like lengths together": Shape(32, 4),
    "8 rows at once, as they come": Shape(32, 4, group=False),
}


def used(lengths: Sequence[int], shape: Shape) -> float:
    """Return the share of tokens that are not padding."""
    batches = plan(lengths, [(len(lengths), 1.0)], shape)
    laid = sum(PACK if shape.packed else max(lengths[row] for row in each) * len(each) for each in batches)
    return sum(lengths[row] for each in batches for row in each) / laid


def room(model: Architecture, trajectories: Sequence[Trajectory]) -> int:
    """Return how many sequences the memory holds when each has the mean context of all steps."""
    rounds = [this for trajectory in trajectories for this in trajectory]
    steps = sum(this.generated for this in rounds)
    keys = sum(this.generated * (this.prompt + this.generated / 2) for this in rounds)
    return int((H100.memory - 2.0 * model.parameters) // kv_bytes(model, int(keys / steps)))


def step(model: Architecture, engines: int, trajectories: Sequence[Trajectory], row: int) -> tuple[Result, float, int]:
    """Return the sampling, the seconds of training on it with as many GPUs, and the places of an engine."""
    places = room(model, trajectories)
    steps = curve(model, Setting(H100, places), EFFICIENCY)
    sampled = simulate("reasoner", trajectories, steps, engines, places, len(trajectories))
    tokens = sum(this.prompt + this.generated for rounds in trajectories for this in rounds)
    return sampled, trained(model, tokens, row, 4 / 3) / engines, places


def padding(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return for each shape the share of tokens that are not padding: of rounds, and of whole traces."""
    traces = json.loads(LENGTHS.read_text(encoding="utf-8"))
    made = [this for each in traces for this in cut(each, args.eta, args.gamma, args.question)]
    rows = [this.prompt + this.generated for this in made], [min(args.question + each, PACK) for each in traces]
    return {name: [f"{used(lengths, shape):.1%}" for lengths in rows] for name, shape in SHAPES.items()}


def show_padding(args: argparse.Namespace) -> None:
    table = Table("batches", f"rounds of {args.eta:,}", "whole traces", title="share of tokens that are not padding")
    for name, cells in padding(args).items():
        table.add_row(name, *cells)
    Console().print(table)


def show_step(args: argparse.Namespace) -> None:
    traces = json.loads(LENGTHS.read_text(encoding="utf-8"))
    model, draw = architecture(args.model), random.Random(0)
    lengths = [args.longer * draw.choice(traces) for _ in range(RL_QUESTIONS * RL_SAMPLES)]
    ways = {
        "rounds": ([cut(each, args.eta, args.gamma, args.question) for each in lengths], args.eta + 2 * args.gamma),
        "one chain": ([[Round(args.question, 0, each)] for each in lengths], sum(lengths) // len(lengths)),
    }
    table = Table(
        title=f"a step of {len(lengths):,} trajectories, {args.model}, {args.engines} GPUs sample, then train"
    )
    for column in ("", "tokens", "places", "sampling, s", "places used", "99% / longest, s", "training, s", "step, s"):
        table.add_column(column, justify="right")
    for name, (trajectories, row) in ways.items():
        sampled, learned, places = step(model, args.engines, trajectories, row)
        cells = [f"{sampled.tokens / 1e6:.2f}M", f"{places:,}", f"{sampled.seconds:,.0f}", f"{sampled.filled:.0%}"]
        tail = f"{sampled.whole[1]:,.0f} / {sampled.seconds:,.0f}"
        table.add_row(name, *cells, tail, f"{learned:,.0f}", f"{sampled.seconds + learned:,.0f}")
    Console(width=120).print(table)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Qwen2.5-Math-7B", help="a model of recipes/models")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--longer", type=int, default=1, help="trajectories are so many times as long as the traces")
    parser.add_argument("--eta", type=int, default=4096)
    parser.add_argument("--gamma", type=int, default=1024)
    parser.add_argument("--question", type=int, default=300)
    return parser


def main() -> None:
    args = parser().parse_args()
    show_padding(args)
    show_step(args)


if __name__ == "__main__":
    main()
