"""The report's figures as plain records: what the page draws, the plots draw and the CSV files hold is the same list.

Every figure comes from ``evals.metrics.summary``; nothing is computed here but which run a number belongs to.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inftythink.evals.metrics import by_budget, summary
from inftythink.evals.rows import Row
from inftythink.protocol import Trajectory
from inftythink.report.read import Run
from inftythink.report.shards import Curve, context_curve

Record = dict[str, Any]

ALL = "all tasks"
"""The task of a record over the problems of all tasks, where there are several."""

MEAN = "mean of tasks"
"""The task of a record that is the plain mean over tasks, as papers average benchmarks."""

SHOWN_ROUNDS = 8
"""An example of the context's sawtooth has at most so many rounds, so that its teeth can be seen."""

NAMES = ("results", "outcomes", "accuracy_by_rounds", "accuracy_by_tokens", "context", "rounds", "eta", "cost")
"""The figures of runs."""

TRAINING = ("training", "examinations")
"""The figures of trainings: a record for each step, and for each examination."""


@dataclass(frozen=True, slots=True)
class Example:
    """A context's length over the tokens generated, of a trajectory; ``name`` is the curve's in the figure."""

    id: str
    sample: int
    curve: Curve
    name: str


class Examples:
    """Picks from each run in rounds one trajectory whose context is drawn, and from vanilla runs its like."""

    def __init__(self) -> None:
        self._best: dict[str, tuple[tuple[bool, int], Example]] = {}
        self._chains: dict[str, Example] = {}

    def add(self, run: Run, trajectory: Trajectory, row: Row) -> None:
        """Look at one trajectory: the first that is right with the most rounds, up to ``SHOWN_ROUNDS``, is kept."""
        curve, name = context_curve(trajectory), trajectory.problem.id
        if not curve:
            return
        if not run.joins_rounds:
            self._chains.setdefault(name, Example(name, trajectory.sample, curve, run.label))
            return
        score = (row.correct is True, len(row.rounds))
        best = self._best.get(run.label)
        if 1 < len(row.rounds) <= SHOWN_ROUNDS and (best is None or score > best[0]):
            self._best[run.label] = score, Example(name, trajectory.sample, curve, "in rounds")

    def records(self) -> list[Record]:
        """Return the corners of each curve: of the trajectory, of a chain as long, and of a vanilla run's own."""
        found: list[Record] = []
        for label, (_, best) in self._best.items():
            ramp = replace(best, curve=as_one_chain(best.curve), name="as one chain")
            chain = self._chains.get(best.id)
            for one in (best, ramp, chain) if chain else (best, ramp):
                about: Record = {"run": label, "id": one.id, "sample": one.sample, "curve": one.name}
                found += [about | {"tokens": tokens, "context": context} for tokens, context in one.curve]
        return found


def as_one_chain(curve: Curve) -> Curve:
    """Return the ramp of a chain that generates as many tokens behind the same question."""
    (_, question), (generated, _) = curve[0], curve[-1]
    return (0, question), (generated, question + generated)


def figures(runs: Sequence[Run], rows: Sequence[Sequence[Row]], examples: Examples) -> dict[str, list[Record]]:
    """Return the records of each figure in ``NAMES``; ``rows`` are those of each run."""
    found: dict[str, list[Record]] = {name: [] for name in NAMES}
    several = len({row.task for mine in rows for row in mine}) > 1
    budgets = _budgets(max((row.tokens for mine in rows for row in mine), default=0))
    for run, mine in zip(runs, rows, strict=True):
        whole = summary(mine)
        blocks = whole["tasks"] | ({ALL: whole["all"]} if several else {})
        costs = _costs_on_record(run, blocks)
        for task, block in blocks.items():
            name = {"run": run.label, "task": task}
            _add(found, name, block, costs.get(task, {}))
            inside = by_budget([row for row in mine if task in (row.task, ALL)], budgets)
            found["accuracy_by_tokens"] += [
                name | {"tokens": budget} | _estimate(estimate.to_json()) for budget, estimate in inside.items()
            ]
        if several:
            found["results"].append({"run": run.label, "task": MEAN, "accuracy": whole["mean_of_tasks"]})
    found["context"] = examples.records()
    found["eta"] = _etas(runs, found["results"])
    return found


