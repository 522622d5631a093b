"""The fake backend, beyond the contract."""

from __future__ import annotations

import asyncio

import pytest

from inftythink.backends.base import Capabilities, Delta
from inftythink.backends.scripted import Scripted
from inftythink.errors import BackendError, BackendFatalError
from inftythink.protocol.types import Completion, Stop
from tests.backends.conformance import ask, collect


async def test_replies_come_in_order_and_then_end() -> None:
    given = Completion("given", Stop.LENGTH, completion_tokens=3)
    backend = Scripted(["one two", given, BackendError("broken")])
    first = await backend.complete(ask("a b c"))
    assert (first.text, first.stop, first.prompt_tokens, first.completion_tokens) == ("one two", Stop.STOP, 3, 2)
    assert await backend.complete(ask("q")) is given
    with pytest.raises(BackendError, match="broken"):
        await backend.complete(ask("q"))
    with pytest.raises(BackendFatalError, match="no reply for request 4"):
        await backend.complete(ask("q"))


async def test_a_function_sees_the_request() -> None:
    backend = Scripted(lambda request: request.prompt.turns[0].text.upper())
    assert (await backend.complete(ask("abc"))).text == "ABC"


@pytest.mark.parametrize(
    ("limit", "stop", "text", "ended", "matched"),
    [
        (3, (), " one two\nthree", Stop.LENGTH, None),
        (0, (), "", Stop.LENGTH, None),
        (9, ("two",), " one two", Stop.STOP, "two"),
        (1, ("two",), " one", Stop.LENGTH, None),
        (4, (), " one two\nthree four ", Stop.STOP, None),
    ],
)
async def test_a_text_obeys_the_request(
    limit: int, stop: tuple[str, ...], text: str, ended: Stop, matched: str | None
) -> None:
    completion = await Scripted([" one two\nthree four "]).complete(ask("q", limit, stop=stop))
    assert (completion.text, completion.stop, completion.stop_text) == (text, ended, matched)
    assert completion.completion_tokens == len(text.split())


async def test_requests_are_remembered_as_asked() -> None:
    for keep, kept in ((None, 5), (2, 2), (0, 0)):
        backend = Scripted(["x"] * 5, keep=keep)
        for i in range(5):
            await backend.complete(ask(f"{i}"))
        assert len(backend.requests) == kept
        assert backend.calls == 5
        assert not kept or backend.requests[-1].prompt.turns[0].text == "4"


async def test_reasoning_is_streamed_before_the_text() -> None:
    backend = Scripted([Completion("answer", Stop.STOP, reasoning="thought")], chunk=4)
    deltas, last = await collect(backend, ask("q"))
    assert deltas == [Delta("", "thou"), Delta("", "ght"), Delta("answ"), Delta("er")]
    assert last.reasoning == "thought"


async def test_latency_is_waited_out_side_by_side_and_counted() -> None:
    backend = Scripted(lambda _: "x", latency=0.01)
    await asyncio.gather(*[backend.complete(ask("q")) for _ in range(50)])
    assert backend.peak == 50
    assert backend.running == 0


async def test_without_latency_a_request_never_waits() -> None:
    """A coroutine that never suspends ends at its first step: no loop turn is spent on the fake."""
    backend = Scripted(lambda _: "x")
    with pytest.raises(StopIteration):
        backend.complete(ask("q")).send(None)


async def test_capabilities_are_what_the_test_says() -> None:
    told = Capabilities(prefill=False, token_ids=True, logprobs=True)
    assert Scripted([], capabilities=told).capabilities is told
