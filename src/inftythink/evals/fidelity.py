"""Are summaries faithful? What they state against what they were written from, what is kept, and what only repeats.

The same for converted data (segments and summaries of a row) and for runs (thoughts and summaries of a trajectory).
docs/metrics.md defines each figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from inftythink.evals.facts import Sources, formulas, numbers
from inftythink.protocol import Trajectory

Repeat = Literal["identical", "near"]

NEAR = 0.9
"""A summary nearly repeats the one before when they share so much of their runs of five characters, and all numbers."""
EXAMPLES = 20
"""Unsupported facts that a report names."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A question, the thoughts of its rounds in order, and their summaries; None where a round wrote none."""

    id: str
    question: str
    thoughts: tuple[str, ...]
    summaries: tuple[str | None, ...]


def of_trajectory(trajectory: Trajectory) -> Chain:
    """Return the chain of a run's trajectory."""
    rounds = trajectory.rounds
    return Chain(
        trajectory.problem.id,
        trajectory.problem.question,
        tuple(each.thought for each in rounds),
        tuple(each.summary for each in rounds),
    )


def of_row(row: Mapping[str, Any]) -> Chain:
    """Return the chain of a row of ``DIR/summaries``; its last segment has no summary."""
    segments = tuple(row["segments"])
    blank = (None,) * (len(segments) - len(row["summaries"]))
    return Chain(row["id"], row["problem"], segments, tuple(row["summaries"]) + blank)


@dataclass(frozen=True, slots=True)
class SummaryFidelity:
    """One summary. Different numbers and formulas in it, and how many of each occur in its sources.

    Its sources are the question, the summary before and the thought of its round. ``unsupported`` names what occurs in
    none of them. ``chance``: how many of the numbers occur in the sources of a summary of another question, None
    without one.
    """

    round: int
    numbers: int
    numbers_supported: int
    formulas: int
    formulas_supported: int
    unsupported: tuple[str, ...]
    chance: int | None
    thought_chars: int
    chars: int
    repeated: Repeat | None


