"""``inftythink restart``: does a model need what its summaries say? Continues a run from other histories."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inftythink.cli import Command
from inftythink.config import REQUIRED, Count, load_dumped, option
from inftythink.errors import InputError, UsageError

if TYPE_CHECKING:
    from inftythink.cli.evaluate import EvalConfig
    from inftythink.evals.ablation import Restart
    from inftythink.evals.rows import Row
    from inftythink.reasoner import Reasoner


@dataclass(frozen=True)
class RestartConfig:
    """What ``inftythink restart`` can be told."""

    run: Path = option(REQUIRED, "run folder of inftythink eval", positional=True)
    histories: tuple[Literal["true", "empty", "shuffled", "full"], ...] = option(
        ("true", "empty", "shuffled", "full"),
        "what to continue from: its own summary, none, its words shuffled, all that was thought",
        metavar="HOW",
    )
    output: Path | None = option(None, "run folder (default: RUN-restart)", metavar="RUN", identity=False)
    json: bool = option(False, "the figures as JSON on standard output, nothing else there", identity=False)
    concurrency: Count = option(64, "most questions in flight", identity=False)


def run(config: RestartConfig) -> int:
    """Continue a run from each history, and grade; 1 when a trajectory or a grade FAILED, else 0."""
    from inftythink.cli._reasoning import make_reasoner
    from inftythink.cli.evaluate import EvalConfig, read_tasks
    from inftythink.evals.ablation import restarts
    from inftythink.reasoner import run_sync
    from inftythink.store import read_trajectories

    made = load_dumped(EvalConfig, config.run / "config.yaml")
    if made.carry not in ("summary", "two_call"):
        raise UsageError(f"{config.run}: its carry is {made.carry}, which writes no summary")
    todo = list(restarts(read_trajectories(config.run), read_tasks(made), config.histories))
    if not todo:
        raise InputError(f"{config.run}: no trajectory has two rounds, so there is nothing to continue")
    number = len(todo) // len(config.histories)
    print(f"{number:,} trajectories, continued from {', '.join(config.histories)}", file=sys.stderr)
    made = dataclasses.replace(made, concurrency=config.concurrency)
    return run_sync(_restart(config, made, make_reasoner(made, f"inftythink restart {config.run}"), todo))


async def _restart(config: RestartConfig, made: EvalConfig, reasoner: Reasoner, todo: list[Restart]) -> int:
    from inftythink.cli._meter import Meter
    from inftythink.cli.evaluate import finish, so_far
    from inftythink.evals.ablation import Planted
    from inftythink.evals.run import evaluate
    from inftythink.grade.pool import GradePool
    from inftythink.store import RunFolder

    path = config.output or config.run.with_name(config.run.name + "-restart")
    rows: list[Row] = []
    verdicts: Counter[bool | None] = Counter()
    samples = 1 + max(one.sample for one in todo)
    async with reasoner:
        with RunFolder(path, config) as folder, GradePool(made.grade_workers, made.grade_timeout) as pool:

            def told(row: Row) -> None:
                rows.append(row)
                verdicts[row.correct] += 1
                meter.update(len(rows), so_far(verdicts))

            asked = {one.asked.id: one.asked for one in todo}.values()
            journal = Planted(folder, todo, reasoner.format, reasoner.carry)
            with Meter(len(todo), len(folder.done)) as meter:
                await evaluate(reasoner, asked, samples, folder, pool, told, journal)
    return finish(path, rows, made.model, as_json=config.json)


COMMAND = Command(
    RestartConfig,
    run,
    "continue a run from its own, empty and shuffled summaries, and from all that was thought",
    "inftythink restart runs/ours",
)
