"""The report's figures as SVG and PNG files, drawn from the same records as the page's; a panel for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inftythink.errors import missing
from inftythink.protocol import Outcome
from inftythink.report.figures import MEAN, NAMES, TRAINING, Record

COLOURS = ("#0067a8", "#c44e00", "#00805f", "#a3478a", "#9a6b00", "#2b8cbe", "#5c646e")
"""Of runs, in their order: the page's, told apart with any kind of colour vision."""
_DASHES = ("-", "--", ":", "-.", (0, (8, 3)), (0, (3, 2)), (0, (1, 2)))
_MARKS = "osD^"
_OUTCOMES = {
    Outcome.ANSWERED: "#3f86b8",
    Outcome.ROUND_LIMIT: "#e0a83a",
    Outcome.TOKEN_LIMIT: "#b8860f",
    Outcome.TRUNCATED: "#b477a6",
    Outcome.MALFORMED: "#7b828c",
    Outcome.FAILED: "#c0392b",
}
_PANEL = (4.6, 3.3)
"""Inches of a panel."""
_COLUMNS = 3
_LABEL = 40
"""Most characters of a name in a figure."""
_MOST_MARKS = 40
"""A line of more points has no marks on them."""
QUANTITIES = {
    "reward": ("Reward", "mean reward"),
    "accuracy": ("Accuracy", "% of trajectories"),
    "rounds": ("Rounds", "rounds a trajectory"),
    "tokens": ("Tokens", "generated tokens a trajectory"),
    "masked": ("Masked", "% of tokens"),
    "entropy": ("Entropy", "nats a token"),
} | {f"share_{each.value}": (each.value.replace("_", " ").capitalize(), "% of trajectories") for each in Outcome}
"""What is drawn of a training's steps and examinations: title and unit."""
_ALWAYS = ("reward", "accuracy", "rounds", "tokens", "entropy")
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e0",
    "legend.frameon": False,
    "svg.hashsalt": "inftythink",
    "svg.fonttype": "none",
    "text.parse_math": False,
}

Draw = Callable[[Any, list[Record], Mapping[str, int]], None]


def need_matplotlib() -> None:
    """Raise ``MissingDependencyError`` without matplotlib."""
    if find_spec("matplotlib") is None:
        raise missing("matplotlib", "report")


def draw(found: Mapping[str, Sequence[Record]], folder: Path) -> None:
    """Draw each figure that has records as ``NAME.svg`` and ``NAME.png``."""
    import matplotlib

    matplotlib.use("Agg")
    runs = {run: number for number, run in enumerate(dict.fromkeys(record["run"] for record in found["results"]))}
    with matplotlib.rc_context(_STYLE):
        for name in NAMES:
            if name in _DRAWN and found[name]:
                by, fill = _DRAWN[name]
                _figure(folder / name, _by(found[name], by), fill, runs)
        curves = {name: found.get(name, ()) for name in TRAINING}
        trainings = dict.fromkeys(record["run"] for records in curves.values() for record in records)
        for name, records in curves.items():
            if panels := _panels(records):
                _figure(folder / name, panels, _steps, {run: number for number, run in enumerate(trainings)})


