"""The main jobs on real input, in minutes on a laptop's processor: ``make demo``.

Reasoning traces become InftyThink training instances, with summaries by a real language model in this process
(SmolLM2-135M-Instruct, the smallest that chats at all: it shows that every part works, not how well a capable model
does). Then the model that ships with the package solves a problem whose reasoning is many times longer than its window,
live, and is compared with a model of the same kind that thinks in one chain.
"""

import argparse
import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from inftythink.cli.main import main as inftythink
from inftythink.data.table import read_rows, shards

QUESTION = "How many Collatz steps from 27?"
console = Console()


def run(*arguments: str) -> None:
    """Show a command line and run it as a user would; stop when it fails."""
    shown = " ".join(argument if argument and " " not in argument else repr(argument) for argument in arguments)
    console.print(f"\n[bold green]$ inftythink {shown}[/]", soft_wrap=True, highlight=False)
    code = inftythink(arguments)
    if code:
        sys.exit(code)


def show_instance(folder: Path) -> None:
    """Print a middle round of the longest trace, its parts cut short."""
    rows = [
        row
        for split in ("train", "validation")
        for path in shards(folder / "instances" / split)
        for row in read_rows(path, "instances")
    ]
    row = max(
        (row for row in rows if row["round"] > 1),
        key=lambda row: (row["rounds"], -abs(row["round"] - row["rounds"] / 2)),
    )
    text = Text()
    for name, style in (("prompt", "cyan"), ("completion", "")):
        whole = row[name]
        cut = whole if len(whole) < 900 else f"{whole[:450]}\n[…{len(whole) - 900} characters…]\n{whole[-450:]}"
        text.append(f"{name} ({row[name + '_tokens']} tokens)\n", "bold")
        text.append(cut + "\n", style)
    title = f"one training instance: round {row['round']} of {row['rounds']} of {row['id']}"
    console.print(Panel(text, title=title))


def main() -> None:
    """Convert, solve, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("~/.cache/inftythink/smollm2-135m-instruct").expanduser())
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--all", action="store_true", help="convert the longest sample trace, too (minutes more)")
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on with an earlier demo")
    args = parser.parse_args()
    if not args.model.is_dir():
        sys.exit(f"{args.model}: no model here; fetch it with: python scripts/smollm2.py --output {args.model}")
    if args.fresh:
        shutil.rmtree(args.output, ignore_errors=True)
    traces = str(files("inftythink") / "samples" / "traces.jsonl")
    data, model = args.output / "data", str(args.model)

    console.rule("1. Real reasoning traces become training instances")
    console.print(
        "Summaries come from SmolLM2-135M-Instruct: far too small a model to summarise well. What is real here is "
        "the way: every segment, request, retry and reject.",
        style="dim",
    )
    size = ("--eta", "1024", "--gamma", "64", "--attempts", "2", *(() if args.all else ("--limit", "12")))
    shape = ("--validation", "0.2", "--tasks", "1", "--workers", "1", "--output", str(data))
    run("data", "build", "--input", traces, "--tokenizer", model, "--model", model, *size, *shape)
    run("data", "stats", str(data))
    show_instance(data)

    console.rule("2. A model with a window of 128 tokens reasons far beyond it")
    console.print(
        "The model that ships with the package has 0.9 million parameters and knows three kinds of puzzles only. "
        "Numbers in its thoughts are written units first.",
        style="dim",
    )
    run("solve", QUESTION)

    console.rule("3. Rounds against one chain")
    console.print("Held-out problems; the same size, window and training tokens for both models.", style="dim")
    run("lab", "--preset", "shipped", "--output", str(args.output / "lab"))

    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    counts, made = manifest["counts"], manifest["stages"]["form"]["instances"]
    console.rule("What to look at")
    console.print(
        f"- [bold]{args.output}/lab/report/index.html[/]: for a browser: accuracy by length, against rounds, and cost\n"
        f"- {data}/instances: {made} instances from {counts['out']} of {counts['in']} "
        f"traces, with a data card (README.md)\n"
        f"- {data}/rejects.jsonl: the {counts['rejected']} traces that were not converted, each with its reason\n"
        "- docs/protocol.md: how rounds are joined; docs/lab.md: the experiments; docs/data.md: your own traces\n"
        "- your own model: inftythink solve 'your question' --base-url http://localhost:8000/v1",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
