"""What a folder of converted data holds: counts, lengths, compression, and why records were rejected."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inftythink.data.table import read_rows, shards
from inftythink.store import read_json_lines


def describe(values: Iterable[float]) -> dict[str, float]:
    """Return count, mean, percentiles 10, 50, 90 and 99, and maximum of numbers; nothing but the count of none.

    A percentile is the value at its rank, not an interpolation.
    """
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    at = {f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in (10, 50, 90, 99)}
    mean = round(sum(ordered) / len(ordered), 1)
    return {"count": len(ordered), "mean": mean, **at, "max": ordered[-1]}


def statistics(folder: Path) -> dict[str, Any]:
    """Read a folder's segments, summaries, instances and rejects; return its figures, tokens everywhere.

    What is not there yet is left out.
    """
    found: dict[str, Any] = {}
    segments: list[int] = []
    rounds: Tally[int] = Tally()
    for row in _rows(folder / "segments", "segments"):
        segments += row["segment_tokens"]
        rounds[len(row["segment_tokens"])] += 1
    if rounds:
        found["segments"] = {
            "tokens a segment": describe(segments),
            "rounds a trace": describe(rounds.elements()),
            "traces by rounds": dict(sorted(rounds.items())),
        }
    summaries: list[int] = []
    attempts: Tally[int] = Tally()
    ratios: list[float] = []
    for row in _rows(folder / "summaries", "summaries"):
        summaries += row["summary_tokens"]
        attempts.update(row["attempts"])
        pairs = zip(row["segment_tokens"], row["summary_tokens"], strict=False)
        ratios += [round(summary / segment, 4) for segment, summary in pairs]
    if summaries:
        found["summaries"] = {
            "tokens a summary": describe(summaries),
            "tokens of summary a token of its segment": describe(ratios),
            "summaries by attempts": dict(sorted(attempts.items())),
        }
    for split in ("train", "validation"):
        prompt, completion, ids = [], [], set()
        for row in _rows(folder / "instances" / split, "instances"):
            prompt.append(row["prompt_tokens"])
            completion.append(row["completion_tokens"])
            ids.add(row["id"])
        if prompt:
            both = [p + c for p, c in zip(prompt, completion, strict=True)]
            found[f"{split} instances"] = {
                "traces": len(ids),
                "tokens a prompt": describe(prompt),
                "tokens a completion": describe(completion),
                "tokens an instance": describe(both),
            }
    found["rejects"] = dict(Tally(f"{r['stage']}: {r['reason']}" for r in read_json_lines(folder / "rejects.jsonl")))
    return found


def _rows(folder: Path, stage: str) -> Iterable[dict[str, Any]]:
    for path in shards(folder):
        yield from read_rows(path, stage)
