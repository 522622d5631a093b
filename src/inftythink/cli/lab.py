"""``inftythink lab``: the papers' experiments at laptop scale."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inftythink.cli import Command
from inftythink.config import Count, option


@dataclass(frozen=True)
class LabConfig:
    """Settings of ``inftythink lab``."""

    preset: Literal["quick", "full", "model", "shipped"] = option(
        "quick",
        "quick: one family, both methods; full: all experiments; model: trains the models that ship; "
        "shipped: examines them",
    )
    only: tuple[Literal["main", "rounds", "stretched", "tail", "tampered"], ...] = option(
        (), "experiments of full to carry out; others can follow in the same folder", metavar="NAME", identity=False
    )
    output: Path | None = option(None, "folder to write (default: runs/lab-PRESET)", identity=False)
    seed: int = option(0, "of data and weights")
    workers: Count = option(2, "processes at once, each with one thread", identity=False)


def run(config: LabConfig) -> None:
    """Carry out a preset and write its report."""
    from importlib.util import find_spec

    from inftythink.errors import missing
    from inftythink.store import lock

    for package, extra in (("torch", "train"), ("trl", "train"), ("datatrove", "data"), ("matplotlib", "lab")):
        if find_spec(package) is None:
            raise missing(package, extra)
    folder = config.output or Path("runs") / f"lab-{config.preset}"
    descriptor = lock(folder)
    try:
        _run(config, folder)
    finally:
        os.close(descriptor)


def _run(config: LabConfig, folder: Path) -> None:
    """Carry a preset out in a folder that is this process's own."""
    from inftythink.config import difference, dump, load_dumped
    from inftythink.errors import UsageError

    saved = folder / "config.yaml"
    if saved.exists() and (changes := difference(load_dumped(LabConfig, saved), config)):
        raise UsageError(f"{folder}: refused, this laboratory was {'; '.join(changes)}. Use another --output.")
    dump(config, saved)

    from inftythink.lab.plan import plan
    from inftythink.lab.report import load, table, write
    from inftythink.lab.run import run as carry_out
    from inftythink.lab.run import steps

    todo = plan(config.preset, config.seed)
    if config.only:
        todo = todo.only(config.only)
    if not todo.exams:
        raise UsageError(f"--only {' '.join(config.only)}: --preset {config.preset} has no such experiment")
    number, done = len(steps(todo)), 0
    print(
        f"{number} steps: {len(todo.data)} data sets, {len(todo.models)} models, {len(todo.exams)} exams",
        file=sys.stderr,
    )

    def tell(line: str) -> None:
        nonlocal done
        done += 1
        print(f"[{done}/{number}] {line}", file=sys.stderr, flush=True)

    carry_out(todo, folder, config.workers, tell)
    page = write(todo, folder)
    _show(table(load(todo, folder)))
    print(f"the report: {page}")


def _show(lines: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from inftythink.cli._figures import wide_console

    shown = Table("method", "puzzles", "windows", "right, % [95% interval]", "problems", "no answer")
    for line in lines:
        interval = f"[{100 * line['low']:.0f}, {100 * line['high']:.0f}]"
        shown.add_row(
            str(line["method"]),
            str(line["family"]),
            str(line["windows"]),
            f"{100 * line['accuracy']:5.1f} {interval}",
            f"{line['problems']:,}",
            str(line["not_answered"]),
        )
    wide_console().print(shown)


COMMAND = Command(
    LabConfig,
    run,
    "run the papers' experiments in minutes with a small model, and write a report",
    """
inftythink lab
inftythink lab --preset full --output runs/lab
""",
)
