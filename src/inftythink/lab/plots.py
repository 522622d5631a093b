"""The laboratory's plots, each as SVG (for the page) and PNG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inftythink.errors import missing
from inftythink.lab.plan import HEADLINE, WINDOW

if TYPE_CHECKING:
    from inftythink.lab.report import Cell, Results

_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555", "#16a085", "#7f8c8d")


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot on disk; ``path`` is without an ending."""

    path: Path
    title: str
    about: str


def draw(
    results: Results, curves: dict[str, dict[int, Cell]], spent: dict[str, list[dict[str, Any]]], out: Path
) -> list[Plot]:
    """Draw what there are results for. Raises ``MissingDependencyError`` without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise missing("matplotlib", "lab") from error
    matplotlib.use("Agg")
    made = [_by_length(results, out)]
    etas = {name: curve for name, curve in curves.items() if name.startswith("eta ")}
    shown = etas or {"InftyThink": curves.get("InftyThink", {})}
    if any(shown.values()):
        made.append(_by_rounds(shown, out))
    if any(spent.values()):
        made.append(_costs(spent, out))
    return made


def _figure(out: Path, name: str, wide: bool, fill: Callable[[Any], None]) -> Path:
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "x"})
    figure, axes = pyplot.subplots(1, 3 if wide else 1, figsize=(11, 3.4) if wide else (7.5, 4.2))
    fill(axes)
    figure.tight_layout()
    for ending in ("svg", "png"):
        figure.savefig(out / f"{name}.{ending}", dpi=140, metadata={"Date": None} if ending == "svg" else None)
    pyplot.close(figure)
    return out / name


def _by_length(results: Results, out: Path) -> Plot:
    from inftythink.lab.report import by_length, cell

    def fill(axes: Any) -> None:
        names = [name for name in results.by_method if not name.startswith("eta ")]
        for colour, name in zip(_COLOURS, names, strict=False):
            groups = by_length(results.records(name))
            cells = [cell(rows) for rows in groups.values()]
            x = [sum(row.windows for row in rows) / len(rows) for rows in groups.values()]
            y = [100 * one.share for one in cells]
            error = [
                [max(0.0, 100 * (one.share - one.bounds[0])) for one in cells],
                [max(0.0, 100 * (one.bounds[1] - one.share)) for one in cells],
            ]
            style = "o-" if name in ("InftyThink", "vanilla") else "s--"
            axes.errorbar(x, y, error, fmt=style, color=colour, label=name, capsize=2, linewidth=1.6, markersize=4)
        axes.axvline(1, color="#999", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel=f"length of the reasoning, in windows of {WINDOW} tokens", ylabel="accuracy, %")
        axes.set_ylim(-3, 103)
        axes.set_xticks([0.5, 1, 2, 5, 10, 20, 40], ["0.5", "1", "2", "5", "10", "20", "40"])
        axes.legend(frameon=False, fontsize=9)

    about = "All families together. The dotted line is the window: one chain cannot be longer."
    return Plot(_figure(out, "accuracy_by_length", False, fill), "Accuracy by the length of the reasoning", about)


def _by_rounds(curves: dict[str, dict[int, Cell]], out: Path) -> Plot:
    def fill(axes: Any) -> None:
        for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
            x, y = list(curve), [100 * one.share for one in curve.values()]
            axes.plot(x, y, "o-", color=colour, label=name, markersize=4)
            low, high = zip(*(one.bounds for one in curve.values()), strict=True)
            axes.fill_between(x, [100 * v for v in low], [100 * v for v in high], color=colour, alpha=0.15, linewidth=0)
        axes.set(xscale="log", xlabel="rounds allowed", ylabel="accuracy, %")
        axes.set_ylim(-3, 103)
        axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axes.legend(frameon=False)

    about = (
        f"Problems of {HEADLINE[0]:g} to {HEADLINE[1]:g} windows. "
        "From the same trajectories: what needed more rounds counts as wrong."
    )
    return Plot(_figure(out, "accuracy_by_rounds", False, fill), "Accuracy against the rounds allowed", about)


def _costs(spent: dict[str, list[dict[str, Any]]], out: Path) -> Plot:
    def fill(axes: Any) -> None:
        for place, key, label in (
            (0, "tokens", "tokens generated"),
            (1, "peak_context", "largest context of a round, tokens"),
            (2, "seconds", "seconds a problem (in a full batch)"),
        ):
            for colour, (name, lines) in zip(_COLOURS, spent.items(), strict=False):
                axes[place].plot(
                    [line["mean_windows"] for line in lines],
                    [line[key] for line in lines],
                    "o-",
                    color=colour,
                    label=name,
                    markersize=4,
                )
            axes[place].set(xlabel="length, windows", ylabel=label)
            axes[place].set_ylim(bottom=0)
        axes[1].axhline(WINDOW, color="#999", linewidth=0.8, linestyle=":")
        axes[0].legend(frameon=False, fontsize=9)

    about = (
        "Tokens and time grow in step with depth, the context of a round does not. "
        "Vanilla stops at its window, whatever the problem."
    )
    return Plot(_figure(out, "costs", True, fill), "Tokens, context and time against depth", about)
