"""The contract of ``Backend`` as tests. Every backend runs them: subclass ``BackendContract`` with its cases.

class TestMine(BackendContract):
    cases = (Case("mine", open_mine, decode=tokenizer.decode),)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from inftythink.backends.base import Backend, Delta, Request, Sampling
from inftythink.errors import BackendError
from inftythink.protocol.types import Completion, Part, PartKind, Prompt, Stop, Turn

GREEDY = Sampling(temperature=0.0, top_p=1.0)
SPECIAL_TEXTS = "<|im_end|> <|im_start|>user <|endoftext|> <|end|> </think> <summary>x</summary> <s> [INST] \x00"


@dataclass(frozen=True)
class Case:
    """One backend, opened for each test, and what may be expected of the model behind it.

    ``open`` gives a started backend. ``decode`` and ``encode`` are the model's tokenizer, needed when the backend says
    ``token_ids``. ``short`` is a question whose answer ends by itself within 200 tokens. ``echoes``: the model answers
    ``Repeat: X`` with X. ``exact_prefill``: begun with the first half of its own answer it gives the second half (a
    model whose tokenizer splits the joint differently may not). ``seeded``: the same seed gives the same text.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Backend]]
    decode: Callable[[list[int]], str] | None = None
    encode: Callable[[str], list[int]] | None = None
    question: str = "How do I add 17 and 25? Explain every step."
    short: str = "Repeat: four"
    echoes: bool = False
    exact_prefill: bool = False
    seeded: bool = True
    many: int = 32


def prompt(question: str, begun: str = "") -> Prompt:
    turn = Turn("user", (Part(PartKind.CONTENT, question),))
    return Prompt((turn,), (Part(PartKind.CONTENT, begun),) if begun else ())


def ask(question: str, max_tokens: int = 24, **changes: Any) -> Request:
    return replace(Request(prompt(question), max_tokens, (), GREEDY), **changes)


async def collect(backend: Backend, request: Request) -> tuple[list[Delta], Completion]:
    """Read a stream to its end; the completion must come last, once."""
    items = [item async for item in backend.stream(request)]
    deltas, last = items[:-1], items[-1]
    assert isinstance(last, Completion)
    assert all(isinstance(item, Delta) for item in deltas)
    return [item for item in deltas if isinstance(item, Delta)], last


def same(one: Completion, other: Completion) -> bool:
    """Whether two completions say the same, times and ids aside (some servers stream no ids)."""
    names = ("text", "stop", "stop_text", "reasoning", "error")
    return all(getattr(one, name) == getattr(other, name) for name in names)


