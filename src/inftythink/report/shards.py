"""Trajectories as the page reads them: one compact row each in the index, the text in shards that load on demand.

A shard is a script of one call, ``inftythink_shard(NUMBER, [ENTRY, …])``: a page that was opened from disk may load
scripts, and nothing else. What a model wrote stands in it as JSON in ASCII, with ``<``, ``>`` and ``&`` escaped too, so
that no text can end a string, a line or a script element, wherever it is put.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inftythink.evals.rows import Row
from inftythink.protocol import Outcome, Problem, Round, Trajectory

SHARD_ROWS = 200
"""Most trajectories in a shard."""
SHARD_BYTES = 1 << 20
"""A shard is closed when it is over this: one long trajectory more, at most."""
QUESTION = 2_000
"""Characters of a question that the index holds, which are those a search looks at."""
ANSWER = 80
"""Characters of an answer in the index."""

Curve = tuple[tuple[int, int], ...]
"""Corners of a context's length over the tokens generated."""

OUTCOMES = tuple(outcome.value for outcome in Outcome)


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element and as JavaScript source, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class ShardWriter:
    """Takes trajectories one by one; holds the text of one shard, and of each trajectory its row in the index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for old in folder.glob("shard-*.js"):
            old.unlink()
        self._entries: list[str] = []
        self._bytes = 0
        self._firsts: list[int] = []
        self._tasks: dict[str, int] = {}
        self._problems: dict[tuple[str, str], int] = {}
        self._problem_rows: dict[str, list[Any]] = {"task": [], "id": [], "group": [], "question": []}
        names = ("run", "problem", "sample", "outcome", "correct", "rounds", "tokens", "peak", "seconds", "answer")
        self._columns: dict[str, list[Any]] = {name: [] for name in names}
        self.count = 0

    def add(self, run: int, trajectory: Trajectory, row: Row) -> None:
        """Take a trajectory of the run with this number."""
        if not self._entries:
            self._firsts.append(self.count)
        entry = script_json(entry_of(trajectory, row))
        self._entries.append(entry)
        self._bytes += len(entry)
        self._add_row(run, trajectory, row)
        self.count += 1
        if len(self._entries) >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
            self._write()

    def close(self) -> str | None:
        """Write the last shard. A sole one is returned instead, as JSON, for the page to hold: then it is one file."""
        if len(self._firsts) == 1 and self._entries:
            return f"[{self._body()}]"
        if self._entries:
            self._write()
        return None

    def index(self) -> dict[str, Any]:
        """Return the index: a table of problems, columns of trajectories, and the first trajectory of each shard."""
        return {
            "outcomes": OUTCOMES,
            "tasks": list(self._tasks),
            "problems": self._problem_rows,
            "trajectories": self._columns,
            "shards": self._firsts,
        }

    def _add_row(self, run: int, trajectory: Trajectory, row: Row) -> None:
        values = (
            run,
            self._problem(row, trajectory.problem),
            row.sample,
            OUTCOMES.index(row.outcome),
            None if row.correct is None else int(row.correct),
            len(row.rounds),
            row.tokens,
            row.peak_context,
            round(row.seconds, 3),
            (row.extracted or "")[:ANSWER],
        )
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)

    def _problem(self, row: Row, problem: Problem) -> int:
        """Return the number of a problem; runs that asked the same one share it."""
        question = problem.question[:QUESTION]
        known = self._problems.get((problem.id, question))
        if known is not None:
            return known
        number = self._problems[problem.id, question] = len(self._problems)
        task = self._tasks.setdefault(row.task, len(self._tasks))
        for column, value in zip(self._problem_rows.values(), (task, problem.id, row.group, question), strict=True):
            column.append(value)
        return number

    def _write(self) -> None:
        number = len(self._firsts) - 1
        self.folder.mkdir(parents=True, exist_ok=True)
        script = f"inftythink_shard({number},[{self._body()}])\n"
        (self.folder / f"shard-{number:04d}.js").write_text(script, encoding="ascii")
        self._entries, self._bytes = [], 0

    def _body(self) -> str:
        return ",\n".join(self._entries)


def entry_of(trajectory: Trajectory, row: Row) -> dict[str, Any]:
    """Return a trajectory as a shard holds it; every key is ours, every text a value."""
    return {
        "question": trajectory.problem.question,
        "context": [list(turn) for turn in trajectory.problem.context],
        "gold": trajectory.problem.answer,
        "conclusion": trajectory.conclusion,
        "ended": trajectory.reason,
        "extracted": row.extracted,
        "why": row.reason,
        "curve": context_curve(trajectory),
        "rounds": [_round(this) for this in trajectory.rounds],
    }


def context_curve(trajectory: Trajectory) -> Curve:
    """Return the context's length over the tokens generated: two corners for each call of the model."""
    corners: list[tuple[int, int]] = []
    generated = 0
    for call in (call for this in trajectory.rounds for call in this.calls):
        corners.append((generated, call.prompt_tokens))
        generated += call.completion_tokens
        corners.append((generated, call.prompt_tokens + call.completion_tokens))
    return tuple(corners)


def _round(this: Round) -> dict[str, Any]:
    return {
        "k": this.k,
        "thought": this.thought,
        "summary": this.summary,
        "raw": this.raw,
        "stop": this.stop.value,
        "forced": this.forced.value if this.forced else None,
        "prompt": this.prompt_tokens,
        "tokens": this.completion_tokens,
        "cached": this.cached_tokens,
        "seconds": round(this.seconds, 3),
        "peak": this.peak_context,
    }
