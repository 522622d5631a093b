"""``inftythink export``: a run in the form of another tool: its logs, or training rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from inftythink.cli import Command
from inftythink.config import REQUIRED, option


@dataclass(frozen=True)
class ExportConfig:
    """What ``inftythink export`` can be told."""

    run: Path = option(REQUIRED, "run folder of inftythink eval, or of inftythink rl with --rows", positional=True)
    output: Path | None = option(None, "folder to write (default: RUN/lm-eval; with --rows RUN)", metavar="DIR")
    rows: Literal["none", "jsonl", "parquet"] = option("none", "the rows that another trainer needs, instead of logs")


def run(config: ExportConfig) -> None:
    """Write the per-sample logs of lm-evaluation-harness, or training rows."""
    if config.rows != "none":
        _write_rows(config)
        return
    from inftythink.errors import InputError
    from inftythink.evals.export import export

    if not (config.run / "trajectories.jsonl").is_file():
        raise InputError(f"{config.run}: there are no trajectories here; is this a run folder?")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
    for path, number in export(config.run, config.output or config.run / "lm-eval", date).items():
        print(f"{path}: {number:,} problems")


def _write_rows(config: ExportConfig) -> None:
    """Write a file of rows for every step of a training, or for the one that the folder is."""
    from inftythink.train.rollout import read_rows, save_rows

    steps = sorted(path for path in (config.run / "rollouts").glob("*") if path.is_dir())
    for step in steps or [config.run]:
        folder = step if config.output is None else config.output / (step.name if steps else "")
        rows = list(read_rows(step))
        save_rows(folder / f"rows.{config.rows}", rows)
        print(f"{folder / f'rows.{config.rows}'}: {len(rows):,} rows")


COMMAND = Command(
    ExportConfig,
    run,
    "write a run as the per-sample logs of lm-evaluation-harness, or as training rows",
    "inftythink export runs/ours\ninftythink export runs/rl --rows parquet",
)
