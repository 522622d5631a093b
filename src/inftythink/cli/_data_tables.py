"""What the data commands show: a progress line for each stage, tables of counts, rejects and lengths."""

from __future__ import annotations

import contextlib
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from inftythink.cli._figures import fidelity_line
from inftythink.store import read_json_lines

_NAMES = {"read": "read", "segment": "segmented", "summarise": "summarised", "form": "formed"}


@contextlib.contextmanager
def progress(stages: tuple[str, ...]) -> Iterator[Callable[[str, int, int, int], None]]:
    """Show how many records each stage has taken, given and rejected, on standard error, while it runs."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn(
            "{task.fields[taken]:>9,} taken  {task.fields[given]:>9,} done  {task.fields[rejected]:>6,} rejected"
        ),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {s: bars.add_task(f"{_NAMES[s]:<10}", total=None, taken=0, given=0, rejected=0) for s in stages}

        def tell(stage: str, taken: int, given: int, rejected: int) -> None:
            bars.update(tasks[stage], taken=taken, given=given, rejected=rejected)

        yield tell
        for task in tasks.values():
            bars.update(task, total=1, completed=1)


def show_counts(folder: Path, manifest: dict[str, Any]) -> None:
    """Print what came in, what came out, what was rejected and why, and where it all is."""
    console = Console()
    console.print(f"[bold]{folder}[/]", soft_wrap=True)
    table = Table()
    for name in ("stage", "in", "out", "rejected"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, counts in manifest["stages"].items():
        table.add_row(_NAMES[stage], *(f"{counts[name]:,}" for name in ("in", "out", "rejected")))
    whole = manifest["counts"]
    table.add_section()
    table.add_row("all", *(f"[bold]{whole[name]:,}[/]" for name in ("in", "out", "rejected")))
    console.print(table)
    _show_rejects(console, folder)
    usage = manifest["usage"]
    if usage.get("calls"):
        console.print(
            f"summariser: {usage['calls']:,} calls, {usage['prompt_tokens']:,} tokens in, "
            f"{usage['completion_tokens']:,} out"
        )
    if usage.get("judge_calls"):
        console.print(
            f"judge: {usage['judge_calls']:,} calls, {usage['judge_prompt_tokens']:,} tokens in, "
            f"{usage['judge_completion_tokens']:,} out"
        )
    if "form" in manifest["stages"]:
        made = manifest["stages"]["form"]
        console.print(
            f"instances: {made['train']:,} for training, {made['validation']:,} for validation, in {folder}/instances",
            soft_wrap=True,
        )
    console.print(
        f"{whole['in']:,} in = {whole['out']:,} out + {whole['rejected']:,} rejected ({folder}/rejects.jsonl)"
    )


def _show_rejects(console: Console, folder: Path) -> None:
    reasons: Tally[tuple[str, str]] = Tally()
    example: dict[tuple[str, str], str] = {}
    for reject in read_json_lines(folder / "rejects.jsonl"):
        key = (reject["stage"], reject["reason"])
        reasons[key] += 1
        example.setdefault(key, reject["detail"])
    if not reasons:
        return
    table = Table("rejected at", "reason", "traces", "for example", title_justify="left")
    for (stage, reason), count in reasons.most_common():
        table.add_row(stage, reason, f"{count:,}", example[stage, reason][:100])
    console.print(table)


def show_statistics(folder: Path, manifest: dict[str, Any], found: dict[str, Any]) -> None:
    """Print the figures of a folder as tables, with the rounds a trace as bars."""
    console = Console()
    show_counts(folder, manifest)
    columns = ("count", "mean", "p10", "p50", "p90", "p99", "max")
    table = Table(
        "lengths", *columns, title=f"eta {manifest.get('eta')}, gamma {manifest.get('gamma')}", title_justify="left"
    )
    for group, figures in found.items():
        for name, figure in figures.items() if isinstance(figures, dict) else ():
            if isinstance(figure, dict) and "p50" in figure:
                table.add_row(f"{group}: {name}", *(f"{figure[column]:,}" for column in columns))
    console.print(table)
    if "fidelity" in found:
        console.print(fidelity_line(found["fidelity"]))
    bars = found.get("segments", {}).get("traces by rounds", {})
    if bars:
        most = max(bars.values())
        console.print("traces by rounds")
        for rounds, count in bars.items():
            console.print(f"{rounds:>4} {'█' * max(1, round(40 * count / most))} {count:,}")