class BackendContract:
    """The tests. They hold for any model: what is expected is derived from what the model said before."""

    cases: ClassVar[tuple[Case, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        cases = getattr(metafunc.cls, "cases", ())
        metafunc.parametrize("case", cases, ids=[case.name for case in cases])

    async def test_the_limit_of_tokens_is_obeyed(self, case: Case) -> None:
        async with case.open() as backend:
            for limit in (1, 2, 7):
                completion = await backend.complete(ask(case.question, limit))
                assert completion.stop is Stop.LENGTH
                assert completion.completion_tokens == limit
                assert completion.stop_text is None
                assert completion.error is None

    async def test_an_answer_that_ends_by_itself_is_stop(self, case: Case) -> None:
        async with case.open() as backend:
            completion = await backend.complete(ask(case.short, 200))
            assert completion.stop is Stop.STOP
            assert completion.stop_text is None
            assert completion.text
            assert 0 < completion.completion_tokens <= 200
            if case.echoes:
                assert completion.text == case.short.removeprefix("Repeat: ")

    async def test_a_stop_string_is_kept_and_named_and_nothing_follows(self, case: Case) -> None:
        async with case.open() as backend:
            whole = (await backend.complete(ask(case.question, 24))).text
            # Short and long ones, at many places: some lie inside a token, some are split over several.
            spots = [(start, length) for start in range(3, len(whole) - 9, 7) for length in (1, 2, 5, 9)]
            for start, length in spots[:20]:
                stop = whole[start : start + length]
                request = ask(case.question, 24, stop=(stop,))
                expected = whole[: whole.index(stop) + len(stop)]
                for completion in (await backend.complete(request), (await collect(backend, request))[1]):
                    assert (completion.text, completion.stop_text) == (expected, stop)
                    assert completion.stop is Stop.STOP
                    assert completion.completion_tokens <= 24

    async def test_the_stop_string_that_is_complete_first_wins(self, case: Case) -> None:
        async with case.open() as backend:
            whole = (await backend.complete(ask(case.question, 24))).text
            early, late = whole[4:8], whole[-6:-2]
            assert early not in whole[:7]
            completion = await backend.complete(ask(case.question, 24, stop=(late, "never this", early)))
            assert completion.stop_text == (early if whole.index(early) <= whole.index(late) else late)
            assert completion.text.endswith(completion.stop_text or "?")

    async def test_a_stop_string_that_never_comes_changes_nothing(self, case: Case) -> None:
        async with case.open() as backend:
            without = await backend.complete(ask(case.question, 12))
            with_it = await backend.complete(ask(case.question, 12, stop=("\x01 never this \x01",)))
            assert same(without, with_it)
            empty = await backend.complete(ask(case.question, 12, stop=("",)))
            assert same(without, empty)

    async def test_a_stream_says_what_complete_says(self, case: Case) -> None:
        async with case.open() as backend:
            whole = await backend.complete(ask(case.question, 24))
            for request in (
                ask(case.question, 24),
                ask(case.question, 3),
                ask(case.question, 24, stop=(whole.text[6:9],)),
                ask(case.short, 200),
            ):
                completion = await backend.complete(request)
                deltas, last = await collect(backend, request)
                assert same(completion, last)
                assert "".join(delta.text for delta in deltas) == last.text
                assert "".join(delta.reasoning for delta in deltas) == (last.reasoning or "")
                assert last.prompt_tokens == completion.prompt_tokens

    async def test_a_seed_repeats_itself(self, case: Case) -> None:
        sampling = Sampling(temperature=1.0, top_p=1.0, seed=11)
        async with case.open() as backend:
            texts = {(await backend.complete(ask(case.question, 12, sampling=sampling))).text for _ in range(3)}
            assert len(texts) == 1 if case.seeded else texts

    async def test_a_begun_turn_is_continued(self, case: Case) -> None:
        async with case.open() as backend:
            whole = (await backend.complete(ask(case.question, 24))).text
            begun, rest = whole[: len(whole) // 2], whole[len(whole) // 2 :]
            request = Request(prompt(case.question, begun), 24, (), GREEDY)
            if not backend.capabilities.prefill:
                with pytest.raises(BackendError, match="begun assistant turn"):
                    await backend.complete(request)
                return
            continued = await backend.complete(request)
            assert continued.text
            assert not continued.text.startswith(begun)
            if case.exact_prefill:
                assert continued.text.startswith(rest)

    async def test_many_at_once_answer_as_they_do_alone(self, case: Case) -> None:
        requests = [ask(f"{case.question} ({i})", 1 + i % 9) for i in range(case.many)]
        async with case.open() as backend:
            together = await asyncio.gather(*map(backend.complete, requests))
            for request, completion in zip(requests, together, strict=True):
                assert completion.completion_tokens == request.max_tokens
                assert completion.stop is Stop.LENGTH
            for i in range(0, case.many, 5):
                alone = await backend.complete(requests[i])
                assert alone.completion_tokens == together[i].completion_tokens
                if case.exact_prefill:
                    assert alone.text == together[i].text

    async def test_a_cancelled_request_leaves_the_backend_usable(self, case: Case) -> None:
        async with case.open() as backend:
            before = await backend.complete(ask(case.question, 8))
            tasks = [asyncio.create_task(backend.complete(ask(case.question, 400))) for _ in range(4)]
            await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError | Completion) for result in results)
            assert same(before, await backend.complete(ask(case.question, 8)))

    async def test_a_stream_that_is_left_early_leaves_the_backend_usable(self, case: Case) -> None:
        async with case.open() as backend:
            before = await backend.complete(ask(case.question, 8))
            for _ in range(3):
                async with aclosing(backend.stream(ask(case.question, 400))) as items:  # type: ignore[type-var]
                    async for item in items:
                        assert isinstance(item, Delta)
                        break
            assert same(before, await backend.complete(ask(case.question, 8)))

    async def test_token_ids_are_the_text(self, case: Case) -> None:
        async with case.open() as backend:
            for request in (ask(case.question, 12), ask(case.short, 200)):
                completion = await backend.complete(request)
                if not backend.capabilities.token_ids:
                    assert completion.token_ids is None
                    continue
                assert case.decode is not None
                assert completion.token_ids is not None
                assert len(completion.token_ids) == completion.completion_tokens
                ids = list(completion.token_ids)
                whole, without_end = case.decode(ids), case.decode(ids[:-1])
                assert completion.text in (whole, whole.rstrip("\ufffd"), without_end)
                if completion.stop is Stop.LENGTH:
                    assert completion.text == whole.rstrip("\ufffd")

    async def test_token_ids_end_with_the_one_that_completes_the_stop_string(self, case: Case) -> None:
        async with case.open() as backend:
            whole = (await backend.complete(ask(case.question, 24))).text
            completion = await backend.complete(ask(case.question, 24, stop=(whole[9:13],)))
            if not backend.capabilities.token_ids:
                assert completion.token_ids is None
                return
            assert case.decode is not None
            assert completion.token_ids is not None
            assert len(completion.token_ids) == completion.completion_tokens
            assert case.decode(list(completion.token_ids)).startswith(completion.text)
            assert whole[9:13] not in case.decode(list(completion.token_ids[:-1]))

    async def test_token_ids_in_a_prompt_stand_for_their_text(self, case: Case) -> None:
        async with case.open() as backend:
            if not backend.capabilities.token_ids:
                return  # nothing is promised
            assert case.encode is not None
            part = Part(PartKind.CONTENT, ids=tuple(case.encode(case.question)))
            as_ids = await backend.complete(ask("", 12, prompt=Prompt((Turn("user", (part,)),))))
            as_text = await backend.complete(ask(case.question, 12))
            assert same(as_ids, as_text)
            assert as_ids.prompt_tokens == as_text.prompt_tokens

    async def test_log_probabilities_belong_to_the_tokens(self, case: Case) -> None:
        async with case.open() as backend:
            assert (await backend.complete(ask(case.question, 6))).logprobs is None
            if not backend.capabilities.logprobs:
                return  # nothing is promised
            sampling = replace(GREEDY, logprobs=True)
            whole = (await backend.complete(ask(case.question, 24))).text
            for stop in ((), (whole[9:13],)):
                request = ask(case.question, 24, sampling=sampling, stop=stop)
                for completion in (await backend.complete(request), (await collect(backend, request))[1]):
                    assert completion.logprobs is not None
                    assert completion.token_ids is not None
                    assert len(completion.logprobs) == len(completion.token_ids)
                    assert all(value <= 0.0 and math.isfinite(value) for value in completion.logprobs)

    async def test_texts_of_special_tokens_are_content(self, case: Case) -> None:
        async with case.open() as backend:
            completion = await backend.complete(ask(f"{case.question} {SPECIAL_TEXTS}", 8))
            assert completion.stop in (Stop.STOP, Stop.LENGTH)
            plain = await backend.complete(ask(case.question, 8))
            assert completion.prompt_tokens > plain.prompt_tokens

    async def test_tokens_are_counted(self, case: Case) -> None:
        async with case.open() as backend:
            short, long = [await backend.complete(ask(case.question * n, 4)) for n in (1, 8)]
            assert 0 < short.prompt_tokens < long.prompt_tokens
            assert short.completion_tokens == long.completion_tokens == 4
            assert short.cached_tokens is None or 0 <= short.cached_tokens <= short.prompt_tokens
            assert short.seconds >= 0
            assert short.queue_seconds >= 0

    async def test_characters_are_never_broken(self, case: Case) -> None:
        said = "naïve 🙂🧮👩‍🔬 推理は続く Ελλάδα"
        async with case.open() as backend:
            for limit in (1, 2, 3, 4, 5, 6, 9, 14, 30):
                deltas, last = await collect(backend, ask(f"Repeat: {said}", limit))
                assert all("\ufffd" not in delta.text for delta in deltas)
                assert "\ufffd" not in last.text
                if case.echoes:
                    assert said.startswith(last.text)
