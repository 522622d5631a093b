"""Our run against the server's own figures, for the same requests, on a real vLLM server.

    python benchmarks/engine.py --base-url http://localhost:8000/v1 --questions gsm8k.jsonl [--count 16]

Solves the questions with ``two_call``, all at once; then compares the tokens and the tokens a second that the reasoner
counted with what the server's ``/metrics`` say of the same time. The server must serve nobody else.
"""

import argparse
import asyncio
import json
import re
import time
import urllib.request
from collections import Counter

from rich.console import Console
from rich.table import Table

from inftythink.backends import Sampling
from inftythink.backends.openai import OpenAI
from inftythink.protocol import Policy, Problem, Trajectory
from inftythink.reasoner import Reasoner

WATCHED = ("generation_tokens_total", "prompt_tokens_total", "e2e_request_latency_seconds_sum", "request_success_total")


def metrics(base_url: str) -> Counter[str]:
    """Return the server's counters, summed over their labels."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics") as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for name, value in re.findall(r"^vllm:(\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$", text, re.MULTILINE):
        if name in WATCHED:
            found[name] += float(value)
    return found


async def solve(args: argparse.Namespace) -> tuple[list[Trajectory], float]:
    with open(args.questions, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][: args.count]
    problems = [Problem(str(i), row.get("problem") or row["question"], row.get("answer")) for i, row in enumerate(rows)]
    policy = Policy(eta=args.eta, gamma=args.gamma, phi=args.max_rounds)
    async with Reasoner(OpenAI(args.base_url), "two_call", policy, Sampling(seed=0), slots=args.count) as reasoner:
        start = time.perf_counter()
        found = await reasoner.solve_many(problems)
        return found, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--questions", required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--eta", type=int, default=128)
    parser.add_argument("--gamma", type=int, default=96)
    parser.add_argument("--max-rounds", type=int, default=4)
    parser.add_argument("--output", help="also write the figures here, as JSON")
    args = parser.parse_args()
    before = metrics(args.base_url)
    found, seconds = asyncio.run(solve(args))
    after = metrics(args.base_url)
    server = {name: after[name] - before[name] for name in WATCHED}
    calls = [call for trajectory in found for this in trajectory.rounds for call in this.calls]
    ours = {
        "calls": len(calls),
        "prompt tokens": sum(call.prompt_tokens for call in calls),
        "generated tokens": sum(call.completion_tokens for call in calls),
        "seconds in requests": round(sum(call.seconds for call in calls), 1),
    }
    theirs = {
        "calls": int(server["request_success_total"]),
        "prompt tokens": int(server["prompt_tokens_total"]),
        "generated tokens": int(server["generation_tokens_total"]),
        "seconds in requests": round(server["e2e_request_latency_seconds_sum"], 1),
    }
    table = Table("", "reasoner", "server", "ratio", title=f"{len(found)} questions, two_call, {seconds:.1f} s in all")
    for name, mine in ours.items():
        table.add_row(name, f"{mine:,}", f"{theirs[name]:,}", f"{mine / theirs[name]:.4f}" if theirs[name] else "-")
    table.add_row(
        "generated tokens a second",
        f"{ours['generated tokens'] / seconds:.1f}",
        f"{theirs['generated tokens'] / seconds:.1f}",
        "",
    )
    Console().print(table)
    print(
        "outcomes:",
        dict(Counter(t.outcome.value for t in found)),
        "rounds:",
        dict(Counter(len(t.rounds) for t in found)),
    )
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump({"seconds": seconds, "reasoner": ours, "server": theirs}, file, indent=2)


if __name__ == "__main__":
    main()
