"""``inftythink rescore``: grade the answers of a run again, without generating anything."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inftythink.cli import Command
from inftythink.config import REQUIRED, Count, load_dumped, option

if TYPE_CHECKING:
    from inftythink.evals.rows import Row


@dataclass(frozen=True)
class RescoreConfig:
    """What ``inftythink rescore`` can be told."""

    run: Path = option(REQUIRED, "run folder of inftythink eval", positional=True)
    grade_timeout: float | None = option(None, "longest time to grade an answer, in seconds (default: the run's)")
    grade_workers: Count = option(2, "processes that grade")
    json: bool = option(False, "the figures as JSON on standard output, nothing else there")


def run(config: RescoreConfig) -> int:
    """Grade again; 1 when a trajectory or a grade FAILED, else 0."""
    from inftythink.cli._meter import Meter
    from inftythink.cli.evaluate import EvalConfig, finish, read_tasks, so_far
    from inftythink.evals.run import grade_again
    from inftythink.grade.pool import GradePool
    from inftythink.reasoner import run_sync

    made = load_dumped(EvalConfig, config.run / "config.yaml")
    asked = read_tasks(made)
    rows: list[Row] = []
    verdicts: Counter[bool | None] = Counter()
    timeout = made.grade_timeout if config.grade_timeout is None else config.grade_timeout
    with GradePool(config.grade_workers, timeout) as pool, Meter(len(asked) * (made.samples or 1)) as meter:

        def told(row: Row) -> None:
            rows.append(row)
            verdicts[row.correct] += 1
            meter.update(len(rows), so_far(verdicts))

        changed = run_sync(grade_again(config.run, asked, pool, told))
    print(f"{len(rows):,} answers graded again, {changed} verdicts changed", file=sys.stderr)
    return finish(config.run, rows, made.model, as_json=config.json)


COMMAND = Command(RescoreConfig, run, "grade the answers of a run again", "inftythink rescore runs/ours")