def _figure(path: Path, panels: Mapping[str, list[Record]], fill: Draw, runs: Mapping[str, int]) -> None:
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * lines), layout="constrained")
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for place, (title, records) in zip(places, panels.items(), strict=False):
        fill(place, records, runs)
        place.set_title(_clean(title))
    for place in places[len(panels) :]:
        place.set_visible(False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for both files
    for ending in ("svg", "png"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=150, metadata={"Date": None} if ending == "svg" else None)


def _by(records: Iterable[Record], column: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.get("task") != MEAN:
            found.setdefault(str(record[column]), []).append(record)
    return found


def _clean(text: str) -> str:
    """Return a text for a figure: short, and without what a font has no sign for."""
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
    return shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…"


def _legend(axes: Any, **options: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, **options)


def _look(number: int) -> dict[str, Any]:
    """Return how the line of a run looks."""
    colour = COLOURS[number % len(COLOURS)]
    mark = _MARKS[number % len(_MARKS)]
    return {"color": colour, "linestyle": _DASHES[number % len(_DASHES)], "marker": mark, "markersize": 4}


def _lines(x: str, label: str, log: bool) -> Draw:
    """Return what draws accuracy over ``x``, a line and the band of its interval for each run."""

    def fill(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
        for run, mine in _by(records, "run").items():
            told = [record for record in mine if record["accuracy"] is not None]
            if not told:
                continue
            look, at = _look(runs[run]), [record[x] for record in told]
            axes.plot(at, [100 * record["accuracy"] for record in told], label=_clean(run), **look)
            low, high = ([100 * record[end] for record in told] for end in ("low", "high"))
            axes.fill_between(at, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.set(xlabel=label, ylabel="accuracy, %", ylim=(-2, 102))
        if log and axes.lines:
            axes.set_xscale("log", base=2)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes)

    return fill


def _outcomes(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    names = [_clean(record["run"]) for record in records]
    left = [0.0] * len(records)
    for outcome, colour in _OUTCOMES.items():
        shares = [100 * record[outcome.value] / record["trajectories"] for record in records]
        label = outcome.value if any(shares) else None
        axes.barh(names, shares, left=left, color=colour, label=label, height=0.6)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="trajectories, %", xlim=(0, 100))
    _legend(axes, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _rounds(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    by_run = _by(records, "run")
    width = 0.8 / len(by_run)
    for place, (run, mine) in enumerate(by_run.items()):
        at = [record["rounds"] + (place - (len(by_run) - 1) / 2) * width for record in mine]
        counts = [record["trajectories"] for record in mine]
        axes.bar(at, counts, width, color=_look(runs[run])["color"], label=_clean(run))
    axes.set(xlabel="rounds used", ylabel="trajectories")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)


def _context(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    for curve, mine in _by(records, "curve").items():
        at, y = [record["tokens"] for record in mine], [record["context"] for record in mine]
        if curve == "as one chain":
            axes.plot(at, y, color="#8a9099", linestyle=":", label="the same tokens as one chain")
        else:
            own = curve == "in rounds"
            look = _look(runs[mine[0]["run"] if own else curve]) | {"marker": None, "linestyle": "-"}
            axes.plot(at, y, label=_clean(mine[0]["id"] if own else curve), **look)
    axes.set(xlabel="tokens generated", ylabel="context, tokens", ylim=(0, None))
    _legend(axes)


def _etas(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    for number, (series, mine) in enumerate(_by(records, "series").items()):
        told = [record for record in mine if record["accuracy"] is not None]
        y = [100 * record["accuracy"] for record in told]
        ends = ([100 * record["low"] for record in told], [100 * record["high"] for record in told])
        error = [[max(0.0, v - low) for v, low in zip(y, ends[0], strict=True)]]
        error += [[max(0.0, high - v) for v, high in zip(y, ends[1], strict=True)]]
        at = [record["eta"] for record in told]
        axes.errorbar(at, y, error, label=_clean(series), capsize=2, **_look(number))
    axes.set(xlabel="eta, tokens", ylabel="accuracy, %")
    _legend(axes)


def _cost(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    for record in records:
        if record["accuracy"] is not None and record["latency"] is not None:
            look = _look(runs[record["run"]]) | {"linestyle": "none", "markersize": 7}
            axes.plot([record["latency"]], [100 * record["accuracy"]], label=_clean(record["run"]), **look)
    axes.set(xlabel="mean latency of a trajectory, s", ylabel="accuracy, %", xlim=(0, None), ylim=(-2, 102))
    _legend(axes)


def _panels(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return what was told of the steps, a panel for each of ``QUANTITIES``; of shares those that are not always 0."""
    found: dict[str, list[Record]] = {}
    for quantity, (title, unit) in QUANTITIES.items():
        told = [record for record in records if record.get(quantity) is not None]
        if told and (quantity in _ALWAYS or any(record[quantity] for record in told)):
            scale = 100 if unit.startswith("%") else 1
            found[title] = [
                {"run": record["run"], "step": record["step"], "value": scale * record[quantity], "unit": unit}
                for record in told
            ]
    return found


def _steps(axes: Any, records: list[Record], runs: Mapping[str, int]) -> None:
    for run, mine in _by(records, "run").items():
        look = _look(runs[run]) | ({"marker": None} if len(mine) > _MOST_MARKS else {})
        axes.plot([record["step"] for record in mine], [record["value"] for record in mine], label=_clean(run), **look)
    unit, least = records[0]["unit"], min(record["value"] for record in records)
    axes.set(xlabel="step", ylabel=unit, ylim=(-2, 102) if unit.startswith("%") else (min(0, least), None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)


_DRAWN: dict[str, tuple[str, Draw]] = {
    "outcomes": ("task", _outcomes),
    "accuracy_by_rounds": ("task", _lines("rounds", "rounds allowed", log=False)),
    "accuracy_by_tokens": ("task", _lines("tokens", "tokens allowed in all", log=True)),
    "context": ("run", _context),
    "rounds": ("task", _rounds),
    "eta": ("task", _etas),
    "cost": ("task", _cost),
}
"""Figure -> the column whose values are its panels, and what draws one. The results are a table: CSV only."""
