"""The in-process backend: the contract, and that a batch says what each of its rows would say alone."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, TopKLogitsWarper, TopPLogitsWarper

from inftythink.backends._decode import Batch, Row, draw
from inftythink.backends.base import Delta, Request, Sampling
from inftythink.backends.transformers import Transformers
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError
from inftythink.protocol.types import Completion, Part, PartKind, Prompt, Stop, Turn
from inftythink.render import Renderer
from tests import tiny
from tests.backends.conformance import BackendContract, Case

GREEDY = Sampling(temperature=0.0, logprobs=True)
ADD = "How do I add 17 and 25? Explain every step."
ANSWER = "First add 7 and 5, which gives 12: write 2, keep 1. Then 1 + 1 + 2 = 4, so we get 42, naïvely 🙂 "


@lru_cache
def renderer(name: str = "qwen3") -> Renderer:
    return Renderer(tiny.bytes_tokenizer() if name == "bytes" else tiny.tiny(name))


@lru_cache
def model() -> Any:
    """A random model: what it says means nothing, its arithmetic is exact."""
    return tiny.llama(len(tiny.tiny("qwen3"))).to(torch.float64)


@lru_cache
def endless() -> Any:
    """A random model that never ends by itself."""
    return tiny.never_say(tiny.llama(len(tiny.tiny("qwen3"))), renderer().eos_ids)


@asynccontextmanager
async def opened(made: Any = None, which: str = "qwen3", **options: Any) -> AsyncIterator[Transformers]:
    backend = Transformers(made or model(), renderer(which), **options)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.aclose()


def ask(question: str, max_tokens: int = 16, sampling: Sampling = GREEDY, stop: tuple[str, ...] = ()) -> Request:
    prompt = Prompt((Turn("user", (Part(PartKind.CONTENT, question),)),))
    return Request(prompt, max_tokens, stop, sampling)


QUESTIONS = tuple("why so? " * n + str(n) for n in (1, 20, 3, 60, 2, 9, 33, 5, 1, 14, 41, 7))


# The contract


@asynccontextmanager
async def learned() -> AsyncIterator[Transformers]:
    pairs = ((ADD, ANSWER), ("Repeat: four", "four"), (f"{ADD} (7)", ANSWER), (f"{ADD} (21)", ANSWER))
    async with opened(tiny.taught(pairs), "bytes") as backend:
        yield backend


def decode(ids: list[int]) -> str:
    return renderer("bytes").decode(ids)


class TestContract(BackendContract):
    cases = (
        Case("transformers", learned, decode, lambda text: renderer("bytes").encode_content(text), exact_prefill=True),
    )


# A batch says what its rows would say alone


async def test_ids_are_those_of_generate() -> None:
    async with opened() as backend:
        together = await asyncio.gather(*(backend.complete(ask(q)) for q in QUESTIONS))
    ends = list(renderer().eos_ids)
    for question, completion in zip(QUESTIONS, together, strict=True):
        prompt = torch.tensor([renderer().ids(ask(question).prompt)])
        with torch.inference_mode():
            expected = model().generate(prompt, max_new_tokens=16, do_sample=False, eos_token_id=ends, pad_token_id=0)
        assert completion.prompt_ids == tuple(prompt[0].tolist())
        assert completion.token_ids == tuple(expected[0, prompt.shape[1] :].tolist())


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
async def test_log_probabilities_are_those_of_one_forward_pass(temperature: float) -> None:
    sampling = Sampling(temperature=temperature, top_p=0.9, top_k=20, seed=3, logprobs=True)
    async with opened() as backend:
        together = await asyncio.gather(*(backend.complete(ask(q, 12, sampling)) for q in QUESTIONS))
    for completion in together:
        assert completion.prompt_ids is not None
        assert completion.token_ids is not None
        ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
        with torch.inference_mode():
            logits = model()(ids).logits[0, len(completion.prompt_ids) - 1 : -1]
        expected = (logits / (temperature or 1.0)).log_softmax(-1)
        expected = expected.gather(1, torch.tensor(completion.token_ids).unsqueeze(1)).squeeze(1)
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-9)


async def test_a_seeded_row_does_not_depend_on_its_neighbours() -> None:
    requests = [ask(q, 5 + i, Sampling(1.0, 0.9, seed=i, logprobs=True)) for i, q in enumerate(QUESTIONS)]
    async with opened(max_batch=5) as backend:
        together = await asyncio.gather(*map(backend.complete, requests))
        for request, completion in zip(requests, together, strict=True):
            alone = await backend.complete(request)
            assert alone.token_ids == completion.token_ids
            assert alone.logprobs == pytest.approx(completion.logprobs, abs=1e-9)
    assert len({completion.token_ids for completion in together}) == len(requests)


async def test_a_request_joins_while_others_run() -> None:
    """No barrier: a short request that comes late is done before a long one that was there first."""
    async with opened(endless()) as backend:
        done, items = [], backend.stream(ask("a", 600))
        done.append(await anext(items))  # the long one is running
        for _ in range(3):
            done.append(await backend.complete(ask("b", 2)))
        done += [item async for item in items]
    ends = [item.completion_tokens for item in done if isinstance(item, Completion)]
    assert ends == [2, 2, 2, 600]


async def test_room_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    widths, rows = [], []
    step = Batch.step

    def spied(batch: Batch) -> Any:
        rows.append(len(batch.rows))
        widths.append(len(batch.rows) * batch.width)
        return step(batch)

    monkeypatch.setattr(Batch, "step", spied)
    async with opened(endless(), max_batch=4, max_cache_tokens=600) as backend:
        completions = await asyncio.gather(*(backend.complete(ask(q, 8)) for q in QUESTIONS))
    assert all(completion.completion_tokens == 8 for completion in completions)
    assert 1 < max(rows) <= 4
    too_long = max(len(renderer().ids(ask(q).prompt)) + 8 for q in QUESTIONS)
    assert max(widths) <= max(600, too_long)


async def test_a_sliding_window_is_kept_when_rows_are_merged() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=len(tiny.tiny("qwen3")), num_key_value_heads=2, sliding_window=16, **sizes)
    config.initializer_range = 0.5
    sliding = MistralForCausalLM(config).eval().to(torch.float64)
    async with opened(sliding) as backend:
        together = await asyncio.gather(*(backend.complete(ask(q, 12)) for q in QUESTIONS))
    for completion in together:
        ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
        with torch.inference_mode():
            logprobs = sliding(ids).logits[0, len(completion.prompt_ids) - 1 : -1].log_softmax(-1)
        assert completion.token_ids == tuple(logprobs.argmax(-1).tolist())
        assert completion.logprobs == pytest.approx(logprobs.amax(-1).tolist(), abs=1e-9)


def greedy_row(prompt: list[int], max_tokens: int) -> Row:
    return Row(prompt, max_tokens, Sampling(temperature=0.0), random.Random(0))


def drive(batch: Batch, arrivals: dict[int, list[Row]], spy: Callable[[], None] = lambda: None) -> dict[int, list[int]]:
    """Let rows join before the given steps and leave when they are done; return each one's tokens by its id()."""
    said: dict[int, list[int]] = {id(row): [] for rows in arrivals.values() for row in rows}
    for step in range(200):
        drawn = [d for rows in batch.groups(arrivals.get(step, [])) for d in batch.admit(rows)]
        spy()
        drawn += batch.step() if batch.rows else []
        for one in drawn:
            said[id(one.row)].append(one.token)
        batch.drop([row for row in batch.rows if len(said[id(row)]) >= row.max_tokens])
    return said


