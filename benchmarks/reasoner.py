"""What the driver itself costs: rounds a second, memory of trajectories in flight, and how busy slots are kept.

    python benchmarks/reasoner.py [--output FILE.json]

The backend is scripted, so that every second and byte is the driver's own. One core, one process for each measurement.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from inftythink.backends import Request
from inftythink.backends.scripted import Scripted
from inftythink.protocol import Completion, Policy, Problem, Stop
from inftythink.reasoner import Reasoner

THOUGHT = "Let me compute the next term of the sequence and check it against the bound. " * 10
POLICY = Policy(eta=4096, gamma=1024, phi=25)


def problems(count: int, most: int) -> list[Problem]:
    draw = random.Random(0)
    return [Problem(f"p{i}", str(draw.randint(1, most))) for i in range(count)]


def reply(request: Request) -> Completion:
    """Conclude at the round that the question names; each summary is the number of the round."""
    wanted = int(request.prompt.turns[0].text)
    now = 1 + int(request.prompt.prefill[1].text if len(request.prompt.prefill) > 1 else 0)
    end = f"{wanted}" if now == wanted else f"<summary>\n{now}\n</summary>"
    return Completion(f"{THOUGHT}\n</think>\n\n{end}", Stop.STOP, prompt_tokens=100, completion_tokens=200)


async def rounds_a_second() -> dict[str, float]:
    asked = problems(4000, 20)
    rounds = sum(int(problem.question) for problem in asked)
    start = time.process_time()
    async for _ in Reasoner(Scripted(reply, keep=0), policy=POLICY, slots=64).run(asked):
        pass
    seconds = time.process_time() - start
    return {"rounds": rounds, "cpu seconds": round(seconds, 3), "rounds a second": round(rounds / seconds)}


class AllAtOnce(Scripted):
    """Answers nothing until ``count`` requests wait, so that all of them are in flight together."""

    def __init__(self, count: int) -> None:
        super().__init__(reply, keep=0)
        self.count = count
        self.gate = asyncio.Event()
        self.waiting = 0

    async def complete(self, request: Request) -> Completion:
        self.waiting += 1
        if self.waiting == self.count:
            self.gate.set()
        await self.gate.wait()
        return await super().complete(request)


async def memory_in_flight(count: int = 100_000) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    backend = AllAtOnce(count)
    source = (Problem(f"p{i}", str(1 + i % 3)) for i in range(count))
    ended = 0
    async for _ in Reasoner(backend, policy=POLICY, slots=count).run(source):
        ended += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "trajectories in flight": backend.waiting and count,
        "ended": ended,
        "peak RSS MiB": round(peak / 1024),
        "KiB a trajectory": round((peak - before) / count, 2),
    }


async def slots_busy(slots: int = 64, latency: float = 0.1, count: int = 4000) -> dict[str, float]:
    """Share of slot time in which a request was out: over the whole run, and until the last problem was taken.

    At the end of any run, slots fall idle one by one when no problem is left; a driver cannot change that.
    """
    asked = problems(count, 20)
    rounds = sum(int(problem.question) for problem in asked)
    backend = Scripted(reply, latency=latency, keep=0)
    taken_all = [0.0, 0]

    def source() -> Iterator[Problem]:
        yield from asked
        taken_all[:] = time.perf_counter(), backend.calls

    start = time.perf_counter()
    async for _ in Reasoner(backend, policy=POLICY, slots=slots).run(source()):
        pass
    seconds, until = time.perf_counter() - start, taken_all[0] - start
    return {
        "slots": slots,
        "rounds": rounds,
        "latency s": latency,
        "seconds": round(seconds, 2),
        "busy %, whole run": round(100 * rounds * latency / (slots * seconds), 2),
        "busy %, while problems were left": round(100 * (taken_all[1] - slots / 2) * latency / (slots * until), 2),
    }


MEASURES = {"rounds_a_second": rounds_a_second, "memory_in_flight": memory_in_flight, "slots_busy": slots_busy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURES, help="run one measurement in this process; print JSON")
    parser.add_argument("--output", help="also write the figures here, as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(asyncio.run(MEASURES[args.only]())))
        return
    found = {}
    for name in MEASURES:
        done = subprocess.run([sys.executable, __file__, "--only", name], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout)
        table = Table(title=name.replace("_", " "))
        for column in found[name]:
            table.add_column(column, justify="right")
        table.add_row(*(f"{value:,}" for value in found[name].values()))
        Console().print(table)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
