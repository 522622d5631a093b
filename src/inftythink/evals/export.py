"""Runs in the per-sample log form of lm-evaluation-harness, which other tools read.

    DIR/samples_TASK_DATE.jsonl   one problem a line: doc, target, arguments, resps, filtered_resps, exact_match, …

All samples of a problem are its responses, in order; ``exact_match`` is the share of them that is right. A response is
the conclusion; what FAILED, or ended without one, is an empty text. A problem without any verdict is left out of
``exact_match`` by a null, since readers would count a 0 as wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from inftythink.protocol import Outcome, Trajectory
from inftythink.store import JsonLines, ordered_trajectories


def export(run: Path, output: Path, date: str) -> dict[str, int]:
    """Write the logs of a run's tasks; return the files with how many problems each holds.

    Raises ``InputError`` when the run cannot be read, or the files not be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    for task, trajectories in groupby(ordered_trajectories(run), key=lambda t: t.problem.id.partition("/")[0]):
        path = output / f"samples_{task.replace(':', '-')}_{date}.jsonl"
        path.unlink(missing_ok=True)
        lines = JsonLines(path)
        for doc_id, line in enumerate(_lines(trajectories)):
            lines.append({"doc_id": doc_id} | line)
            written[str(path)] = doc_id + 1
        lines.close()
    return written


def _lines(trajectories: Iterable[Trajectory]) -> Iterator[dict[str, Any]]:
    for name, group in groupby(trajectories, key=lambda t: t.problem.id):
        samples = list(group)
        problem = samples[0].problem
        texts = [(each.conclusion or "") if each.outcome is Outcome.ANSWERED else "" for each in samples]
        grades = [(each.grade or {}) for each in samples]
        verdicts = [grade["correct"] for grade in grades if grade.get("correct") is not None]
        doc = {"id": name, "problem": problem.question, "answer": problem.answer}
        yield {
            "doc": doc,
            "target": problem.answer or "",
            "arguments": {"gen_args_0": {"arg_0": problem.question, "arg_1": {}}},
            "resps": [texts],
            "filtered_resps": [grade.get("extracted") or "" for grade in grades],
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": _digest(json.dumps(doc, sort_keys=True, ensure_ascii=False)),
            "prompt_hash": _digest(problem.question),
            "target_hash": _digest(problem.answer or ""),
            "exact_match": sum(verdicts) / len(verdicts) if verdicts else None,
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
