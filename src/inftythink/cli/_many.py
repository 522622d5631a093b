"""Many questions at once: kept in a run folder, counted while they end, summed up when all have."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table

from inftythink.cli._meter import Meter
from inftythink.cli._problems import Problems, Reject
from inftythink.cli._reasoning import started
from inftythink.cli._terminal import clean
from inftythink.config import digest
from inftythink.errors import InputError
from inftythink.protocol import Outcome, Purpose, Trajectory
from inftythink.store import RunFolder, write_json_lines, write_whole

if TYPE_CHECKING:
    from inftythink.cli.solve import SolveConfig
    from inftythink.reasoner import Reasoner

_SHOWN = 5
"""How many rejects and failures are told one by one; the files have all."""


async def solve_many(config: SolveConfig, reasoner: Reasoner, found: Problems) -> int:
    """Solve all problems; returns 1 when a trajectory FAILED, else 0.

    With a run folder the same command goes on where it was. Raises ``UsageError`` when the folder holds another run,
    ``InputError`` when there is no problem at all.
    """
    _tell_rejects(found.rejects)
    if not found.problems:
        raise InputError(f"--input {config.input}: there is no question in it")
    async with reasoner:
        config = started(config, reasoner)
        path = config.output
        if path is None and config.input is not None:
            path = Path("runs") / f"solve-{digest(config)}-{found.digest}"
        if path is None:
            return await _drive(config, reasoner, found, None)
        with RunFolder(path, config) as folder:
            _keep_problems(folder, found)
            try:
                return await _drive(config, reasoner, found, folder)
            except BaseException:
                done = sum((p.id, s) in folder.done for p in found.problems for s in range(config.samples))
                print(f"{done} of {len(found.problems) * config.samples} are done and kept in {path}", file=sys.stderr)
                raise


async def _drive(config: SolveConfig, reasoner: Reasoner, found: Problems, folder: RunFolder | None) -> int:
    tally, answers = Tally(), []
    keep_answers = config.input is None and not config.json

    def take(trajectory: Trajectory) -> None:
        tally.add(trajectory)
        if config.json:
            print(json.dumps(trajectory.to_json(), ensure_ascii=False), flush=True)
        elif keep_answers:
            answers.append(trajectory)

    wanted = {problem.id for problem in found.problems}
    for trajectory in folder.trajectories() if folder else ():
        if trajectory.problem.id in wanted and trajectory.sample < config.samples:
            take(trajectory)
    if folder and (tally.count or folder.resumed_calls):
        text = f"going on in {folder.path}: {tally.count} done before, {folder.resumed_calls} calls of others kept"
        print(text, file=sys.stderr)
    began = time.monotonic()
    before = tally.tokens
    with Meter(len(found.problems) * config.samples, tally.count) as meter:
        runs = reasoner.run(found.problems, config.samples, folder)
        async with aclosing(cast(Any, runs)) as trajectories:
            async for trajectory in trajectories:
                take(trajectory)
                meter.update(tally.count, tally.text())
    seconds = time.monotonic() - began
    metrics = tally.to_json() | {
        "rejected": len(found.rejects),
        "seconds": round(seconds, 3),
        "tokens_per_second": round((tally.tokens - before) / seconds, 1) if seconds else None,
    }
    if folder:
        write_whole(folder.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _report(config, tally, metrics, answers, folder)
    return 1 if tally.outcomes[Outcome.FAILED] else 0


@dataclass
class Tally:
    """Sums over trajectories, without keeping them."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    forced: int = 0
    rounds: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    peak_context: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many were added."""
        return self.outcomes.total()

    def add(self, trajectory: Trajectory) -> None:
        """Add one."""
        sums = trajectory.totals
        self.outcomes[trajectory.outcome] += 1
        self.rounds += sums["rounds"]
        self.tokens += sums["completion_tokens"]
        self.prompt_tokens += sums["prompt_tokens"]
        self.peak_context = max(self.peak_context, sums["peak_context"])
        answered = trajectory.outcome is Outcome.ANSWERED
        self.forced += answered and trajectory.rounds[-1].forced is Purpose.FORCED_ANSWER
        if trajectory.outcome is Outcome.FAILED and len(self.failures) < _SHOWN:
            self.failures.append(f"{trajectory.problem.id}: {trajectory.reason}")

    def text(self) -> str:
        """The counts of now, on a line."""
        counts = [f"{outcome.value} {number}" for outcome, number in self.outcomes.most_common()]
        return " · ".join([*counts, f"{self.tokens:,} tokens"])

    def to_json(self) -> dict[str, Any]:
        """The figures of ``metrics.json``."""
        return {
            "trajectories": self.count,
            "outcomes": {outcome.value: self.outcomes[outcome] for outcome in Outcome},
            "forced_answers": self.forced,
            "rounds": self.rounds,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "peak_context": self.peak_context,
        }


def _report(
    config: SolveConfig, tally: Tally, metrics: dict[str, Any], answers: list[Trajectory], folder: RunFolder | None
) -> None:
    """Print answers, the table of outcomes and the totals; on standard error where JSON has the output."""
    console = Console(stderr=config.json, highlight=False, soft_wrap=True)
    for trajectory in sorted(answers, key=lambda t: t.sample):
        text = trajectory.conclusion if trajectory.outcome is Outcome.ANSWERED else trajectory.reason
        console.print(
            f"== sample {trajectory.sample + 1}: {trajectory.outcome.value} ==", markup=False, style="bold cyan"
        )
        console.print(clean(text or ""), markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("outcome", "count", "share"):
        table.add_column(name, justify="left" if name == "outcome" else "right")
    for outcome in Outcome:
        count = tally.outcomes[outcome]
        if count:
            table.add_row(outcome.value, str(count), f"{count / tally.count:.1%}")
    table.add_row("all", str(tally.count), "")
    console.print()
    console.print(table)
    rate = metrics["tokens_per_second"]
    mean = tally.rounds / max(1, tally.count)
    line = f"{mean:.2f} rounds each · {tally.tokens:,} generated tokens · peak context {tally.peak_context:,}"
    console.print(f"{line} · {metrics['seconds']:.1f} s" + (f" · {rate:,.0f} tokens/s" if rate else ""))
    if tally.forced:
        console.print(f"{tally.forced} of the answers were forced by a limit")
    for failure in tally.failures:
        print(f"failed: {clean(failure)}", file=sys.stderr)
    if folder:
        console.print(f"result: {folder.path / 'trajectories.jsonl'}", markup=False)


def _tell_rejects(rejects: list[Reject]) -> None:
    for reject in rejects[:_SHOWN]:
        print(f"rejected: line {reject.line}: {reject.reason}: {clean(reject.detail)}", file=sys.stderr)
    if len(rejects) > _SHOWN:
        print(f"rejected: {len(rejects) - _SHOWN} lines more; rejects.jsonl in the run folder has all", file=sys.stderr)


def _keep_problems(folder: RunFolder, found: Problems) -> None:
    """Write what was asked into the run folder, rejects too."""
    write_json_lines(folder.path / "rejects.jsonl", (reject.to_json() for reject in found.rejects))
    folder.keep_problems({"id": p.id, "problem": p.question, "answer": p.answer} for p in found.problems)