@pytest.mark.parametrize("slack", [1, 5, 64])
def test_rows_that_come_and_go_say_what_generate_says(slack: int) -> None:
    """Over many replacements of the cache's buffers, whatever places rows move to, down to an empty batch and again."""
    draw = random.Random(0)
    prompts = [[draw.randrange(100) for _ in range(draw.choice((1, 4, 9, 30, 90)))] for _ in range(16)]
    rows = [greedy_row(prompt, draw.randint(2, 40)) for prompt in prompts]
    arrivals = {0: rows[:3], 2: rows[3:8], 9: rows[8:9], 30: rows[9:13], 120: rows[13:]}
    said = drive(Batch(model(), slack=slack), arrivals)
    for row in rows:
        with torch.inference_mode():
            expected = model().generate(
                torch.tensor([row.prompt_ids]),
                attention_mask=torch.ones(1, len(row.prompt_ids), dtype=torch.long),
                max_new_tokens=row.max_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        assert said[id(row)][: row.max_tokens] == expected[0, len(row.prompt_ids) :].tolist()


def test_the_width_follows_the_rows_that_are_there() -> None:
    """A long row's padding goes when it leaves, and what has left takes no room for ever."""
    batch, widths = Batch(model(), slack=4), []
    long, short, late = greedy_row([1] * 300, 3), greedy_row([2] * 5, 120), greedy_row([3] * 5, 60)
    drive(batch, {0: [long, short], 80: [late]}, lambda: widths.append(batch.width))
    assert max(widths) <= 303
    assert max(widths[4:]) <= 5 + 120


def test_a_prompt_that_several_rows_share_is_computed_once() -> None:
    computed = []
    watched = tiny.llama(100).to(torch.float64)
    watched.register_forward_pre_hook(lambda _, __, given: computed.append(given["input_ids"].shape), with_kwargs=True)
    prompts = [[7, 8, 9, 10], [5, 6], [7, 8, 9, 10], [7, 8, 9, 10], [5, 6]]
    rows = [greedy_row(prompt, 4) for prompt in prompts]
    said = drive(Batch(watched), {0: rows})
    assert computed[0] == (2, 4)
    alone = [drive(Batch(watched), {0: [row]})[id(row)] for row in rows[:2]]
    assert [said[id(row)] for row in rows] == [alone[0 if len(prompt) == 4 else 1] for prompt in prompts]


def test_a_row_that_broke_leaves_nothing_behind() -> None:
    """Its numbers are not finite; a row that takes its place is computed as if it had never been."""
    broken = tiny.llama(100).to(torch.float64)
    broken.model.embed_tokens.weight.data[99] = math.nan
    bad, other, late = greedy_row([99] * 8, 3), greedy_row([1] * 20, 40), greedy_row([2] * 4, 10)
    said = drive(Batch(broken), {0: [bad, other], 6: [late]})
    assert said[id(late)] == drive(Batch(broken), {0: [late]})[id(late)]
    assert said[id(other)] == drive(Batch(broken), {0: [other]})[id(other)]


# Sampling


def row(seed: int, **sampling: Any) -> Row:
    return Row([1], 1, Sampling(**sampling), random.Random(seed))


def test_tokens_are_drawn_as_asked() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))

    def seen(**sampling: Any) -> set[int]:
        rows = [row(seed, **sampling) for seed in range(300)]
        return {d.token for d in draw(rows, logits.expand(300, -1))}

    assert seen(temperature=1.0, top_p=1.0) == {0, 1, 2, 3}
    assert seen(temperature=1.0, top_p=0.7) == {0, 1}
    assert seen(temperature=1.0, top_p=1.0, top_k=3) == {0, 1, 2}
    assert seen(temperature=0.0) == {0}
    counts = [d.token for d in draw([row(i, temperature=0.5, top_p=1.0) for i in range(4000)], logits.expand(4000, -1))]
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    expected = (squares / squares.sum())[0].item()
    assert counts.count(0) / 4000 == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.5), (0, 0.95), (40, 1.0), (400, 0.8), (2000, 0.9)])
