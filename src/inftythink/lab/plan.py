"""What the laboratory trains and examines: a preset is a plan, a plan is data.

The experiments are those of the papers, at a scale at which a window is 128 tokens:

=============  ====================================================================================================
``main``       InftyThink against vanilla of the same size, window and training tokens, by the length of the trace
``rounds``     accuracy against the rounds allowed, for three values of eta
``stretched``  vanilla with its window stretched by RoPE scaling and trained on
``tail``       Delethink: the end of the thought is carried instead of a summary
``tampered``   the same model with empty, or shuffled, summaries
=============  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from inftythink.lab.data import Drawing
from inftythink.lab.evaluate import Setup, Tamper
from inftythink.lab.problems import Span

FAMILIES = ("collatz", "colouring", "automaton")
WINDOW, ETA, GAMMA = 128, 63, 22

Experiment = Literal["main", "rounds", "stretched", "tail", "tampered"]
STRETCH = 4
"""How many times longer the stretched window is."""

WITHIN: Span = (0, 1)
HEADLINE: Span = (2, 10)
DEEP: Span = (10, 50)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training rows: puzzles, converted with ``eta``. ``middle`` rounds are kept of a trace; None keeps all rows."""

    name: str
    drawings: tuple[Drawing, ...]
    eta: int = ETA
    middle: int | None = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model to train, from random weights or from the model ``start``, perhaps for a longer window.

    ``data`` are names of data sets, and how often the rows of each are used an epoch. Without any it is the model of
    that name that ships with the package.
    """

    name: str
    data: tuple[tuple[str, float], ...]
    steps: int
    carry: Literal["summary", "none", "tail"] = "summary"
    eta: int = ETA
    gamma: int = GAMMA
    window: int = WINDOW
    seed: int = 0
    start: str | None = None


@dataclass(frozen=True, slots=True)
class Exam:
    """Problems of some families and one span of lengths, solved by a model in one setup."""

    model: str
    families: tuple[str, ...]
    span: Span
    number: int
    setup: Setup
    method: str
    experiment: Experiment = "main"

    @property
    def name(self) -> str:
        """The name of its file of records."""
        tampered = f"-{self.setup.tamper}" if self.setup.tamper else ""
        return f"{self.model}{tampered}-{self.span[0]:g}-{self.span[1]:g}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a preset does."""

    name: str
    data: tuple[DataSet, ...]
    models: tuple[Model, ...]
    exams: tuple[Exam, ...]

    def only(self, experiments: Collection[Experiment]) -> Plan:
        """Return the part that some of the experiments need."""
        exams = tuple(exam for exam in self.exams if exam.experiment in experiments)
        needed = {exam.model for exam in exams}
        needed |= {model.start for model in self.models if model.name in needed and model.start}
        models = tuple(model for model in self.models if model.name in needed)
        names = {name for model in models for name, _ in model.data}
        return replace(self, data=tuple(data for data in self.data if data.name in names), models=models, exams=exams)


def plan(preset: str, seed: int = 0) -> Plan:
    """Return the plan of a preset.

    ``quick``: one family, both methods. ``full``: all experiments. ``model``: the models that ship, and their
    examination. ``shipped``: a small examination of the models that ship, without training.
    """
    return {"quick": _quick, "full": _full, "model": _model, "shipped": _shipped}[preset](seed)


def _setup(model: Model, span: Span) -> Setup:
    """Allow more rounds than the longest problem needs: a model that lost its way is stopped, not waited for."""
    rounds_a_window = 8  # with the smallest eta, 28 of 128 tokens, it is 5
    return Setup(model.carry, model.window, model.eta, model.gamma, phi=round(rounds_a_window * span[1]))


def _exams(
    model: Model, families: tuple[str, ...], counts: dict[Span, int], method: str, experiment: Experiment = "main"
) -> tuple[Exam, ...]:
    return tuple(
        Exam(model.name, families, span, number, _setup(model, span), method, experiment)
        for span, number in counts.items()
    )


def _long(name: str, families: tuple[str, ...], scale: float, seed: int, eta: int = ETA) -> DataSet:
    """Rounds. Counters need long traces; most are short, so that there are many first and last rounds.

    Reading a number from a question and telling the last one take the most examples of all.
    """
    parts = {
        "collatz": (("collatz", 14000, (4, 9)), ("collatz", 5000, (9, 40)), ("collatz", 3600, (40, 320))),
        "colouring": (("colouring", 3600, (2, 40)), ("colouring", 500, (40, 320))),
        "automaton": (("automaton", 2400, (2, 40)), ("automaton", 500, (40, 320))),
    }
    drawings = [Drawing(f, round(scale * n), lines) for family in families for f, n, lines in parts[family]]
    return DataSet(name, tuple(drawings), eta, seed=seed)


def _whole(name: str, families: tuple[str, ...], number: int, seed: int, high: dict[str, int]) -> DataSet:
    """Whole traces, none of which shows a held-out state."""
    drawings = [Drawing(family, number, (SHORTEST[family], high[family]), clean=True) for family in families]
    return DataSet(name, tuple(drawings), middle=None, seed=seed)


