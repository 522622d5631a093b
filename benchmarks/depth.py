"""One chain against rounds at growing depth on a real vLLM server: time, tokens a second, and memory for the cache.

    python benchmarks/depth.py [--most 32k] [--eta 1k] [--gamma 256] [--output FILE.json]

Needs ``.venv-vllm`` (``make .venv-vllm/.ready``). A model with random weights and 34,816 positions thinks 32k tokens
in one chain, and in rounds whose prompt is the question and the last ``gamma`` tokens of the round before. The chain is
made in pieces of 1k tokens, each sent with all that is before it, which the prefix cache has; pieces and rounds take
turns, because other jobs may run beside. The time at a depth is the sum of what was made until then, so that one run
shows every depth. The rounds have written one more summary than they need at each. With ``--sample 8`` one token in
eight is generated, in the middle of each piece and round, and its time counts eight times.

A curve (``inftythink.evals.steps``) is fitted to what was made up to ``--fit`` tokens, and tells the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inftythink.backends import Request, Sampling
from inftythink.backends.openai import OpenAI
from inftythink.evals.architecture import Architecture, read_architecture
from inftythink.evals.cost import Call, kv_bytes
from inftythink.evals.steps import fit, work_of
from inftythink.protocol.types import Part, PartKind, Prompt
from vllm_server import EXACT, add_options, metrics, processor, served

DEPTHS = (2048, 4096, 8192, 16384, 32768)
QUESTION = 64
PIECE = 1024


@dataclass(frozen=True)
class Made:
    """A call on the server, how often it stands for one, its seconds (of all and of the processor), memory."""

    call: Call
    times: float
    seconds: float
    processor: float
    cache_bytes: float
    load: float


class Ids:
    """A renderer for prompts that are token ids already."""

    def ids(self, prompt: Prompt) -> list[int]:
        return [i for part in prompt.prefill for i in part.ids or ()] or [1]

    def text(self, prompt: Prompt) -> str:
        raise SystemExit("the server took no token ids")

    def decode(self, ids: list[int]) -> str:
        return ""


class Server:
    """The server, and how many bytes of its cache are in use."""

    def __init__(self, url: str, model: Architecture) -> None:
        self.url, self.backend = url, OpenAI(url, renderer=Ids(), extra=EXACT)
        told = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics").read().decode()
        blocks, size = (int(re.search(rf'{name}="(\d+)"', told)[1]) for name in ("num_gpu_blocks", "block_size"))
        self.bytes = kv_bytes(model, blocks * size)

    async def go_on(self, ids: list[int], tokens: int, times: float = 1.0) -> tuple[Made, list[int]]:
        """Generate ``tokens`` behind ``ids``."""
        prompt = Prompt((), (Part(PartKind.CONTENT, ids=tuple(ids)),))
        watched, begun, start = asyncio.create_task(self._peak()), processor(self.url), time.perf_counter()
        done = await self.backend.complete(Request(prompt, tokens, (), Sampling(1.0)))
        seconds, used = time.perf_counter() - start, processor(self.url) - begun
        watched.cancel()
        call = Call(done.prompt_tokens, tokens, done.cached_tokens or 0)
        return Made(call, times, seconds, used, await watched, os.getloadavg()[0]), list(done.token_ids or ())

    async def _peak(self) -> float:
        """Return the most bytes of the cache that were in use until this is cancelled."""
        most = 0.0
        try:
            while True:
                told = await asyncio.to_thread(metrics, self.url)
                most = max(most, told["kv_cache_usage_perc"] * self.bytes)
                await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            return most


Depth = dict[str, list[Made]]
"""What was made for a piece of depth: of the chain, and of the round."""


class Sampled:
    """Generates one token in ``sample``, in the middle of each piece; the others are read as a prompt."""

    def __init__(self, server: Server, sample: int) -> None:
        self.server, self.sample, self.draw = server, sample, random.Random(0)

    def tokens(self, count: int) -> list[int]:
        """Return tokens that mean nothing."""
        return [self.draw.randint(10, 250) for _ in range(count)]

    async def piece(self, ids: list[int], tokens: int) -> tuple[Made, list[int]]:
        """Go on behind ``ids`` for ``tokens``; the time is taken of those generated."""
        made = tokens // self.sample
        before = self.tokens((tokens - made) // 2)
        if before:
            await self.server.go_on(ids + before, 1)
        told, new = await self.server.go_on(ids + before, made, self.sample)
        return told, before + new + self.tokens(tokens - made - len(before))


async def measure(server: Server, args: argparse.Namespace) -> list[Depth]:
    """Let a chain and rounds think ``most`` tokens, in turns, ``eta`` at a time."""
    found: list[Depth] = []
    own = Sampled(server, args.sample)
    await server.backend.start()
    try:
        await server.go_on(own.tokens(QUESTION), PIECE // 8)  # the first call is slow
        question = own.tokens(QUESTION)
        chain, summary = list(question), list[int]()
        begun = time.perf_counter()
        for depth in range(args.eta, args.most + 1, args.eta):
            if time.perf_counter() - begun > args.seconds:
                break
            pieces: list[Made] = []
            for _ in range(args.eta // PIECE):
                made, new = await own.piece(chain, PIECE)
                chain += new
                pieces.append(made)
            opened, _ = await server.go_on(question + summary, 1)
            made, new = await own.piece(question + summary, args.eta + args.gamma)
            summary = new[-args.gamma :]
            found.append({"one chain": pieces, "rounds": [opened, made]})
            told = ", ".join(
                f"{name} {1e3 * m[-1].seconds / m[-1].call.generated:.1f} ms" for name, m in found[-1].items()
            )
            print(f"{depth:,}: {told} a token", flush=True)
            if args.output:
                write(found, args)
    finally:
        await server.backend.aclose()
    return found


def table_of(found: list[Depth], eta: int, fitted: int) -> list[dict[str, Any]]:
    """Return a row for each depth and way: what was measured, and what the curve of the first tokens tells."""
    first = [made for depth in found[: max(1, fitted // eta)] for calls in depth.values() for made in calls]
    kinds = ("seconds", "processor")
    curves = {kind: fit((work_of(((made.call, 1),)), getattr(made, kind)) for made in first) for kind in kinds}
    rows = []
    for depth in (depth for depth in DEPTHS if depth <= len(found) * eta):
        for name in found[0]:
            mine = [made for each in found[: depth // eta] for made in each[name]]
            works = [(made.times, work_of(((made.call, 1),))) for made in mine]
            rows.append(
                {
                    "depth": depth,
                    "way": name,
                    "tokens": round(sum(made.times * made.call.generated for made in mine)),
                    "cache MiB": max(made.cache_bytes for made in mine) / 2**20,
                    **{kind: sum(made.times * getattr(made, kind) for made in mine) for kind in curves},
                    **{f"{kind} told": sum(n * curve.seconds(w) for n, w in works) for kind, curve in curves.items()},
                }
            )
    return rows


def write(found: list[Depth], args: argparse.Namespace) -> None:
    """Write the figures down."""
    settings = {name: value for name, value in vars(args).items() if isinstance(value, int)}
    calls = [{name: [asdict(made) for made in mine] for name, mine in depth.items()} for depth in found]
    told = {"settings": settings, "rows": table_of(found, args.eta, args.fit), "calls": calls}
    args.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def show(rows: list[dict[str, Any]], fitted: int) -> None:
    table = Table(title=f"one chain against rounds; the curve is fitted to the first {fitted:,} tokens")
    for column in (
        "depth",
        "way",
        "tokens",
        "s",
        "tokens/s",
        "told, s",
        "off",
        "processor, s",
        "told",
        "off",
        "cache MiB",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [f"{row['depth']:,}", row["way"], f"{row['tokens']:,}", f"{row['seconds']:.1f}"]
        cells.append(f"{row['tokens'] / row['seconds']:.0f}")
        cells += [f"{row['seconds told']:.1f}", f"{row['seconds told'] / row['seconds'] - 1:+.0%}"]
        cells += [f"{row['processor']:.1f}", f"{row['processor told']:.1f}"]
        cells += [f"{row['processor told'] / row['processor'] - 1:+.0%}", f"{row['cache MiB']:.1f}"]
        table.add_row(*cells)
    Console(width=140).print(table)


def plot(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw time and memory over depth; the dashed lines are what the curve tells."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "inftythink"}
    with matplotlib.rc_context(style):
        figure, (times, caches) = pyplot.subplots(1, 2, figsize=(8.4, 3.2))
        for way, colour in (("one chain", "#c44e00"), ("rounds", "#0067a8")):
            mine = [row for row in rows if row["way"] == way]
            depths = [row["depth"] / 1024 for row in mine]
            times.plot(depths, [row["processor"] for row in mine], "o-", color=colour, label=way, markersize=4)
            times.plot(depths, [row["processor told"] for row in mine], "--", color=colour, linewidth=1)
            caches.plot(depths, [row["cache MiB"] for row in mine], "o-", color=colour, markersize=4)
        times.set(xlabel="reasoning, thousand tokens", ylabel="processor's seconds", xlim=(0, None), ylim=(0, None))
        caches.set(xlabel="reasoning, thousand tokens", ylabel="cache in use, MiB", xlim=(0, None), ylim=(0, None))
        times.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(folder / "depth.svg", metadata={"Date": None})
        pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=DEPTHS[-1], help="tokens of reasoning")
    parser.add_argument("--eta", type=int, default=PIECE, help=f"tokens of reasoning in a round, a multiple of {PIECE}")
    parser.add_argument("--gamma", type=int, default=256, help="tokens of a summary")
    parser.add_argument("--sample", type=int, default=1, help="generate one token in so many")
    parser.add_argument("--fit", type=int, default=8192, help="the curve is fitted to the first tokens of reasoning")
    parser.add_argument("--seconds", type=float, default=7200.0, help="go no deeper after so long")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    parser.add_argument("--plot", type=Path, help="draw depth.svg into this folder")
    add_options(parser)
    args = parser.parse_args()
    with served(args) as (url, model):
        architecture = read_architecture(json.loads((model / "config.json").read_text(encoding="utf-8")))
        found = asyncio.run(measure(Server(url, architecture), args))
    rows = table_of(found, args.eta, args.fit)
    show(rows, args.fit)
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
