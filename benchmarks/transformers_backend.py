"""Tokens a second of the in-process backend.

python benchmarks/transformers_backend.py [--part small at-once long] [--model DIR] [--dtypes float32 bfloat16]

``small``: a Llama of 0.9 million parameters with random weights, driven by ``Reasoner``: 256 problems of 30 to 60
tokens, 60 to 120 new tokens each, in batches of several sizes. ``at-once``: requests of 64 tokens, many at once against
one by one. ``long``: prompts of 1,000 to 1,200 tokens and 96 new ones, as ``make demo`` has them, prompts and new
tokens apart, for each number type. Set OMP_NUM_THREADS for the number of cores. Repeats are interleaved, so that a busy
machine is busy for all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from inftythink.backends.base import Request, Sampling
from inftythink.backends.transformers import Transformers
from inftythink.protocol import Policy, Problem
from inftythink.protocol.types import Part, PartKind, Prompt, Turn
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer

GREEDY = Sampling(temperature=0.0)
WORDS = [f"w{number}" for number in range(98)]


def default_model() -> Path:
    cache = os.environ.get("INFTYTHINK_CACHE") or "~/.cache/inftythink"
    return Path(cache).expanduser() / "smollm2-135m-instruct"


def small() -> tuple[Any, Renderer]:
    """Return the small Llama and the renderer of its tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", "<end>", *WORDS])}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", name_or_path="words")
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=100, max_position_embeddings=1024, **sizes)).eval()
    return model, Renderer(tokenizer)


async def reason(backend: Transformers, at_once: int, sampling: Sampling) -> float:
    """Return tokens a second over 256 problems of one round."""
    draw = random.Random(0)
    problems = [Problem(str(i), " ".join(draw.choices(WORDS, k=draw.randint(30, 60)))) for i in range(256)]
    policy = Policy(interval=(60, 120), phi=1, on_cut="stop")
    reasoner = Reasoner(backend, carry="none", policy=policy, sampling=sampling, slots=at_once)
    start = time.perf_counter()
    tokens = sum([sum(r.completion_tokens for r in t.rounds) async for t in reasoner.run(problems)])
    return tokens / (time.perf_counter() - start)


async def measure_small(repeats: int) -> None:
    backend = Transformers(*small(), max_batch=128)
    await backend.start()
    kinds = {"greedy": GREEDY, "temperature 0.7, top_p 0.95": Sampling(0.7, 0.95, seed=1)}
    speeds: dict[tuple[str, int], list[float]] = {(kind, n): [] for kind in kinds for n in (16, 64, 128)}
    for repeat in range(repeats + 1):
        for (kind, n), found in speeds.items():
            speed = await reason(backend, n, kinds[kind])
            if repeat:  # the first warms up
                found.append(speed)
    await backend.aclose()
    for (kind, n), found in speeds.items():
        print(
            f"small, {kind}, {n:3d} rows: {statistics.median(found):7.0f} tokens/s ({min(found):.0f}-{max(found):.0f})"
        )


def request(question: str, tokens: int, sampling: Sampling = GREEDY) -> Request:
    return Request(Prompt((Turn("user", (Part(PartKind.CONTENT, question),)),)), tokens, (), sampling)


def story(index: int) -> str:
    return f"Write a long story about the number {index}. " + "It must be detailed. " * (index % 5)


async def measure(backend: Transformers, at_once: int, total: int, tokens: int) -> tuple[float, list[str]]:
    """Return tokens a second over ``total`` requests, ``at_once`` at any time, and the texts."""
    slots = asyncio.Semaphore(at_once)

    async def one(index: int) -> tuple[int, str]:
        async with slots:
            completion = await backend.complete(request(story(index), tokens))
            return completion.completion_tokens, completion.text

    start = time.perf_counter()
    done = await asyncio.gather(*map(one, range(total)))
    return sum(count for count, _ in done) / (time.perf_counter() - start), [text for _, text in done]


async def measure_at_once(model: str, repeats: int, total: int = 16, tokens: int = 64) -> None:
    sizes = (1, 8, 16)
    backend = Transformers(model)
    await backend.start()
    await measure(backend, 1, 1, 8)  # warm-up
    speeds: dict[int, list[float]] = {n: [] for n in sizes}
    texts: dict[int, list[str]] = {}
    for _ in range(repeats):
        for n in sizes:
            speed, texts[n] = await measure(backend, n, total, tokens)
            speeds[n].append(speed)
    await backend.aclose()
    alone = statistics.median(speeds[1])
    for n in sizes:
        same = sum(a == b for a, b in zip(texts[n], texts[1], strict=True))
        speed, spread = statistics.median(speeds[n]), f"{min(speeds[n]):.1f}-{max(speeds[n]):.1f}"
        print(f"{n:3d} at once: {speed:7.1f} tokens/s ({spread}), x{speed / alone:.2f}, same text {same}/{total}")


async def measure_long(model: str, dtype: str, rows: int) -> None:
    """Time prompts alone (one token each), then with 96 tokens; what is between is the new tokens' time."""
    backend = Transformers(model, dtype=dtype)
    await backend.start()
    await measure(backend, 1, 1, 8)  # warm-up
    draw = random.Random(0)
    asked = [
        request(" ".join(str(draw.randint(10, 99)) for _ in range(320 + 8 * i)), 96, Sampling(0.5, 0.95, seed=i))
        for i in range(rows)
    ]
    took, done = [], []
    for tokens in (1, 96):
        start = time.perf_counter()
        done = await asyncio.gather(*(backend.complete(replace(one, max_tokens=tokens)) for one in asked))
        took.append(time.perf_counter() - start)
    await backend.aclose()
    prompts, new = sum(c.prompt_tokens or 0 for c in done), sum(c.completion_tokens or 0 for c in done)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"long, {dtype}, {rows} rows: {prompts} prompt tokens in {took[0]:.1f} s ({prompts / took[0]:.0f}/s), "
        f"{new} new in {took[1] - took[0]:.1f} s ({(new - rows) / (took[1] - took[0]):.1f}/s), peak {peak:.2f} GiB"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=["small", "at-once", "long"])
    parser.add_argument("--model", default=str(default_model()))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8, help="rows of the part long")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="number types of the part long")
    args = parser.parse_args()
    if "small" in args.part:
        await measure_small(args.repeats)
    if "at-once" in args.part:
        await measure_at_once(args.model, args.repeats)
    if "long" in args.part:
        for dtype in args.dtypes:
            await measure_long(args.model, dtype, args.rows)


if __name__ == "__main__":
    asyncio.run(main())
