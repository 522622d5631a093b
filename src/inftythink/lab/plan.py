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

from dataclasses import dataclass, replace
from typing import Literal

from inftythink.lab.data import Drawing
from inftythink.lab.evaluate import Setup
from inftythink.lab.problems import Span

FAMILIES = ("collatz", "colouring", "automaton")
WINDOW, ETA, GAMMA = 128, 63, 22
STRETCH = 4
"""How many times longer the stretched window is."""

WITHIN: Span = (0, 1)
HEADLINE: Span = (2, 10)
DEEP: Span = (10, 50)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training rows: puzzles, converted with ``eta``. ``middle`` rounds are kept of a trace; None keeps all rows."""

    name: str
    drawing: Drawing
    eta: int = ETA
    middle: int | None = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A model to train, on one data set, from random weights or from another model whose window is ``stretch`` ed."""

    name: str
    data: str
    steps: int
    carry: Literal["summary", "none", "tail"] = "summary"
    eta: int = ETA
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


def plan(preset: str, seed: int = 0) -> Plan:
    """Return the plan of a preset: ``quick``, ``full`` or ``model`` (the model that ships, and its examination)."""
    return {"quick": _quick, "full": _full, "model": _model}[preset](seed)


def _setup(model: Model) -> Setup:
    return Setup(model.carry, model.window, model.eta, GAMMA)


def _exams(model: Model, families: tuple[str, ...], counts: dict[Span, int], method: str) -> tuple[Exam, ...]:
    return tuple(Exam(model.name, families, span, number, _setup(model), method) for span, number in counts.items())


def _long(name: str, families: tuple[str, ...], number: int, seed: int, eta: int = ETA) -> DataSet:
    return DataSet(name, Drawing(families, number, seed=seed), eta)


def _short(name: str, families: tuple[str, ...], number: int, seed: int, high: int = 7) -> DataSet:
    """Whole traces for vanilla: as long as the window takes, and none that shows a held-out state."""
    return DataSet(name, Drawing(families, number, (2, high), share=0.0, clean=True, seed=seed), middle=None)


def _quick(seed: int) -> Plan:
    families = ("automaton",)
    data = (_long("rounds", families, 4000, seed), _short("chains", families, 12000, seed))
    ours = Model("inftythink", "rounds", 2500, seed=seed)
    vanilla = Model("vanilla", "chains", 2500, "none", seed=seed)
    counts = {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300}
    exams = (
        *_exams(ours, families, counts | {(10.0, 20.0): 60}, "InftyThink"),
        *_exams(vanilla, families, counts, "vanilla"),
        *(replace(exam, number=100) for exam in _tampered(ours, families)),
    )
    return Plan("quick", data, (ours, vanilla), exams)


def _tampered(model: Model, families: tuple[str, ...]) -> tuple[Exam, ...]:
    return tuple(
        Exam(model.name, families, HEADLINE, 100, replace(_setup(model), tamper=how, phi=80), f"{how} summaries")
        for how in ("empty", "shuffled")
    )


def _model(seed: int) -> Plan:
    ours = Model("inftythink", "rounds", MODEL_STEPS, seed=seed)
    exams = _exams(ours, FAMILIES, {WITHIN: 300, HEADLINE: 300, DEEP: 300}, "InftyThink")
    return Plan("model", (_long("rounds", FAMILIES, MODEL_TRACES, seed),), (ours,), exams)


MODEL_STEPS, MODEL_TRACES = 9000, 16000


def _full(seed: int) -> Plan:
    steps = 8000
    data = [_long("rounds", FAMILIES, 14000, seed), _short("chains", FAMILIES, 36000, seed)]
    models: list[Model] = []
    exams: list[Exam] = []
    for number in range(3):
        ours = Model(f"inftythink-{number}", "rounds", steps, seed=seed + number)
        vanilla = Model(f"vanilla-{number}", "chains", steps, "none", seed=seed + number)
        models += [ours, vanilla]
        deep = {DEEP: 300} if number == 0 else {}
        exams += _exams(ours, FAMILIES, {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300} | deep, "InftyThink")
        exams += _exams(vanilla, FAMILIES, {WITHIN: 300, (1.0, 2.0): 100, HEADLINE: 300}, "vanilla")
    exams += _tampered(models[0], FAMILIES)
    # Delethink: a chunk, and what is carried of the one before, fill what the longest question leaves of the window.
    data.append(
        DataSet("tails", Drawing(FAMILIES, 9000, (2, 24), share=0.0, clean=True, seed=seed), eta=ETA, middle=None)
    )
    tail = Model("tail", "tails", steps, "tail", eta=100, seed=seed)
    data.append(_short("long-chains", FAMILIES, 6000, seed, high=24))
    stretched = Model(
        "stretched", "long-chains", steps // 4, "none", window=STRETCH * WINDOW, seed=seed, start="vanilla-0"
    )
    models += [tail, stretched]
    exams += _exams(tail, FAMILIES, {HEADLINE: 300}, "tail (Delethink)")
    exams += _exams(stretched, FAMILIES, {WITHIN: 100, (1.0, 2.0): 100, HEADLINE: 300}, f"vanilla, window x {STRETCH}")
    for eta in (28, 85):  # two lines, and six, of the Collatz family; 63 holds four
        data.append(_long(f"rounds-{eta}", ("collatz",), 6000, seed, eta))
        models.append(Model(f"eta-{eta}", f"rounds-{eta}", steps // 2, eta=eta, seed=seed))
    data.append(_long("rounds-63", ("collatz",), 6000, seed))
    models.append(Model("eta-63", "rounds-63", steps // 2, seed=seed))
    for model in models[-3:]:
        exams += _exams(model, ("collatz",), {HEADLINE: 300}, f"eta {model.eta}")
    return Plan("full", tuple(data), tuple(models), tuple(exams))