@pytest.mark.parametrize("spread", [0.1, 4.0])
def test_what_is_kept_is_what_transformers_keeps(top_k: int, top_p: float, spread: float) -> None:
    """For flat and peaked distributions over a vocabulary that is larger than what is sorted at first."""
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * spread
    kept = TopKLogitsWarper(top_k)(None, logits) if top_k else logits
    kept = (TopPLogitsWarper(top_p)(None, kept) if top_p < 1 else kept).softmax(-1)[0]
    rows = [row(seed, temperature=1.0, top_k=top_k, top_p=top_p) for seed in range(2000)]
    drawn = [d.token for d in draw(rows, logits.expand(2000, -1))]
    assert all(kept[token] > 0 for token in drawn)
    shares = torch.bincount(torch.tensor(drawn), minlength=1000) / 2000
    likeliest = kept.topk(100).indices
    assert shares[likeliest].sum().item() == pytest.approx(kept[likeliest].sum().item(), abs=0.05)


def test_rows_of_all_kinds_are_drawn_in_one_call() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7])).expand(4, -1).clone()
    logits[3] = math.nan
    kinds = ({"temperature": 0.0}, {"temperature": 2.0, "top_k": 1}, {"temperature": 1.0, "top_p": 0.1}, {"top_p": 1.0})
    drawn = draw([row(0, **kind) for kind in kinds], logits)
    assert [d.token for d in drawn[:3]] == [2, 2, 2]
    assert drawn[0].logprob == pytest.approx(math.log(0.7))
    assert math.isnan(drawn[3].logprob)


# Text


async def test_broken_bytes_at_the_end_are_left_out_and_inside_are_kept() -> None:
    async with opened() as backend:
        for seed in range(12):
            request = ask("x", 40, Sampling(1.0, 1.0, seed=seed))
            items = [item async for item in backend.stream(request)]
            last = items[-1]
            assert isinstance(last, Completion)
            assert "".join(item.text for item in items if isinstance(item, Delta)) == last.text
            ids = [token for token in last.token_ids or () if token not in renderer().eos_ids]
            assert last.text == renderer().decode(ids).rstrip("\ufffd")


