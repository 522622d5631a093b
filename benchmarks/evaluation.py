"""What evaluating costs besides generating and grading: 500 problems, 16 samples each, on a backend without latency.

    python benchmarks/evaluation.py [--output FILE.json]

The run folder is written as in a real run, and the metrics are computed with their bootstrap intervals; answers are
graded by comparing text in this process. One core.
"""

import argparse
import asyncio
import json
import random
import resource
import shutil
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

from inftythink.backends import Request
from inftythink.backends.scripted import Scripted
from inftythink.evals.metrics import summary
from inftythink.evals.rows import Row
from inftythink.evals.run import Asked, evaluate
from inftythink.grade.base import Ask, Grade, Grader
from inftythink.grade.exact import grade_exact
from inftythink.protocol import Completion, Policy, Problem, Stop
from inftythink.reasoner import Reasoner
from inftythink.store import RunFolder
from inftythink.tasks.base import Item, TaskSettings

PROBLEMS, SAMPLES = 500, 16
THOUGHT = "Let me compute the next term of the sequence and check it against the bound. " * 50


def reply(request: Request) -> Completion:
    """Conclude at the round that the question names; each summary is the number of the round."""
    wanted = int(request.prompt.turns[0].text)
    now = 1 + int(request.prompt.prefill[1].text if len(request.prompt.prefill) > 1 else 0)
    end = f"\\boxed{{{wanted}}}" if now == wanted else f"<summary>\n{now}\n</summary>"
    return Completion(f"{THOUGHT}\n</think>\n\n{end}", Stop.STOP, prompt_tokens=100, completion_tokens=900)


class Here:
    """Stands for a pool of processes: grades at once."""

    def submit(self, grader: Grader, ask: Ask) -> Future[Grade]:
        future: Future[Grade] = Future()
        future.set_result(grader(ask))
        return future


async def run(folder: Path) -> dict[str, float]:
    draw = random.Random(0)
    asked = [
        Asked("count", Item(Problem(f"{i}", f"{(n := draw.randint(1, 8))}", str(n + i % 2)), grade_exact))
        for i in range(PROBLEMS)
    ]
    rows: list[Row] = []
    start = time.perf_counter()
    with RunFolder(folder, TaskSettings()) as journal:
        reasoner = Reasoner(Scripted(reply, keep=0), policy=Policy(phi=10), slots=64)
        await evaluate(reasoner, asked, SAMPLES, journal, Here(), rows.append)  # type: ignore[arg-type]
    ran = time.perf_counter() - start
    figures = summary(rows)
    return {
        "trajectories": len(rows),
        "rounds": sum(len(row.rounds) for row in rows),
        "accuracy": figures["all"]["accuracy"]["value"],
        "seconds to run": round(ran, 2),
        "seconds for the metrics": round(time.perf_counter() - start - ran, 2),
        "MiB on disk": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
        "peak RSS, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        result = asyncio.run(run(folder / "run"))
    finally:
        shutil.rmtree(folder)
    for name, value in result.items():
        print(f"{name:<26}{value:>12,}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
