"""What a folder of converted data holds: counts, lengths, compression, and why records were rejected."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Tally
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

from inftythink.data.table import read_rows, shards
from inftythink.store import read_json_lines


def describe(values: Tally[float]) -> dict[str, float]:
    """Return count, mean, percentiles 10, 50, 90 and 99, and maximum of numbers; nothing but the count of none.

    ``values`` says how often each number is there. A percentile is the value at its rank, not an interpolation.
    """
    count = values.total()
    if not count:
        return {"count": 0}
    ordered = sorted(values)
    behind = [*accumulate(values[value] for value in ordered)]
    at = {f"p{p}": ordered[bisect_right(behind, min(count - 1, count * p // 100))] for p in (10, 50, 90, 99)}
    mean = round(sum(value * often for value, often in values.items()) / count, 1)
    return {"count": count, "mean": mean, **at, "max": ordered[-1]}


def statistics(folder: Path) -> dict[str, Any]:
    """Read a folder's segments, summaries, instances and rejects; return its figures, tokens everywhere.

    What is not there yet is left out. How often each number is there is held in memory, not the rows.
    """
    found: dict[str, Any] = {}
    segments: Tally[float] = Tally()
    rounds: Tally[float] = Tally()
    for row in _rows(folder / "segments", "segments"):
        segments.update(row["segment_tokens"])
        rounds[len(row["segment_tokens"])] += 1
    if rounds:
        found["segments"] = {
            "tokens a segment": describe(segments),
            "rounds a trace": describe(rounds),
            "traces by rounds": dict(sorted(rounds.items())),
        }
    summaries: Tally[float] = Tally()
    attempts: Tally[int] = Tally()
    ratios: Tally[float] = Tally()
    for row in _rows(folder / "summaries", "summaries"):
        summaries.update(row["summary_tokens"])
        attempts.update(row["attempts"])
        pairs = zip(row["segment_tokens"], row["summary_tokens"], strict=False)
        ratios.update(round(summary / segment, 4) for segment, summary in pairs)
    if summaries:
        found["summaries"] = {
            "tokens a summary": describe(summaries),
            "tokens of summary a token of its segment": describe(ratios),
            "summaries by attempts": dict(sorted(attempts.items())),
        }
    for split in ("train", "validation"):
        prompt: Tally[float] = Tally()
        completion: Tally[float] = Tally()
        both: Tally[float] = Tally()
        traces = 0
        for row in _rows(folder / "instances" / split, "instances"):
            prompt[row["prompt_tokens"]] += 1
            completion[row["completion_tokens"]] += 1
            both[row["prompt_tokens"] + row["completion_tokens"]] += 1
            traces += row["round"] == 1
        if prompt:
            found[f"{split} instances"] = {
                "traces": traces,
                "tokens a prompt": describe(prompt),
                "tokens a completion": describe(completion),
                "tokens an instance": describe(both),
            }
    found["rejects"] = dict(Tally(f"{r['stage']}: {r['reason']}" for r in read_json_lines(folder / "rejects.jsonl")))
    return found


def _rows(folder: Path, stage: str) -> Iterable[dict[str, Any]]:
    for path in shards(folder):
        yield from read_rows(path, stage)
