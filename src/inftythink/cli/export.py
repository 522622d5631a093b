"""``inftythink export``: a run in the log form of another tool."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from inftythink.cli import Command
from inftythink.config import REQUIRED, option


@dataclass(frozen=True)
class ExportConfig:
    """What ``inftythink export`` can be told."""

    run: Path = option(REQUIRED, "run folder of inftythink eval", positional=True)
    output: Path | None = option(None, "folder to write (default: RUN/lm-eval)", metavar="DIR")


def run(config: ExportConfig) -> None:
    """Write the per-sample logs of lm-evaluation-harness."""
    from inftythink.errors import InputError
    from inftythink.evals.export import export

    if not (config.run / "trajectories.jsonl").is_file():
        raise InputError(f"{config.run}: there are no trajectories here; is this a run folder?")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
    for path, number in export(config.run, config.output or config.run / "lm-eval", date).items():
        print(f"{path}: {number:,} problems")


COMMAND = Command(
    ExportConfig, run, "write a run as the per-sample logs of lm-evaluation-harness", "inftythink export runs/ours"
)
