"""The laboratory's data: puzzles, through the very same stages as real traces, to training rows.

    FOLDER/traces.jsonl     the puzzles with their reasoning
    FOLDER/converted/       what ``inftythink data segment``, ``summarise`` and ``form`` make of them
    FOLDER/selected/        the instances that are trained on

Two things are done to the instances behind the conversion, and counted. A round that shows a held-out state is left
out, so that no such state is seen in training. Of a long trace's middle rounds a few are drawn: there would else be
fifty of them for each first and last round.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from inftythink.backends.base import Backend, Request
from inftythink.backends.scripted import Scripted
from inftythink.data.build import StageRun, write_manifest
from inftythink.data.steps import FormInstances, ReadShard, ReadTraces, SegmentTraces, SummariseSegments
from inftythink.data.summarise import Settings
from inftythink.data.table import Shard, read_rows, shards
from inftythink.tasks.puzzle import Family, Puzzle, families, held_out, held_out_question


@dataclass(frozen=True, slots=True)
class Drawing:
    """Puzzles of one family that become traces: how many, and how many lines their reasoning has, log-uniformly.

    ``clean`` ones show no held-out state: where whole traces are trained on.
    """

    family: str
    number: int
    lines: tuple[int, int]
    clean: bool = False


def draw(drawings: Iterable[Drawing], seed: int) -> Iterator[tuple[Family, Puzzle]]:
    """Yield the puzzles of all drawings."""
    known = {family.name: family for family in families()}
    for drawing in drawings:
        rng, family, (low, high) = random.Random(f"{seed}/{drawing}"), known[drawing.family], drawing.lines
        drawn = 0
        while drawn < drawing.number:
            length = low * (high / low) ** rng.random()
            # Not every length exists in every family; near it one does.
            puzzle = family.sample(rng, (max(low, int(0.6 * length)), min(high, max(int(1.3 * length), low + 4))))
            if held_out_question(puzzle.question):
                continue
            if not (drawing.clean and any(held_out(family, line) for line in puzzle.lines)):
                drawn += 1
                yield family, puzzle


def write_traces(puzzles: Iterable[tuple[Family, Puzzle]], path: Path) -> int:
    """Write puzzles as traces; return how many. The family stands in the id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for count, (family, puzzle) in enumerate(puzzles, 1):
            row = {
                "id": f"{family.name}-{count}",
                "question": puzzle.question,
                "reasoning": puzzle.reasoning,
                "conclusion": puzzle.conclusion,
                "answer": puzzle.answer,
            }
            out.write(json.dumps(row) + "\n")
    return count


def last_line(request: Request) -> str:
    """Return the last thought of the segment that a summary is asked for: it holds the whole state of the work."""
    segment = request.prompt.turns[-2].text
    return segment.strip().rpartition("\n\n")[2]


def summariser() -> tuple[Backend, None]:
    """Return the rule-based summariser, as ``SummariseSegments`` connects to it."""
    return Scripted(last_line, keep=0), None


@dataclass(frozen=True)
class _Conversion:
    """What a resumed conversion must not change."""

    eta: int
    gamma: int


def convert(traces: Path, folder: Path, tokenizer: Path, eta: int, gamma: int) -> dict[str, Any]:
    """Segment, summarise and form, by the stages of ``inftythink data``; return the manifest."""
    name, made = str(tokenizer), _Conversion(eta, gamma)
    segment = [ReadTraces(str(traces), folder), SegmentTraces(folder, name, eta)]
    summarise = SummariseSegments(folder, name, summariser, Settings(gamma=gamma, attempts=1))
    form = FormInstances(folder, name, eta=eta, gamma=gamma, validation=0.0)
    StageRun(("read", "segment"), folder, made, segment, 1, 1).run()
    StageRun(("summarise",), folder, made, [ReadShard(folder, "segments"), summarise], 1, 1).run()
    StageRun(("form",), folder, made, [ReadShard(folder, "summaries"), form], 1, 1).run()
    return write_manifest(folder, "form", eta=eta, gamma=gamma, tokenizer=name)


def select(converted: Path, output: Path, middle: int, seed: int) -> Counter[str]:
    """Write the instances that are trained on to ``output/instances/train``; return what was kept and left out.

    The counts are ``kept``, ``tokens`` (of what was kept), ``held_out`` and ``middle`` (left out).
    """
    by_name = {family.name: family for family in families()}
    rng, counts = random.Random(seed), Counter[str]()
    for path in shards(converted / "instances" / "train"):
        with Shard(output / "instances" / "train" / path.name, "instances") as kept:
            for identity, group in groupby(read_rows(path, "instances"), key=lambda row: row["id"]):
                family, rows = by_name[identity.split("-")[0]], list(group)
                between = rows[1:-1]
                drawn = rng.sample(between, min(middle, len(between)))
                counts["middle"] += len(between) - len(drawn)
                for row in sorted([*rows[:1], *drawn, *rows[1:][-1:]], key=lambda row: row["round"]):
                    if _shows_held_out(row, family):
                        counts["held_out"] += 1
                        continue
                    kept.write(row)
                    counts["kept"] += 1
                    counts["tokens"] += row["prompt_tokens"] + row["completion_tokens"]
    return counts


def _shows_held_out(row: dict[str, Any], family: Family) -> bool:
    lines = row["thought"].split("\n\n") + ([row["history"]] if row["history"] else [])
    return any(held_out(family, line) for line in lines)
