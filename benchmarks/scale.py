"""What conversion costs a trace, and whether time and memory stay flat: N short made-up traces, stage by stage.

    python benchmarks/scale.py --tokenizer Qwen/Qwen2.5-0.5B --traces 2000 20000 200000 --eta 256

A trace has ``--thoughts`` thoughts of about 30 tokens each. Each stage runs in a process of its own, with one worker
and one task: what it costs is the processor time of that process (the clock is shared with whatever else runs), what it
holds is its peak resident memory. Summaries come from a script in the process: the stage's own cost is measured.
``--profile STAGE`` prints where the time of one stage goes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inftythink.backends.base import Backend, Request
from inftythink.backends.scripted import Scripted
from inftythink.cli.data import FormConfig, SegmentConfig, form, segment
from inftythink.data.build import StageRun, write_manifest
from inftythink.data.steps import ReadShard, SummariseSegments
from inftythink.data.summarise import Settings

STAGES = ("segment", "summarise", "form")
WORDS = (
    *("so", "we", "add", "the", "two", "numbers", "and", "carry", "one", "then", "compare", "with", "what", "was"),
    *("found", "before", "which", "gives", "a", "remainder", "of"),
)


def make(path: Path, number: int, thoughts: int) -> None:
    """Write traces, the same ones each time."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for index in range(number):
            pieces = [
                f"Step {n}: {' '.join(draw.choices(WORDS, k=18))} {draw.randrange(10**6)}." for n in range(thoughts)
            ]
            said = "<think>\n" + "\n\n".join(pieces) + f"\n</think>\n\nThe answer is {index}."
            turns = [{"role": "user", "content": f"What is {index}?"}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"id": f"t{index}", "messages": turns}) + "\n")


def connect() -> tuple[Backend, Backend | None]:
    def reply(request: Request) -> str:
        return "So far: " + request.prompt.turns[-2].text[-60:]

    return Scripted(reply, keep=0), None


def stage(name: str, folder: Path, tokenizer: str, eta: int, gamma: int) -> None:
    """Run one stage as its command does."""
    if name == "segment":
        segment(
            SegmentConfig(
                input=str(folder / "traces.jsonl"), output=folder, tokenizer=tokenizer, eta=eta, tasks=1, workers=1
            )
        )
    elif name == "form":
        form(FormConfig(input=folder, workers=1))
    else:
        step = SummariseSegments(folder, tokenizer, connect, Settings(gamma=gamma), 64)
        config = FormConfig(input=folder, workers=1)
        StageRun(("summarise",), folder, config, [ReadShard(folder, "segments"), step], 1, 1).run()
        write_manifest(folder, "summarise", gamma=gamma)


def measured(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run one stage in a process of its own; return its processor seconds and its peak memory."""
    call = [sys.executable, __file__, "--tokenizer", options.tokenizer, "--eta", str(options.eta)]
    call += ["--gamma", str(options.gamma), "--stage", name, "--folder", str(folder)]
    one_core = os.environ | {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=one_core)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def profiled(run: Callable[[], None]) -> None:
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(run)
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a folder with a tokenizer, or a model's name")
    parser.add_argument("--traces", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--thoughts", type=int, default=16, help="thoughts a trace, of about 30 tokens each")
    parser.add_argument("--eta", type=int, default=256)
    parser.add_argument("--gamma", type=int, default=64)
    parser.add_argument("--profile", choices=STAGES, help="profile this stage, with the first number of traces")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage is not None:
        run(options)
        return
    rows = []
    for number in options.traces:
        with tempfile.TemporaryDirectory(prefix="inftythink-scale-") as name:
            folder = Path(name)
            make(folder / "traces.jsonl", number, options.thoughts)
            for each in STAGES:
                if options.profile == each:
                    profiled(lambda: stage(each, folder, options.tokenizer, options.eta, options.gamma))  # noqa: B023
                    return
                found = measured(each, folder, options)
                rows.append({"traces": number, "stage": each, **found})
                rows[-1]["us_a_trace"] = round(found["work_s"] / number * 1e6, 1)
                print(rows[-1], file=sys.stderr, flush=True)
    table = Table(title=f"{options.thoughts} thoughts a trace, eta {options.eta}, one process", title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int | float) else value for value in row.values()))
    Console().print(table)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n")


def run(options: argparse.Namespace) -> None:
    """Run a stage and print what this process used. ``work_s`` is without the time to load the tokenizer."""
    from inftythink.data.tokens import load_counter

    load_counter(options.tokenizer)
    before = _seconds()
    stage(options.stage, options.folder, options.tokenizer, options.eta, options.gamma)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found: dict[str, Any] = {"work_s": round(_seconds() - before, 2), "peak_mib": round(peak / 2**20)}
    print(json.dumps(found))


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
