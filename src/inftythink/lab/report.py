"""The laboratory's report: tables, plots and CSV files, and one page that shows them.

FOLDER/report/index.html     the page: opens from disk, needs nothing else
FOLDER/report/results.csv    one line for each method, family and range of lengths, with 95% intervals
FOLDER/report/rounds.csv     accuracy against the rounds allowed
FOLDER/report/costs.csv      tokens, context and time of a problem against its depth
FOLDER/report/*.svg, *.png   the plots
"""

from __future__ import annotations

import csv
import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inftythink.lab.evaluate import Record, interval, read_records
from inftythink.lab.plan import WINDOW, Exam, Plan

BINS = ((0, 1), (1, 2), (2, 4), (4, 7), (7, 10), (10, 20), (20, 50))
"""Ranges of lengths in windows: more than the first, at most the second."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Right answers among problems of one kind, with the 95% Wilson interval of their share."""

    right: int
    number: int

    @property
    def share(self) -> float:
        """Accuracy in [0, 1]."""
        return self.right / self.number if self.number else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval."""
        return interval(self.right, self.number)

    def text(self) -> str:
        """The share and its interval in per cent."""
        low, high = self.bounds
        return f"{self.share:.1%} [{low:.1%}, {high:.1%}]"


@dataclass(frozen=True, slots=True)
class Results:
    """The records of all exams that are whole, by method."""

    by_method: dict[str, list[tuple[Exam, list[Record]]]]

    def records(self, method: str) -> list[Record]:
        """All records of a method, of all its models and spans."""
        return [record for _, rows in self.by_method.get(method, ()) for record in rows]


def load(plan: Plan, folder: Path) -> Results:
    """Read the records of a plan's exams."""
    found: dict[str, list[tuple[Exam, list[Record]]]] = defaultdict(list)
    for exam in plan.exams:
        path = folder / "exams" / f"{exam.name}.jsonl"
        if path.is_file():
            found[exam.method].append((exam, read_records(path)))
    return Results(dict(found))


def cell(rows: Iterable[Record]) -> Cell:
    """Count."""
    listed = list(rows)
    return Cell(sum(row.correct for row in listed), len(listed))


def table(results: Results) -> list[dict[str, Any]]:
    """Return a line for each method, span and family, and one for all families: with the range over the seeds."""
    lines = []
    for method, exams in results.by_method.items():
        spans = dict.fromkeys(exam.span for exam, _ in exams)
        for span in spans:
            mine = [rows for exam, rows in exams if exam.span == span]
            families = dict.fromkeys(row.family for rows in mine for row in rows)
            for family in (*families, "all") if len(families) > 1 else families:
                chosen = [[row for row in rows if family in ("all", row.family)] for rows in mine]
                whole, shares = cell(row for rows in chosen for row in rows), [cell(rows).share for rows in chosen]
                low, high = whole.bounds
                lines.append(
                    {
                        "method": method,
                        "family": family,
                        "windows": f"{span[0]:g}-{span[1]:g}",
                        "accuracy": round(whole.share, 4),
                        "low": round(low, 4),
                        "high": round(high, 4),
                        "right": whole.right,
                        "problems": whole.number,
                        "models": len(shares),
                        "worst_seed": round(min(shares), 4),
                        "best_seed": round(max(shares), 4),
                        "not_answered": sum(row.outcome != "answered" for rows in chosen for row in rows),
                    }
                )
    return lines


def by_length(rows: Iterable[Record]) -> dict[tuple[float, float], list[Record]]:
    """Return the records by their range of lengths; empty ranges are left out."""
    found: dict[tuple[float, float], list[Record]] = {}
    listed = list(rows)
    for low, high in BINS:
        inside = [row for row in listed if low < row.windows <= high]
        if inside:
            found[low, high] = inside
    return found


def by_rounds(rows: Sequence[Record]) -> dict[int, Cell]:
    """Return the accuracy if only so many rounds were allowed, from the same trajectories."""
    most = max((row.rounds for row in rows), default=0)
    steps = [r for r in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200) if r < most]
    return {r: Cell(sum(row.correct and row.rounds <= r for row in rows), len(rows)) for r in (*steps, most)}


def costs(rows: Iterable[Record]) -> list[dict[str, Any]]:
    """Return means by range of lengths: tokens, rounds, seconds; and the largest context of any round."""
    lines = []
    for (low, high), inside in by_length(rows).items():
        number = len(inside)
        lines.append(
            {
                "windows": f"{low:g}-{high:g}",
                "mean_windows": round(sum(row.windows for row in inside) / number, 2),
                "problems": number,
                "tokens": round(sum(row.tokens for row in inside) / number, 1),
                "rounds": round(sum(row.rounds for row in inside) / number, 1),
                "peak_context": max(row.peak_context for row in inside),
                "seconds": round(sum(row.seconds for row in inside) / number, 2),
            }
        )
    return lines