async def test_an_end_of_sequence_is_in_the_ids_and_not_in_the_text() -> None:
    async with opened() as backend:
        ended = None
        for seed in range(40):
            completion = await backend.complete(ask("x", 200, Sampling(1.5, 1.0, seed=seed)))
            if completion.stop is Stop.STOP:
                ended = completion
                break
    assert ended is not None
    assert ended.token_ids is not None
    assert ended.token_ids[-1] in renderer().eos_ids
    assert "<|im_end|>" not in ended.text


# Failures


async def test_what_cannot_work_is_told_and_the_others_go_on() -> None:
    async with opened(endless()) as backend:
        with pytest.raises(ContextTooLongError, match=r"prompt has \d+ tokens and 2000 more .* window is 1024"):
            await backend.complete(ask("x", 2000))
        with pytest.raises(BackendError, match="max_tokens is 0"):
            await backend.complete(ask("x", 0))
        with pytest.raises(BackendError, match=r"top_p 0"):
            await backend.complete(ask("x", 1, Sampling(top_p=0.0)))
        foreign = replace(ask("x").prompt, prefill=(Part(PartKind.CONTENT, ids=(10**6,)),))
        with pytest.raises(BackendError, match="token 1000000"):
            await backend.complete(replace(ask("x"), prompt=foreign))
        assert (await backend.complete(ask("x", 4))).completion_tokens == 4


@pytest.mark.parametrize("where", ["admit", "step"])
async def test_a_failing_model_fails_its_rows_only(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as backend:
        before = await backend.complete(ask("x", 6))
        with monkeypatch.context() as patch:

            def broken(*_: Any) -> None:
                raise torch.OutOfMemoryError("out of memory")

            patch.setattr(Batch, where, broken)
            results = await asyncio.gather(*(backend.complete(ask(q, 6)) for q in "abc"), return_exceptions=True)
        assert all(isinstance(result, BackendError) and "out of memory" in str(result) for result in results)
        assert (await backend.complete(ask("x", 6))).token_ids == before.token_ids


async def test_probabilities_that_are_no_numbers_are_an_error() -> None:
    broken = tiny.llama(len(tiny.tiny("qwen3")))
    broken.lm_head.weight.data.fill_(math.nan)
    async with opened(broken) as backend:
        with pytest.raises(BackendError, match="not finite"):
            await backend.complete(ask("x"))


async def test_a_cancelled_row_leaves_at_the_next_step() -> None:
    async with opened(endless(), max_batch=1) as backend:
        task = asyncio.create_task(backend.complete(ask("x", 900)))
        await asyncio.sleep(0.02)
        task.cancel()
        after = await backend.complete(ask("y", 3))  # with room for one row it would wait for 900 steps
        assert after.completion_tokens == 3
        assert backend._worker is not None
        assert not backend._worker._running


async def test_closing_tells_whoever_waits_and_ends_the_thread() -> None:
    async with opened(endless(), max_batch=1) as backend:
        tasks = [asyncio.create_task(backend.complete(ask("x", 900))) for _ in range(3)]
        await asyncio.sleep(0.02)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, BackendError) and "closed" in str(result) for result in results)
    assert not [thread for thread in threading.enumerate() if thread.name == "inftythink-transformers"]
    with pytest.raises(BackendError, match="not started"):
        await backend.complete(ask("x"))


async def test_a_model_that_cannot_be_used_is_refused(tmp_path: Any) -> None:
    with pytest.raises(BackendFatalError, match="cannot load the model"):
        await Transformers(tmp_path / "none").start()
    with pytest.raises(BackendFatalError, match="needs its renderer"):
        await Transformers(model()).start()
    odd = tiny.llama(300)
    odd.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(BackendFatalError, match=r"linear_attention.*cannot be batched"):
        await Transformers(odd, renderer()).start()


async def test_the_model_never_runs_on_the_event_loops_thread() -> None:
    threads = set()
    watched = tiny.llama(len(tiny.tiny("qwen3")))
    watched.register_forward_hook(lambda *_: threads.add(threading.current_thread()))
    async with opened(watched) as backend:
        await backend.complete(ask("x", 3))
    assert threads
    assert threading.current_thread() not in threads


async def test_a_folder_is_loaded_with_its_tokenizer(tmp_path: Any) -> None:
    tiny.llama(len(tiny.tiny("qwen3"))).save_pretrained(tmp_path)
    tiny.tiny("qwen3").save_pretrained(tmp_path)
    async with opened(tmp_path, which="qwen3") as backend:
        loaded = await backend.complete(ask("x", 4))
    backend = Transformers(str(tmp_path))
    await backend.start()
    assert (await backend.complete(ask("x", 4))).token_ids == loaded.token_ids
    await backend.aclose()