@dataclass(frozen=True, slots=True)
class ChainFidelity:
    """The summaries of one chain. ``carried``: rounds later -> (numbers still there, numbers that could be)."""

    id: str
    summaries: tuple[SummaryFidelity, ...]
    carried: Mapping[int, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        carried = {str(later): list(pair) for later, pair in self.carried.items()}
        return {"id": self.id, "summaries": [asdict(each) for each in self.summaries], "carried": carried}


def fidelity(chain: Chain, other: Chain | None = None) -> ChainFidelity:
    """Measure the summaries of a chain; ``other``, of another question, tells what chance would support."""
    told = [place for place, summary in enumerate(chain.summaries) if summary is not None]
    found = []
    for before, place in zip([None, *told], told, strict=False):
        found.append(_summary(chain, place, before, _sources_of(other, place)))
    return ChainFidelity(chain.id, tuple(found), _carried(chain, [chain.summaries[place] or "" for place in told]))


def _summary(chain: Chain, place: int, before: int | None, strange: Sources | None) -> SummaryFidelity:
    text = chain.summaries[place] or ""
    previous = None if before is None else chain.summaries[before]
    sources = Sources(chain.question, previous or "", chain.thoughts[place])
    stated, written = list(dict.fromkeys(numbers(text))), list(dict.fromkeys(formulas(text)))
    lost = [number for number in stated if not sources.has_number(number)]
    wrong = [formula for formula in written if not sources.has_formula(formula)]
    return SummaryFidelity(
        round=place + 1,
        numbers=len(stated),
        numbers_supported=len(stated) - len(lost),
        formulas=len(written),
        formulas_supported=len(written) - len(wrong),
        unsupported=(*lost, *wrong),
        chance=None if strange is None else sum(map(strange.has_number, stated)),
        thought_chars=len(chain.thoughts[place]),
        chars=len(text),
        repeated=None if previous is None else repeats(previous, text),
    )


def _sources_of(chain: Chain | None, place: int) -> Sources | None:
    """Return the sources that a chain has at a round, or at its last."""
    if chain is None or not chain.thoughts:
        return None
    place = min(place, len(chain.thoughts) - 1)
    return Sources(chain.question, (chain.summaries[place - 1] if place else None) or "", chain.thoughts[place])


def _carried(chain: Chain, texts: list[str]) -> dict[int, tuple[int, int]]:
    """Follow the numbers that a summary brings in, in neither question nor summary before, through later ones."""
    stated = [set(numbers(text)) for text in texts]
    known = set(numbers(chain.question))
    kept: Counter[int] = Counter()
    could: Counter[int] = Counter()
    for place, mine in enumerate(stated):
        new = mine - known - (stated[place - 1] if place else set())
        for later in range(1, len(stated) - place):
            kept[later] += len(new & stated[place + later])
            could[later] += len(new)
    return {later: (kept[later], could[later]) for later in sorted(could)}


def repeats(before: str, text: str) -> Repeat | None:
    """Say whether a summary only repeats the one before: but for white space, or nearly, with all its numbers."""
    if before.split() == text.split():
        return "identical"
    if sorted(numbers(before)) != sorted(numbers(text)):
        return None
    old, new = _shingles(before), _shingles(text)
    return "near" if len(old & new) >= NEAR * len(old | new) else None


def _shingles(text: str) -> set[str]:
    text = " ".join(text.split())
    return {text[place : place + 5] for place in range(max(1, len(text) - 4))}


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many; ``share`` is None of nothing."""

    count: int
    of: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"count": self.count, "of": self.of, "share": self.count / self.of if self.of else None}


@dataclass(slots=True)
class FidelityReport:
    """The sum over chains, which are added one by one; nothing of their texts is kept but the examples."""

    chains: int = 0
    summaries: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    carried: dict[int, tuple[int, int]] = field(default_factory=dict)
    growth: list[float] = field(default_factory=list)
    by_round: dict[int, tuple[int, int]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, found: ChainFidelity) -> None:
        """Count one chain."""
        self.chains += 1
        self.summaries += len(found.summaries)
        self.sums["later"] += max(0, len(found.summaries) - 1)
        for each in found.summaries:
            self._add_summary(found.id, each)
        for later, (kept, could) in found.carried.items():
            before = self.carried.get(later, (0, 0))
            self.carried[later] = (before[0] + kept, before[1] + could)
        if len(found.summaries) > 1 and found.summaries[0].chars:
            self.growth.append(found.summaries[-1].chars / found.summaries[0].chars)

    def _add_summary(self, chain: str, each: SummaryFidelity) -> None:
        names = ("numbers", "numbers_supported", "formulas", "formulas_supported", "thought_chars", "chars")
        self.sums.update({name: getattr(each, name) for name in names})
        if each.chance is not None:
            self.sums.update({"chance": each.chance, "chance_of": each.numbers})
        if each.repeated:
            self.sums[each.repeated] += 1
        number, chars = self.by_round.get(each.round, (0, 0))
        self.by_round[each.round] = (number + 1, chars + each.chars)
        if each.unsupported and len(self.examples) < EXAMPLES:
            self.examples.append({"id": chain, "round": each.round, "unsupported": list(each.unsupported[:10])})

    def to_json(self) -> dict[str, Any]:
        """Return the figures as ``metrics.json`` holds them."""
        sums = self.sums
        repeated = {name: Share(sums[name], sums["later"]).to_json() for name in ("identical", "near")}
        return {
            "chains": self.chains,
            "summaries": self.summaries,
            "numbers": Share(sums["numbers_supported"], sums["numbers"]).to_json(),
            "numbers_by_chance": Share(sums["chance"], sums["chance_of"]).to_json(),
            "formulas": Share(sums["formulas_supported"], sums["formulas"]).to_json(),
            "carried": {str(later): Share(*pair).to_json() for later, pair in sorted(self.carried.items())},
            "compression": sums["thought_chars"] / sums["chars"] if sums["chars"] else None,
            "growth": median(self.growth) if self.growth else None,
            "chars_by_round": {
                str(k): {"summaries": number, "mean": chars / number}
                for k, (number, chars) in sorted(self.by_round.items())
            },
            "repeated": repeated,
            "examples": self.examples,
        }


def measure(chains: Iterable[Chain]) -> FidelityReport:
    """Measure chains, one in memory at a time; give them in a fixed order.

    Each is held against the one before it that has another question, for what chance would support.
    """
    report = FidelityReport()
    last: Chain | None = None
    other: Chain | None = None
    for chain in chains:
        if last is not None and last.question != chain.question:
            other = last
        report.add(fidelity(chain, other))
        last = chain
    return report
