"""What segmentation gives and costs: segments over eta, characters lost, time against one tokenizer pass, memory.

    python benchmarks/segmentation.py --traces traces.jsonl --tokenizer Qwen/Qwen2.5-0.5B --eta 512 1024 2048 4096

Times are ratios to one batched pass of the Hugging Face tokenizer over the same text, on the same cores, run directly
before and after; each is the median of ``--repeats`` rounds. The published rule is timed on one core, as it was
published. Peak memory is that of processes that read, segment and drop N traces (the file is repeated).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inftythink.data.read import Reject, Trace, read_files, to_trace
from inftythink.data.segment import segment
from inftythink.data.tokens import Counter, HuggingFaceCounter, load_counter


def traces(path: str) -> Iterator[Trace]:
    for row in read_files(path):
        trace = row if isinstance(row, Reject) else to_trace(row)
        if isinstance(trace, Trace):
            yield trace


def quality(texts: list[str], eta: int, partition: str, counter: Counter, exact: Counter) -> dict[str, Any]:
    """Segment, and count every segment again, alone."""
    done = [segment(text, eta, counter, partition) for text in texts]  # type: ignore[arg-type]
    kept = [(text, one) for text, one in zip(texts, done, strict=True) if not isinstance(one, Reject)]
    segments = [piece for _, one in kept for piece in one.segments]
    tokens = [count for _, one in kept for count in one.tokens]
    alone = exact.counts(segments)
    return {
        "eta": eta,
        "partition": partition,
        "rejected": len(done) - len(kept),
        "segments": len(segments),
        "over": sum(count > eta for count in tokens),
        "longest": max(tokens),
        "over_alone": sum(count > eta for count in alone),
        "over_stripped": sum(count > eta for count in exact.counts([piece.strip() for piece in segments])),
        "counts_wrong": sum(one != two for one, two in zip(alone, tokens, strict=True)),
        "characters_lost": sum(len(text) - len("".join(one.segments)) for text, one in kept),
        "changed": sum(text != "".join(one.segments) for text, one in kept),
        "mean_tokens": round(statistics.mean(tokens), 1),
    }


def ratio(baseline: Callable[[], object], run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Time ``run`` between two passes of ``baseline``."""

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    rounds = [(seconds(baseline), seconds(run), seconds(baseline)) for _ in range(repeats)]
    ratios = [2 * mine / (before + after) for before, mine, after in rounds]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "seconds": round(statistics.median(mine for _, mine, _ in rounds), 3),
    }


def timings(texts: list[str], etas: list[int], name: str, fast: bool, repeats: int) -> list[dict[str, Any]]:
    whole = load_counter(name, "never")
    if not isinstance(whole, HuggingFaceCounter):
        raise SystemExit(f"{name}: the baseline needs a tokenizer that the Hugging Face counter can stand in for")
    encode_batch = whole._tokenizer.encode_batch

    def baseline() -> object:
        return encode_batch(texts, add_special_tokens=False)

    def one_core(eta: int) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        for text in texts:
            segment(text, eta, whole, "reference")
        os.environ["TOKENIZERS_PARALLELISM"] = "true"

    def ours(eta: int, partition: str, counter: Counter) -> None:
        for text in texts:
            segment(text, eta, counter, partition)  # type: ignore[arg-type]

    baseline()
    rows = []
    for eta in etas:
        plan: list[tuple[str, Callable[[], object]]] = [("published rule, one core", lambda e=eta: one_core(e))]  # type: ignore[misc]
        for partition in ("greedy", "balanced"):
            plan.append((f"{partition}, Hugging Face", lambda e=eta, p=partition: ours(e, p, whole)))  # type: ignore[misc]
            if fast:
                # A new counter: whatever the one before remembers of the words must not count.
                quick = load_counter(name, "always")
                plan.append((f"{partition}, fastokens", lambda e=eta, p=partition, c=quick: ours(e, p, c)))  # type: ignore[misc]
        for what, run in plan:
            rows.append({"eta": eta, "what": what, **ratio(baseline, run, repeats)})
            print(f"eta {eta}: {what}: {rows[-1]['ratio']} x", file=sys.stderr, flush=True)
    return rows


def memory(path: str, name: str, eta: int, fast: str, number: int) -> dict[str, Any]:
    """Segment ``number`` traces in a process of its own; return its peak resident memory."""
    call = [sys.executable, __file__, "--traces", path, "--tokenizer", name, "--eta", str(eta), "--fast", fast]
    done = subprocess.run([*call, "--stream", str(number)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def stream(path: str, counter: Counter, eta: int, number: int) -> dict[str, Any]:
    def endless() -> Iterator[Trace]:
        while True:
            yield from traces(path)

    segments = 0
    for trace in islice(endless(), number):
        done = segment(trace.reasoning, eta, counter)
        segments += 0 if isinstance(done, Reject) else len(done.segments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"traces": number, "counter": counter.name, "segments": segments, "peak_mib": round(peak / 2**20)}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True, help="a file or folder of traces")
    parser.add_argument("--tokenizer", required=True, help="a folder with a tokenizer, or a model's name")
    parser.add_argument("--eta", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--fast", choices=["auto", "never", "always"], default="auto", help="whether to use fastokens")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each timing")
    parser.add_argument("--memory", type=int, nargs="*", default=[1776, 20000], help="numbers of traces")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--stream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    counter = load_counter(options.tokenizer, options.fast)
    if options.stream is not None:
        print(json.dumps(stream(options.traces, counter, options.eta[0], options.stream)))
        return
    exact = load_counter(options.tokenizer, "never")
    fast = "fastokens" in counter.name
    texts = [trace.reasoning for trace in traces(options.traces)]
    report: dict[str, Any] = {
        "traces": len(texts),
        "characters": sum(map(len, texts)),
        "tokens": sum(exact.counts(texts)),
        "counter": counter.name,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    Console().print(report)
    partitions = ("greedy", "balanced", "reference")
    report["quality"] = [quality(texts, eta, p, counter, exact) for eta in options.eta for p in partitions]
    show("Segments", report["quality"])
    if options.repeats:
        report["timing"] = timings(texts, options.eta, options.tokenizer, fast, options.repeats)
        show("Time, Hugging Face pass = 1", report["timing"])
    if options.memory:
        kinds = ["always", "never"] if fast else ["never"]
        place = (options.traces, options.tokenizer, options.eta[0])
        report["memory"] = [memory(*place, kind, number) for kind in kinds for number in options.memory]
        show(f"Peak memory, eta {options.eta[0]}", report["memory"])
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
