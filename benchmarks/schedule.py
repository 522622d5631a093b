"""Many questions on a real vLLM server: the reasoner against one at a time, a barrier, and the engine alone.

    python benchmarks/schedule.py [--questions 96] [--repeat 3] [--output FILE.json]

Needs ``.venv-vllm`` (``make .venv-vllm/.ready``). A model with random weights makes exactly the tokens that a seed
draws for each round of each question, so that all ways do the same work:

- ``reasoner``: the reasoner with ``slots`` trajectories in flight, no barrier
- ``barrier``: ``slots`` trajectories, whose next rounds are sent together when all have returned; what ended is
  replaced by the next question
- ``barrier over all``: the same with all questions at once; the engine queues what is above its ``slots``
- ``one at a time``: every ``--alone``-th question, one after the other
- ``engine``: the requests of all rounds, known beforehand, sent at once

They take turns, because other jobs may run beside. Then the curve of a step (``inftythink.evals.steps``) is fitted to
batches of 1, 4 and ``slots`` calls that are alike, for ``benchmarks/simulate_cluster.py --measured FILE.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inftythink.backends import Request, Sampling
from inftythink.backends.openai import OpenAI
from inftythink.evals.cost import Call
from inftythink.evals.steps import Steps, Work, fit, work_of
from inftythink.protocol import Done, Generate, Machine, Policy, Problem, make_carry, make_format
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from vllm_server import EXACT, SEQUENCES, Paced, add_options, metrics, processor, served

STEPS = "iteration_tokens_total_count"
"""The server's count of its steps."""
MOST_ROUNDS = 12
TOKENS = (16, 80)
"""Least and most tokens of a round."""
SUMMARY = "the numbers so far are 3 5 8"
POLICY = Policy(eta=TOKENS[1], gamma=64, phi=MOST_ROUNDS)
SAMPLING = Sampling(temperature=1.0)


def draw(questions: int, seed: int = 0) -> dict[str, list[int]]:
    """Draw for each question the tokens of its rounds; rounds 1 to 12 occur equally often."""
    own = random.Random(seed)
    counts = [1 + number % MOST_ROUNDS for number in range(questions)]
    own.shuffle(counts)
    return {f"p{i}": [own.randint(*TOKENS) for _ in range(count)] for i, count in enumerate(counts)}


def problems(lengths: dict[str, list[int]], tag: int) -> list[Problem]:
    """Return the questions; the tag makes them new, so that no cache has them."""
    return [Problem(name, f"{name} {tag} what is the sum of the numbers?") for name in lengths]


class Ways:
    """The ways to do the same work on one engine."""

    def __init__(self, engine: OpenAI, lengths: dict[str, list[int]], slots: int) -> None:
        self.engine, self.lengths, self.slots = engine, lengths, slots
        self.tag = 0
        self.requests: list[Request] = []
        self.calls: list[list[tuple[int, int, int]]] = []

    def new(self) -> list[Problem]:
        """Return the questions, as nobody has asked them yet."""
        self.tag += 1
        return problems(self.lengths, self.tag)

    async def reasoner(self, slots: int | None = None, every: int = 1) -> int:
        """Drive every ``every``-th question; return the tokens made."""
        paced = Paced(self.engine, self.lengths, SUMMARY)
        solver = Reasoner(paced, "summary", POLICY, SAMPLING, slots=slots or self.slots)
        found = await solver.solve_many(self.new()[::every])
        if every == 1:
            self.requests = paced.sent
            calls = [[call for this in trajectory.rounds for call in this.calls] for trajectory in found]
            self.calls = [
                [(c.prompt_tokens, c.cached_tokens or 0, c.completion_tokens) for c in mine] for mine in calls
            ]
        return sum(trajectory.totals["completion_tokens"] for trajectory in found)

    async def barrier(self, slots: int | None = None) -> int:
        """Send rounds together, ``slots`` at once; wait for all of them before the next."""
        paced = Paced(self.engine, self.lengths, SUMMARY)
        carry, fmt = make_carry("summary", POLICY), make_format("summary", "", True)
        left = [Machine(problem, fmt, carry, POLICY) for problem in reversed(self.new())]
        running: list[Machine] = []
        tokens = 0
        while True:
            while left and len(running) < (slots or self.slots):
                running.append(left.pop())
            asked = [(machine, machine.next()) for machine in running]
            tokens += sum(done.trajectory.totals["completion_tokens"] for _, done in asked if isinstance(done, Done))
            running = [machine for machine, step in asked if isinstance(step, Generate)]
            if not running and not left:
                return tokens
            steps = [step for _, step in asked if isinstance(step, Generate)]
            calls = [paced.complete(Request(s.prompt, s.max_tokens, s.stop, SAMPLING)) for s in steps]
            for machine, completion in zip(running, await asyncio.gather(*calls), strict=True):
                machine.receive(completion)

    async def at_once(self) -> int:
        """Send the requests that the reasoner made, without waiting for any."""
        self.tag += 1
        new = (replace(each, prompt=_other(each, f"{self.tag}")) for each in self.requests)
        done = await asyncio.gather(*(self.engine.complete(request) for request in new))
        return sum(completion.completion_tokens for completion in done)