SHORTEST = {"collatz": 4, "colouring": 2, "automaton": 2}
"""Lines of the shortest reasoning."""

IN_WINDOW = {"collatz": 9, "colouring": 6, "automaton": 5}
"""Lines of the longest reasoning that fits into the window."""


def _quick(seed: int) -> Plan:
    families = ("automaton",)
    data = (_long("rounds", families, 1.0, seed), _whole("chains", families, 8000, seed, IN_WINDOW))
    ours = Model("inftythink", (("rounds", 1.0),), 3000, seed=seed)
    vanilla = Model("vanilla", (("chains", 1.0),), 3000, "none", seed=seed)
    counts = {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300}
    exams = (
        *_exams(ours, families, counts | {(10.0, 20.0): 60}, "InftyThink"),
        *_exams(vanilla, families, counts, "vanilla"),
        *_tampered(ours, families),
    )
    return Plan("quick", data, (ours, vanilla), exams)


def _tampered(model: Model, families: tuple[str, ...]) -> tuple[Exam, ...]:
    hows: tuple[Tamper, ...] = ("empty", "shuffled")
    setup = _setup(model, HEADLINE)
    return tuple(
        Exam(model.name, families, HEADLINE, 100, replace(setup, tamper=how), f"{how} summaries", "tampered")
        for how in hows
    )


def _model(seed: int) -> Plan:
    ours = Model("inftythink", (("rounds", 1.0),), STEPS, seed=seed)
    vanilla = Model("vanilla", (("chains", 1.0),), STEPS, "none", seed=seed)
    counts = {WITHIN: 300, HEADLINE: 300}
    exams = (
        *_exams(ours, FAMILIES, counts | {DEEP: 300}, "InftyThink"),
        *_exams(vanilla, FAMILIES, counts, "vanilla"),
    )
    return Plan("model", (_rounds(seed), _chains(seed)), (ours, vanilla), exams)


def _shipped(seed: int) -> Plan:
    ours, vanilla = Model("inftythink", (), 0, seed=seed), Model("vanilla", (), 0, "none", seed=seed)
    counts: dict[Span, int] = {WITHIN: 20, (1.0, 2.0): 20, HEADLINE: 20}
    exams = (*_exams(ours, FAMILIES, counts, "InftyThink"), *_exams(vanilla, FAMILIES, counts, "vanilla"))
    return Plan("shipped", (), (ours, vanilla), exams)


def _rounds(seed: int) -> DataSet:
    return _long("rounds", FAMILIES, 1.0, seed)


def _chains(seed: int) -> DataSet:
    return _whole("chains", FAMILIES, 12_000, seed, IN_WINDOW)


STEPS = 14_000
"""Steps of the models for all families, of 512 tokens each."""


def _full(seed: int) -> Plan:
    data = [_rounds(seed), _chains(seed)]
    models: list[Model] = []
    exams: list[Exam] = []
    for number in range(3):
        ours = Model(f"inftythink-{number}", (("rounds", 1.0),), STEPS, seed=seed + number)
        vanilla = Model(f"vanilla-{number}", (("chains", 1.0),), STEPS, "none", seed=seed + number)
        models += [ours, vanilla]
        deep = {DEEP: 300} if number == 0 else {}
        exams += _exams(ours, FAMILIES, {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300} | deep, "InftyThink")
        exams += _exams(vanilla, FAMILIES, {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300}, "vanilla")
    exams += _tampered(models[0], FAMILIES)
    # Delethink: a chunk, and what is carried of the one before, fill what the longest question leaves of the window.
    data.append(_whole("tails", FAMILIES, 5000, seed, dict.fromkeys(FAMILIES, 24)))
    tail = Model("tail", (("tails", 1.0),), STEPS, "tail", eta=100, seed=seed)
    fits = {"collatz": 38, "colouring": 26, "automaton": 20}
    data.append(_whole("long-chains", FAMILIES, 2000, seed, fits))
    stretched = Model(
        "stretched", (("long-chains", 1.0),), STEPS // 8, "none", window=STRETCH * WINDOW, seed=seed, start="vanilla-0"
    )
    models += [tail, stretched]
    exams += _exams(tail, FAMILIES, {HEADLINE: 100}, "tail (Delethink)", "tail")
    spans = {WITHIN: 100, (1.0, 2.0): 100, HEADLINE: 300}
    exams += _exams(stretched, FAMILIES, spans, f"vanilla, window x {STRETCH}", "stretched")
    for eta in (28, 63, 85):  # two lines of the Collatz family, five, and seven
        data.append(_long(f"rounds-{eta}", ("collatz",), 1.0, seed, eta))
        models.append(Model(f"eta-{eta}", ((f"rounds-{eta}", 1.0),), STEPS * 3 // 8, eta=eta, gamma=14, seed=seed))
        exams += _exams(models[-1], ("collatz",), {HEADLINE: 300}, f"eta {eta}", "rounds")
    return Plan("full", tuple(data), tuple(models), tuple(exams))