def write_csv(found: Mapping[str, Sequence[Record]], folder: Path) -> None:
    """Write each figure that has records as ``NAME.csv``."""
    for name, records in found.items():
        if not records:
            continue
        columns = dict.fromkeys(column for record in records for column in record)
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as out:
            writer = csv.DictWriter(out, list(columns))
            writer.writerow({column: _cell(column) for column in columns})
            writer.writerows({column: _cell(value) for column, value in record.items()} for record in records)


def _cell(value: Any) -> Any:
    """Return a CSV cell; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _add(found: dict[str, list[Record]], name: Record, block: Record, cost: Record) -> None:
    """Add the records of one run and task."""
    usage, accuracy = block["usage"], _estimate(block["accuracy"])
    took = {
        "tokens": usage["tokens"]["mean"],
        "rounds": usage["rounds"]["mean"],
        "latency": usage["latency"]["mean"],
    }
    spent = {
        "tokens_p95": usage["tokens"]["p95"],
        "peak_context": usage["peak_context"]["max"],
        "latency_p50": usage["latency"]["p50"],
        "latency_p95": usage["latency"]["p95"],
        "tokens_per_second": usage["tokens_per_second"],
        "compression": usage["compression"],
        "attention_flops": cost.get("attention_flops"),
        "linear_flops": cost.get("linear_flops"),
        "kv_bytes": cost.get("kv_bytes_max"),
    }
    ends = block["outcomes"]
    found["results"].append(name | accuracy | took)
    found["cost"].append(name | accuracy | took | spent)
    found["outcomes"].append(name | ends | {"trajectories": sum(ends.values()), "not_graded": accuracy["failed"]})
    for r, estimate in block["by_rounds"].items():
        found["accuracy_by_rounds"].append(name | {"rounds": int(r)} | _estimate(estimate))
    for r, count in usage["rounds"]["rows"].items():
        found["rounds"].append(name | {"rounds": int(r), "trajectories": count})


def _budgets(most: int) -> list[int]:
    """Return the budgets of the curves: the powers of two and what lies between, from a 64th of the ``most`` used."""
    steps = (size for power in range(most.bit_length() + 1) for size in (2**power, 3 * 2**power // 2))
    inside = sorted({size for size in steps if most / 64 <= size < most})
    return [*inside, next(size for size in (2**power for power in range(64)) if size >= most)]


def _estimate(data: Record) -> Record:
    """Return an estimate's JSON as a record has it."""
    names = ("low", "high", "problems", "samples", "failed")
    return {"accuracy": data["value"]} | {name: data[name] for name in names}


def _etas(runs: Sequence[Run], results: Sequence[Record]) -> list[Record]:
    """Return accuracy and cost over eta: a series for each model and carry that was run with several."""
    series: dict[str, dict[str, int]] = {}
    for run in runs:
        if run.joins_rounds and run.eta is not None:
            name = " · ".join(str(run.settings[key]) for key in ("model", "carry") if run.settings.get(key))
            series.setdefault(name or "runs", {})[run.label] = run.eta
    found = [
        {"series": name, "eta": etas[record["run"]]} | record
        for name, etas in series.items()
        if len(set(etas.values())) > 1
        for record in results
        if record["run"] in etas and record["task"] != MEAN
    ]
    return sorted(found, key=lambda record: (record["series"], record["task"], record["eta"]))


def _costs_on_record(run: Run, blocks: Record) -> dict[str, Record]:
    """Return what ``metrics.json`` tells of the model's work, by task, where it was written for these trajectories.

    Only the evaluation knows the model's architecture; the report does not look for models.
    """
    try:
        told = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
        usages = {task: block["usage"] for task, block in (told["tasks"] | {ALL: told["all"]}).items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    fitting = {task: usages[task] for task, block in blocks.items() if _same_tokens(usages.get(task), block["usage"])}
    return {task: usage["cost"] for task, usage in fitting.items() if "cost" in usage}


def _same_tokens(told: Record | None, mine: Record) -> bool:
    return told is not None and told.get("tokens") == mine["tokens"]
