"""Builds a report: run folders in, a page that opens from disk out.

    DIR/index.html       the page; it holds the figures and one compact row for each trajectory
    DIR/data/shard-*.js  the trajectories' text, loaded when one is opened (none when one shard holds all: it is inside)
    DIR/figures/         the figures as CSV, SVG and PNG

Trajectories are read one at a time; what is held is a shard's text and the rows that the metrics see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inftythink.errors import InputError
from inftythink.evals.rows import Row
from inftythink.report.figures import ALL, MEAN, NAMES, TRAINING, Examples, Record, figures, write_csv
from inftythink.report.page import page
from inftythink.report.read import Run, samples
from inftythink.report.shards import ShardWriter
from inftythink.report.training import Training, history, open_folders

_SHOWN_REJECTS = 20
"""How many lines that could not be read the page names, a run; it tells the number of all."""

_SETTINGS = (
    *("model", "task", "preset", "carry", "eta", "gamma", "max_rounds", "budget", "samples", "summarise_when"),
    *("on_cut", "on_limit", "temperature", "top_p", "top_k", "seed"),
)
"""The settings that the page shows of a run, where it has them."""


def build(
    runs: Sequence[Path], output: Path, tell: Callable[[str], None] = lambda line: None, plots: bool = True
) -> Path:
    """Write the report of run folders into ``output``; return the page.

    Args:
        runs: the folders: of evaluations, of ``inftythink solve --input``, of ``inftythink rl``.
        output: a folder of its own; an older report in it is replaced.
        tell: called with a line on what was read and what was rejected.
        plots: draw SVG and PNG files too, which needs matplotlib.

    Raises:
        UsageError, InputError: a folder was given twice, is no run, or holds no trajectory that can be read.
        MissingDependencyError: ``plots`` without matplotlib.
    """
    from inftythink.report.plots import draw, need_matplotlib

    if plots:
        need_matplotlib()
    opened, trainings = open_folders(runs)
    found = output / "index.html"
    found.unlink(missing_ok=True)  # a page without its shards is no report
    writer, examples = ShardWriter(output / "data"), Examples()
    rows, about = [], []
    for number, run in enumerate(opened):
        mine, rejects = _read(number, run, writer, examples)
        rows.append(mine)
        about.append(_about(run, mine, rejects))
        for line in rejects:
            tell(f"rejected: {run.path}/trajectories.jsonl:{line}")
        tell(f"{run.label}: {len(mine):,} trajectories read, {len(rejects):,} lines rejected")
    if not writer.count:
        raise InputError("no trajectory could be read: there is nothing to report")
    shard = writer.close()
    records = figures(opened, rows, examples) | _curves(trainings, tell)
    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / f"{name}.{ending}" for name in (*NAMES, *TRAINING) for ending in ("csv", "svg", "png")):
        old.unlink(missing_ok=True)
    write_csv(records, folder)
    if plots:
        draw(records, folder)
    names = {"all": ALL, "mean": MEAN}
    places = {run.label: number for number, run in enumerate(opened)}
    compared = [{"label": each.label, "runs": [places[run.label] for run in each.runs]} for each in trainings]
    data = {"runs": about, "figures": records, "names": names, "index": writer.index(), "drawn": plots}
    data |= {"trainings": compared}
    found.write_text(page(data, shard), encoding="utf-8")
    return found


def _read(number: int, run: Run, writer: ShardWriter, examples: Examples) -> tuple[list[Row], list[str]]:
    """Hand a run's trajectories on; return its rows, and what could not be read."""
    rows: list[Row] = []
    rejects: list[str] = []
    for trajectory, row in samples(run, lambda at, why: rejects.append(f"{at}: {why}")):
        rows.append(row)
        writer.add(number, trajectory, row)
        examples.add(run, trajectory, row)
    return rows, rejects


def _curves(trainings: Sequence[Training], tell: Callable[[str], None]) -> dict[str, list[Record]]:
    """Return the records of the figures in ``TRAINING``; none where nothing was trained."""
    if not trainings:
        return {}
    found: dict[str, list[Record]] = {name: [] for name in TRAINING}
    for training in trainings:
        rejects: list[str] = []
        steps, examinations = history(training, rejects.append)
        found["training"] += steps
        found["examinations"] += examinations
        for line in rejects:
            tell(f"rejected: {training.path}/{line}")
        tell(f"{training.label}: {len(steps):,} steps and {len(examinations):,} examinations read")
    return found


def _about(run: Run, rows: Sequence[Row], rejects: Sequence[str]) -> dict[str, Any]:
    """Return what the page tells of a run."""
    given = ((name, run.settings.get(name)) for name in _SETTINGS)
    return {
        "label": run.label,
        "settings": [[name, _text(value)] for name, value in given if value is not None],
        "trajectories": len(rows),
        "rejected": len(rejects),
        "rejects": list(rejects[:_SHOWN_REJECTS]),
    }


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
