"""The figures of an evaluation as tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = Mapping[str, Any]


def show(figures: Figures, console: Console | None = None) -> None:
    """Print what ``evals.metrics.summary`` returned: accuracy and cost of each task, outcomes, and what FAILED."""
    console = console or wide_console()
    blocks: dict[str, Figures] = dict(figures["tasks"])
    if len(blocks) > 1:
        blocks["all"] = figures["all"]
    console.print(_accuracy(blocks))
    console.print(_usage(blocks))
    console.print(_outcomes(blocks))
    if "fidelity" in figures:
        console.print(fidelity_line(figures["fidelity"]))
    for name, block in figures["tasks"].items():
        for cause, number in block["failures"].items():
            console.print(f"FAILED {name}: {number} × {cause}; not counted as wrong", markup=False, style="bold red")


def wide_console() -> Console:
    """Return a console for tables: a file or a pipe has no width, and what is folded to 80 columns cannot be read."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _table(first: str, *names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _accuracy(blocks: Mapping[str, Figures]) -> Table:
    """Accuracy, pass@k and maj@k (k: all samples), each with its 95% interval."""
    most = max((int(k) for block in blocks.values() for k in block["pass_at"]), default=1)
    names = ["accuracy %", "95% interval", "problems", "samples", "FAILED"]
    table = _table("task", *names, *([f"pass@{most} %", f"maj@{most} %"] if most > 1 else []))
    for task, block in blocks.items():
        one = block["accuracy"]
        cells = [
            percent(one["value"]),
            interval(one),
            f"{one['problems']:,}",
            f"{one['samples']:,}",
            str(one["failed"]),
        ]
        if most > 1:
            cells += [percent(block[kind].get(str(most), {}).get("value")) for kind in ("pass_at", "maj_at")]
        table.add_row(task, *cells)
    return table


def _usage(blocks: Mapping[str, Figures]) -> Table:
    table = _table("task", "tokens", "rounds", "peak context", "thought/summary", "latency p50", "p95", "tokens/s")
    for task, block in blocks.items():
        used = block["usage"]
        table.add_row(
            task,
            number(used["tokens"]["mean"]),
            number(used["rounds"]["mean"], 2),
            number(used["peak_context"]["max"]),
            number(used["compression"], 1),
            number(used["latency"]["p50"], 2, " s"),
            number(used["latency"]["p95"], 2, " s"),
            number(used["tokens_per_second"], 1),
        )
    return table


def _outcomes(blocks: Mapping[str, Figures]) -> Table:
    kinds = [
        kind for kind in next(iter(blocks.values()))["outcomes"] if any(b["outcomes"][kind] for b in blocks.values())
    ]
    table = _table("outcomes", *kinds)
    for task, block in blocks.items():
        table.add_row(task, *(f"{block['outcomes'][kind]:,}" for kind in kinds))
    return table


def fidelity_line(figures: Figures) -> str:
    """Return what ``evals.fidelity`` found, on a line."""
    later = figures["carried"].get("1", {}).get("share")
    repeated = sum(figures["repeated"][kind]["count"] for kind in ("identical", "near"))
    return (
        f"{figures['summaries']:,} summaries: {percent(figures['numbers']['share'])}% of their numbers are in their "
        f"sources (by chance {percent(figures['numbers_by_chance']['share'])}%), "
        f"{percent(figures['formulas']['share'])}% of their formulas; {percent(later)}% of new numbers are still there "
        f"a round later; {repeated:,} only repeat the one before"
    )


def percent(share: float | None) -> str:
    """Return a share in per cent; a dash for none."""
    return "–" if share is None else f"{100 * share:.2f}"


def interval(estimate: Figures) -> str:
    """Return an interval of shares in per cent."""
    return "–" if estimate["low"] is None else f"[{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def number(value: float | None, digits: int = 0, unit: str = "") -> str:
    """Return a number with its unit; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}{unit}"
