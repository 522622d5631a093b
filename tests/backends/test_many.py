"""Several servers as one backend, and the pace of requests: real servers, some of which are not well."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.backends._pace import Pace
from inftythink.backends.balance import FAILURES, LEAN, Balance, Member
from inftythink.backends.base import Request
from inftythink.backends.many import Many
from inftythink.backends.openai import OpenAI, Retry
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, UsageError
from inftythink.protocol import Completion, Prompt, Turn
from inftythink.protocol.format import content
from tests.servers import FakeServer, Fault


def ask(question: str, more: str = "", tokens: int = 40) -> Request:
    turns = (
        Turn("user", (content(question),)),
        Turn("assistant", (content("so far"),)),
        Turn("user", (content(more),)),
    )
    return Request(Prompt(turns), tokens)


def many(*servers: FakeServer, **settings) -> Many:
    quick = [OpenAI(server.url, retry=Retry(attempts=1, first=0.01)) for server in servers]
    return Many(quick, **{"interval": 0.05, "patience": 5.0} | settings)


async def test_requests_of_a_question_stay_and_questions_are_dealt_out():
    async with FakeServer("openai") as one, FakeServer("openai") as two:
        one.token_seconds = two.token_seconds = 0.002
        backend = many(one, two)
        await backend.start()
        questions = [f"Question {number}" for number in range(12)]
        for more in ("first", "second", "third"):
            await asyncio.gather(*(backend.complete(ask(question, more)) for question in questions))
        await backend.aclose()
        where = [{body["messages"][0]["content"] for body in server.requests} for server in (one, two)]
        assert where[0] | where[1] == set(questions)
        assert not where[0] & where[1], "a question was asked of both"
        assert len(where[0]) == len(where[1]) == 6


async def test_a_server_that_fails_is_left_out_and_taken_in_again():
    async with FakeServer("openai") as one, FakeServer("openai") as two:
        one.faults.extend([Fault("status", 500)] * FAILURES)
        backend = many(one, two, interval=30.0)
        await backend.start()
        for number in range(20):
            assert (await backend.complete(ask(f"Question {number}"))).text
        assert len(one.requests) == FAILURES, "it was asked again before it was checked"
        assert len(two.requests) == 20
        await backend._balance.check()
        assert (await backend.complete(ask("after the check"))).text
        await asyncio.gather(*(backend.complete(ask(f"Later {number}")) for number in range(8)))
        assert len(one.requests) > FAILURES
        await backend.aclose()


async def test_a_server_that_goes_away_and_comes_back_loses_no_request():
    async with FakeServer("openai") as one:
        two = FakeServer("openai")
        await two.__aenter__()
        backend = many(one, two)
        await backend.start()
        one.token_seconds = two.token_seconds = 0.001
        work = [asyncio.create_task(backend.complete(ask(f"Question {number}"))) for number in range(24)]
        await asyncio.sleep(0.02)
        await two.__aexit__()
        answers = await asyncio.gather(*work)
        assert all(answer.text for answer in answers)
        assert len(one.requests) >= 24 - len(two.requests)
        await backend.aclose()


async def test_one_that_does_not_answer_at_first_is_left_out():
    async with FakeServer("openai") as one:
        dead = OpenAI("http://127.0.0.1:9", "fake")
        backend = Many([dead, OpenAI(one.url)], interval=30.0)
        await backend.start()
        assert (await backend.complete(ask("Is anyone there?"))).text
        await backend.aclose()


async def test_none_answers():
    backend = Many([OpenAI("http://127.0.0.1:9", "fake"), OpenAI("http://127.0.0.1:10", "fake")])
    with pytest.raises(BackendFatalError, match=r"none of the 2 servers answers.*:9.*:10"):
        await backend.start()


async def test_requests_wait_for_a_server_and_give_up_in_the_end():
    async with FakeServer("openai") as one, FakeServer("openai") as two:
        backend = many(one, two, patience=0.3, interval=30.0)
        await backend.start()
        for server in (one, two):
            server.faults.append(Fault("status", 401))
        with pytest.raises(BackendFatalError, match=r"none of the 2 servers answers.*waited 0.3 seconds"):
            await backend.complete(ask("Question"))
        waiting = asyncio.create_task(backend.complete(ask("Question")))
        await asyncio.sleep(0.05)
        await backend._balance.check()
        assert (await waiting).text
        await backend.aclose()


async def test_what_is_the_requests_own_fault_is_tried_once():
    async with FakeServer("vllm", context=60) as one, FakeServer("vllm", context=60) as two:
        backend = many(one, two)
        await backend.start()
        for _ in range(2 * FAILURES):
            with pytest.raises(ContextTooLongError):
                await backend.complete(ask("x" * 500))
        assert len(one.requests) + len(two.requests) == 2 * FAILURES
        assert len(backend._balance.healthy()) == 2
        one.faults.append(Fault("status", 500))
        two.faults.append(Fault("status", 500))
        with pytest.raises(BackendError, match="refused by all servers that answer"):
            await backend.complete(ask("x"))
        await backend.aclose()


async def test_a_stream_goes_elsewhere_only_while_nothing_was_handed_out():
    async with FakeServer("openai") as one, FakeServer("openai") as two:
        backend = many(one, two)
        await backend.start()
        one.faults.append(Fault("status", 500))
        items = [item async for item in backend.stream(ask("Question"))]
        assert isinstance(items[-1], Completion)
        assert "".join(item.text for item in items[:-1]) == items[-1].text
        for server in (one, two):
            server.faults.append(Fault("reset", after=3))
        broken = backend.stream(ask("Question"))
        assert await anext(broken)
        with pytest.raises(BackendError):
            [item async for item in broken]
        await backend.aclose()


class Well(Member):
    async def check(self) -> None:
        self.healthy = True


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["ask", "done", "fail", "fatal", "check"])), max_size=60),
    st.lists(st.integers(0, 5), min_size=60, max_size=60),
)
def test_the_rules_of_choosing_hold_whatever_happens(events, keys):
    members = [Well(str(number)) for number in range(3)]
    balance = Balance(members)
    for member in members:
        member.healthy = True
    homes: dict[int, Member] = {}
    for (index, event), key in zip(events, keys, strict=False):
        member = members[index]
        if event == "ask":
            chosen = balance.choose(key=key)
            assert (chosen is None) == (not balance.healthy())
            if chosen is not None:
                least = min(each.running for each in balance.healthy())
                assert chosen.healthy
                assert chosen.running == least or (chosen is homes[key] and chosen.running <= least + LEAN)
                chosen.running += 1
                balance.remember(key, chosen)
                homes[key] = chosen
        elif event == "done":
            member.running, member.failures = 0, 0
        elif event in ("fail", "fatal"):
            before = member.failures
            member.failed(event == "fatal")
            assert member.healthy is False or (event == "fail" and before + 1 < FAILURES)
        else:
            asyncio.run(member.check())
            member.worked()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def spend(pace: Pace, clock: Clock, monkeypatch, works: list[int]) -> list[float]:
    """Send requests that really take so many tokens, all at once; return when each was sent."""
    sent: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await real(0)

    monkeypatch.setattr("inftythink.backends._pace.asyncio.sleep", sleep)

    async def one(tokens: int) -> None:
        charged = await pace.enter(ask("q" * 396, "", 100))
        sent.append(clock.now)
        pace.settle(charged, tokens)

    await asyncio.gather(*(one(tokens) for tokens in works))
    return sent


async def test_no_minute_has_more_requests_than_allowed(monkeypatch):
    clock = Clock()
    sent = await spend(Pace(30, None, clock), clock, monkeypatch, [1] * 100)
    assert len(sent) == 100
    assert max(sum(start <= moment < start + 60 for moment in sent) for start in sent) <= 31
    assert sent[-1] < 99 * 2 * 1.2, "it is much slower than allowed"


async def test_no_minute_has_more_tokens_than_allowed(monkeypatch):
    clock = Clock()
    sent = await spend(Pace(None, 6000, clock), clock, monkeypatch, [150] * 100)
    assert max(sum(150 for moment in sent if start <= moment < start + 60) for start in sent) <= 6000 + 300
    assert sent[-1] < 100 * 150 / 6000 * 60 * 1.2, "tokens that were charged and not taken were not given back"


async def test_servers_share_a_pace_and_what_is_tried_again_counts():
    async with FakeServer("openai") as one, FakeServer("openai") as two:
        pace = Pace(600_000, None)
        before = pace._requests_free
        servers = [OpenAI(server.url, retry=Retry(attempts=3, first=0.001), pace=pace) for server in (one, two)]
        one.faults.append(Fault("status", 500))
        for server in servers:
            await server.start()
            await server.complete(ask("Question"))
            await server.aclose()
        sent = len(one.requests) + len(two.requests)
        assert Counter(len(server.requests) for server in (one, two)) == {2: 1, 1: 1}
        assert pace._requests_free - before >= sent * 60 / 600_000


@pytest.mark.parametrize("limits", [(0, None), (None, -1)])
def test_a_pace_of_nothing_is_refused(limits):
    with pytest.raises(UsageError, match="a minute: nothing would ever be sent"):
        Pace(*limits)
