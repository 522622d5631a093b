"""``inftythink compare``: two evaluations of the same problems; is one better?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inftythink.cli import Command
from inftythink.config import REQUIRED, option
from inftythink.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from inftythink.evals.compare import Comparison, Difference


@dataclass(frozen=True)
class CompareConfig:
    """What ``inftythink compare`` can be told."""

    runs: tuple[Path, ...] = option(REQUIRED, "two run folders of inftythink eval, A and B", positional=True)
    json: bool = option(False, "the figures as JSON on standard output, nothing else there")


def run(config: CompareConfig) -> None:
    """Compare run B with run A, problem by problem."""
    from inftythink.cli._figures import wide_console
    from inftythink.evals.compare import by_task, compare
    from inftythink.evals.rows import rows

    if len(config.runs) != 2:
        raise UsageError(f"give two run folders, not {len(config.runs)}")
    a, b = (list(rows(path)) for path in config.runs)
    tasks = by_task(a, b)
    if not tasks:
        raise UsageError("the two runs have no task in common")
    found = tasks if len(tasks) == 1 else tasks | {"all": compare(a, b)}
    if config.json:
        print(json.dumps({name: one.to_json() for name, one in found.items()}))
        return
    console = wide_console()
    console.print(f"A {config.runs[0]}\nB {config.runs[1]}", markup=False)
    console.print(_table(found))
    for name, one in found.items():
        _tell_left_out(console, name, one)


def _table(found: dict[str, Comparison]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("task")
    for name in ("", "A", "B", "B - A", "95% interval", "p", "problems"):
        table.add_column(name, justify="right")
    for task, one in found.items():
        table.add_row(task, "accuracy %", *_difference(one.accuracy, 100, 2))
        table.add_row("", "tokens", *_difference(one.tokens, 1, 0))
        table.add_row("", "seconds", *_difference(one.seconds, 1, 2))
        votes = one.votes
        wins = f"only A {votes.only_a}, only B {votes.only_b}"
        counted = votes.only_a + votes.only_b + votes.both + votes.neither
        table.add_row("", f"maj@{votes.k}", "", "", wins, "McNemar", f"{votes.p:.4f}", f"{counted:,}")
    return table


def _difference(one: Difference, scale: float, digits: int) -> list[str]:
    def text(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value * scale:{sign},.{digits}f}"

    limits = "–" if one.low is None else f"[{text(one.low, '+')}, {text(one.high, '+')}]"
    p = "–" if one.p is None else f"{one.p:.4f}"
    return [text(one.a), text(one.b), text(one.value, "+"), limits, p, f"{one.problems:,}"]


def _tell_left_out(console: Console, name: str, one: Comparison) -> None:
    for what, names in (
        ("only in A", one.only_in_a),
        ("only in B", one.only_in_b),
        ("without a verdict in one run", one.ungraded),
    ):
        if names:
            console.print(f"{name}: {len(names)} problems {what}, left out: {', '.join(names[:5])} …", markup=False)
    if one.failed_a or one.failed_b:
        console.print(
            f"{name}: FAILED samples: {one.failed_a} in A, {one.failed_b} in B", markup=False, style="bold red"
        )


COMMAND = Command(
    CompareConfig,
    run,
    "tell whether one of two runs is better, on the problems that both have",
    "inftythink compare runs/vanilla runs/ours",
)
