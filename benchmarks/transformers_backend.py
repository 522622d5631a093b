"""Tokens a second of the in-process backend, many requests at once against one by one, in the same run.

python benchmarks/transformers_backend.py [--model DIR] [--tokens 64] [--repeats 3] [--at-once 1 8 16]

Every request generates the same number of tokens (greedy; a request that ends early counts what it made). Prints the
median over the repeats, and the ratio to one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path

from inftythink.backends.base import Request, Sampling
from inftythink.backends.transformers import Transformers
from inftythink.protocol.types import Part, PartKind, Prompt, Turn


def default_model() -> Path:
    cache = os.environ.get("INFTYTHINK_CACHE") or "~/.cache/inftythink"
    return Path(cache).expanduser() / "smollm2-135m-instruct"


def request(index: int, tokens: int) -> Request:
    question = f"Write a long story about the number {index}. " + "It must be detailed. " * (index % 5)
    return Request(Prompt((Turn("user", (Part(PartKind.CONTENT, question),)),)), tokens, (), Sampling(temperature=0.0))


async def measure(backend: Transformers, at_once: int, total: int, tokens: int) -> tuple[float, list[str]]:
    """Return tokens a second over ``total`` requests, ``at_once`` at any time, and the texts."""
    slots = asyncio.Semaphore(at_once)

    async def one(index: int) -> tuple[int, str]:
        async with slots:
            completion = await backend.complete(request(index, tokens))
            return completion.completion_tokens, completion.text

    start = time.perf_counter()
    done = await asyncio.gather(*map(one, range(total)))
    return sum(count for count, _ in done) / (time.perf_counter() - start), [text for _, text in done]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--total", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 16])
    args = parser.parse_args()
    backend = Transformers(args.model, max_batch=max(args.at_once))
    await backend.start()
    await measure(backend, 1, 1, 8)  # warm-up
    speeds: dict[int, list[float]] = {n: [] for n in args.at_once}
    texts: dict[int, list[str]] = {}
    for _ in range(args.repeats):  # interleaved, so that a busy machine is busy for all
        for n in args.at_once:
            speed, texts[n] = await measure(backend, n, args.total, args.tokens)
            speeds[n].append(speed)
    await backend.aclose()
    alone = statistics.median(speeds[args.at_once[0]])
    for n in args.at_once:
        same = sum(a == b for a, b in zip(texts[n], texts[args.at_once[0]], strict=True))
        speed = statistics.median(speeds[n])
        spread = f"{min(speeds[n]):.1f}-{max(speeds[n]):.1f}"
        print(f"{n:3d} at once: {speed:7.1f} tokens/s ({spread}), x{speed / alone:.2f}, same text {same}/{args.total}")


if __name__ == "__main__":
    asyncio.run(main())
