"""``inftythink report``: one page over several runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from inftythink.cli import Command
from inftythink.config import REQUIRED, option


@dataclass(frozen=True)
class ReportConfig:
    """Settings of ``inftythink report``."""

    run: tuple[Path, ...] = option(REQUIRED, "run folders, each a line of the tables", positional=True)
    output: Path = option(REQUIRED, "folder to write, best a new one: the page is index.html in it")
    plots: bool = option(True, "draw the figures as SVG and PNG files too (needs matplotlib)")


def run(config: ReportConfig) -> None:
    """Build the page and say where it is."""
    from inftythink.cli._terminal import clean
    from inftythink.report.build import build

    page = build(config.run, config.output, lambda line: print(clean(line), file=sys.stderr), config.plots)
    print(f"the report: {page}")


COMMAND = Command(
    ReportConfig,
    run,
    "show runs in a page that opens from disk: tables, charts, and every trajectory to read",
    """
inftythink report runs/inftythink --output report
inftythink report runs/inftythink runs/vanilla --output report
""",
)
