"""``inftythink sft``: supervised fine-tuning on converted data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inftythink.cli import Command
from inftythink.train.settings import SftConfig

if TYPE_CHECKING:
    from rich.progress import Progress

    from inftythink.train.sft import SftResult


def run(config: SftConfig) -> None:
    """Train, then show what came of it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from inftythink.train.sft import train_sft

    first = os.environ.get("RANK", "0") == "0"
    columns = (
        TextColumn("[bold]step"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>6,.0f} of {task.total:,.0f}  {task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (first and console.is_terminal)) as bars:
        result = train_sft(config, progress=_Teller(bars))
    if first:
        _show(result, config)


class _Teller:
    """Shows each entry of the history: in the progress bar of a terminal, else on a line of its own."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._told: dict[str, float] = {}

    def __call__(self, step: int, steps: int, entry: dict[str, float]) -> None:
        self._told |= {name: entry[name] for name in ("loss", "eval_loss") if name in entry}
        told = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in self._told.items())
        if not self._bars.console.is_terminal:
            self._bars.console.print(f"step {step} of {steps}  {told}", highlight=False)
            return
        if not self._bars.tasks:
            self._bars.add_task("step", total=steps, told="")
        self._bars.update(self._bars.tasks[0].id, completed=step, told=told)


def _show(result: SftResult, config: SftConfig) -> None:
    """Print the closing table, and where the result is."""
    from rich.console import Console
    from rich.table import Table

    metrics = result.metrics
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("rows", "validation_rows", "tokens", "trained_tokens", "rejected", "steps"):
        table.add_row(name.replace("_", " "), f"{metrics[name]:,}")
    for name in ("loss_first", "loss_last", "eval_loss"):
        table.add_row(name.replace("_", " "), "-" if metrics[name] is None else f"{metrics[name]:.4f}")
    console = Console()
    console.print(table)
    if metrics["rejected"]:
        console.print(f"rejected rows: {config.output / 'rejects.jsonl'}", soft_wrap=True)
    console.print(f"model: {result.path}", soft_wrap=True)


COMMAND = Command(
    SftConfig,
    run,
    "train a model on converted data",
    "inftythink sft --config recipes/smollm2-135m.yaml --data data/math --output runs/smollm2",
)