def write(plan: Plan, folder: Path) -> Path:
    """Write the report of a plan's results; return the page's path."""
    from inftythink.lab import plots

    results, out = load(plan, folder), folder / "report"
    out.mkdir(parents=True, exist_ok=True)
    lines = table(results)
    _write_csv(out / "results.csv", lines)
    curves = {method: by_rounds(results.records(method)) for method in results.by_method if _has_rounds(method)}
    _write_csv(
        out / "rounds.csv",
        [
            {
                "method": method,
                "rounds": r,
                "accuracy": round(one.share, 4),
                "low": one.bounds[0],
                "high": one.bounds[1],
            }
            for method, curve in curves.items()
            for r, one in curve.items()
        ],
    )
    spent = {method: costs(results.records(method)) for method in results.by_method if method in _COSTED}
    _write_csv(out / "costs.csv", [{"method": m, **line} for m, some in spent.items() for line in some])
    made = plots.draw(results, curves, spent, out)
    page = out / "index.html"
    page.write_text(_page(plan, folder, lines, spent, made), encoding="utf-8")
    return page


_COSTED = ("InftyThink", "vanilla", "tail (Delethink)")


def _has_rounds(method: str) -> bool:
    return method == "InftyThink" or method.startswith("eta ")


def _write_csv(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    if not lines:
        return
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:68rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .8rem;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}
.plot{background:#fff;border-radius:.5rem;margin:1rem 0;overflow-x:auto}.plot svg{max-width:100%;height:auto}
div.wide{overflow-x:auto}p.dim{opacity:.7}
"""


_HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    f"<title>InftyThink laboratory</title><style>{_STYLE}</style>"
)


def _page(
    plan: Plan, folder: Path, lines: list[dict[str, Any]], spent: dict[str, list[dict[str, Any]]], made: list[Any]
) -> str:
    shown = [
        {
            "method": line["method"],
            "family": line["family"],
            "windows": line["windows"],
            "accuracy": f"{line['accuracy']:.1%} [{line['low']:.1%}, {line['high']:.1%}]",
            "seeds": f"{line['worst_seed']:.1%} to {line['best_seed']:.1%}" if line["models"] > 1 else "one",
            "problems": line["problems"],
            "without an answer": line["not_answered"],
        }
        for line in lines
    ]
    body = [f"<h1>InftyThink laboratory: {html.escape(plan.name)}</h1>"]
    body.append(
        f"<p>Models of {_parameters(folder)} parameters with a window of {WINDOW} tokens, trained from random weights. "
        "All problems are held out: none stands in the training data, and the reasoning of each shows states that no "
        "training row shows. A problem's length is that of its reasoning as one chain, in windows. Brackets: 95% "
        "Wilson intervals; a problem without an answer counts as wrong.</p>"
    )
    body.append(f"<h2>Accuracy</h2>{_html_table(shown)}")
    for plot in made:
        svg = plot.path.with_suffix(".svg").read_text(encoding="utf-8")
        body.append(f"<h2>{html.escape(plot.title)}</h2><p>{html.escape(plot.about)}</p>")
        body.append(f"<div class=plot>{svg[svg.index('<svg') :]}</div>")
    costs_shown = [{"method": method, **line} for method, some in spent.items() for line in some]
    body.append(f"<h2>What a problem costs</h2>{_html_table(costs_shown)}")
    body.append("<p class=dim>The same figures: results.csv, rounds.csv, costs.csv beside this page.</p>")
    return _HEAD + "".join(body) + "</html>"


def _parameters(folder: Path) -> str:
    """Return the number of parameters of the models, from the weights' file of the first."""
    from safetensors import safe_open

    path = next(folder.glob("models/*/model/model.safetensors"))
    with safe_open(path, "numpy") as weights:
        total = 0
        for name in weights.keys():  # noqa: SIM118 - not a dict
            size = 1
            for side in weights.get_slice(name).get_shape():
                size *= side
            total += size
    return f"{total:,}"


def _html_table(lines: Sequence[dict[str, Any]]) -> str:
    if not lines:
        return "<p>nothing was measured</p>"
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in lines[0])
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in line.values()) + "</tr>" for line in lines
    )
    return f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>"
