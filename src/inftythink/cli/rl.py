"""``inftythink rl``: reinforcement learning over whole trajectories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inftythink.cli import Command
from inftythink.train.rl_settings import RlConfig

if TYPE_CHECKING:
    from rich.console import Console

    from inftythink.train.rl import RlResult


def run(config: RlConfig) -> None:
    """Train, then show what came of it."""
    from rich.console import Console

    from inftythink.grade.pool import GradePool
    from inftythink.train.rl import train_rl
    from inftythink.train.rollout import grade_in

    first = os.environ.get("RANK", "0") == "0"
    with GradePool(config.grade_workers, config.grade_timeout) as pool:
        result = train_rl(config, grading=grade_in(pool), progress=_Teller(config, Console(stderr=True)))
    if first:
        _show(result)


class _Teller:
    """Shows each step and each examination on a line of its own."""

    def __init__(self, config: RlConfig, console: Console) -> None:
        self._each = config.group.updates * config.group.passes
        self._console = console

    def __call__(self, step: int, steps: int, entry: dict[str, float]) -> None:
        names = ("reward", "accuracy", "rounds", "tokens", "eval_accuracy", "eval_rounds", "eval_tokens")
        told = "  ".join(f"{name.replace('_', ' ')} {entry[name]:.3f}" for name in names if name in entry)
        self._console.print(f"step {step // self._each} of {steps // self._each}  {told}", highlight=False)


def _show(result: RlResult) -> None:
    """Print the closing table, and where the result is."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("", "first", "last"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("reward", "accuracy", "rounds", "tokens", "eval_accuracy", "eval_rounds", "eval_tokens"):
        pair = [result.metrics[f"{name}_{when}"] for when in ("first", "last")]
        if pair[0] is not None:
            table.add_row(name.replace("_", " "), *(f"{value:.3f}" for value in pair))
    console = Console()
    console.print(table)
    console.print(f"model: {result.path}", soft_wrap=True)


COMMAND = Command(
    RlConfig,
    run,
    "train a model by reinforcement learning over whole trajectories",
    "inftythink rl --config recipes/rl/deepseek-r1-distill-qwen-1.5b.yaml --model runs/sft/model --output runs/rl",
)