async def measure(ways: Ways, url: str, alone: int, repeat: int) -> dict[str, list[dict[str, float]]]:
    """Take the time of every way ``repeat`` times, in turns; and the engine's steps and its processor's time."""
    asked: dict[str, Callable[[], Awaitable[int]]] = {
        "reasoner": ways.reasoner,
        "barrier": ways.barrier,
        "barrier over all": lambda: ways.barrier(len(ways.lengths)),
        "engine": ways.at_once,
        "one at a time": lambda: ways.reasoner(1, alone),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    for number in range(repeat):
        for name, way in asked.items():
            before, used, start = metrics(url)[STEPS], processor(url), time.perf_counter()
            tokens = await way()
            seconds, used = time.perf_counter() - start, processor(url) - used
            steps = metrics(url)[STEPS] - before
            told = {"tokens": tokens, "seconds": seconds, "steps": steps, "processor": used, "load": os.getloadavg()[0]}
            found[name].append(told)
            print(f"{number + 1}/{repeat} {name}: {told}", flush=True)
    return found


async def calibrate(engine: OpenAI, url: str, request: Request, slots: int) -> list[tuple[Work, float, float]]:
    """Time batches of calls that are alike, short and long ones, with prompts that no cache has.

    Returns their work, seconds and the processor's seconds.
    """
    measured = []
    for batch in (1, 4, slots):
        for made in (16, 64, 128):
            names = [f"{number} {time.time():.3f}" for number in range(batch)]
            calls = [replace(request, prompt=_other(request, name), max_tokens=made) for name in names]
            used, start = processor(url), time.perf_counter()
            done = await asyncio.gather(*(engine.complete(call) for call in calls))
            seconds, used = time.perf_counter() - start, processor(url) - used
            call = Call(done[0].prompt_tokens, made, done[0].cached_tokens or 0)
            measured.append((work_of(((call, 1),), batch), seconds, used))
    return measured


def _other(request: Request, name: str) -> Any:
    """Return the request's prompt, asking something else."""
    turn = request.prompt.turns[0]
    part = replace(turn.parts[0], text=f"{name} {turn.parts[0].text}")
    return replace(request.prompt, turns=(replace(turn, parts=(part,)),))


async def run(url: str, model: Path, args: argparse.Namespace) -> dict[str, Any]:
    lengths = draw(args.questions)
    backend = OpenAI(url, renderer=Renderer.load(model), extra=EXACT, max_connections=4096)
    await backend.start()
    try:
        ways = Ways(backend, lengths, args.slots)
        await ways.reasoner(every=max(1, args.questions // args.slots))  # the first calls of a server are slow
        measured = await measure(ways, url, args.alone, args.repeat)
        later = next(request for request in ways.requests if len(request.prompt.prefill) > 1)
        batches = [each for _ in range(args.repeat) for each in await calibrate(backend, url, later, args.slots)]
        return {
            "slots": args.slots,
            "sequences": SEQUENCES,
            "alone": args.alone,
            "calls": ways.calls,
            "measured": measured,
            "steps": asdict(fit((work, seconds) for work, seconds, _ in batches)),
            "processor steps": asdict(fit((work, used) for work, _, used in batches)),
            "batches": [[asdict(work), seconds, used] for work, seconds, used in batches],
        }
    finally:
        await backend.aclose()


def rates(times: list[dict[str, float]], by: str) -> list[float]:
    """Return the tokens for each unit of ``by``, for each repetition."""
    return [each["tokens"] / each[by] for each in times]


def show(found: dict[str, Any]) -> None:
    measured = found["measured"]
    table = Table(title=f"{len(found['calls'])} questions, {found['slots']} slots")
    columns = (
        "",
        "tokens",
        "tokens/s",
        "reasoner / it",
        "tokens a step",
        "reasoner / it",
        "processor",
        "reasoner / it",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, times in measured.items():
        cells = [name, f"{times[0]['tokens']:,}"]
        for by in ("seconds", "steps", "processor"):
            its, ours = rates(times, by), rates(measured["reasoner"], by)
            ratios = sorted(mine / other for mine, other in zip(ours, its, strict=True))
            cells += [f"{statistics.median(its):,.1f}"]
            cells += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
        table.add_row(*cells)
    Console(width=150).print(table)
    steps = Steps(**found["steps"])
    print(
        f"a step: {1e3 * steps.fixed:.2f} ms + {1e3 * steps.sequence:.3f} ms a sequence + "
        f"{1e6 * steps.key:.2f} us a cached token + {1e3 * steps.prompt:.3f} ms a prompt token"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--slots", type=int, default=2 * SEQUENCES, help="trajectories in flight")
    parser.add_argument("--alone", type=int, default=12, help="one at a time: every so many-th question")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    add_options(parser)
    args = parser.parse_args()
    with served(args) as (url, model):
        found = asyncio.run(run(url, model, args))
    show(found)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
