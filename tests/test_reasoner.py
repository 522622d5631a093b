"""The driver: many trajectories, no barrier, no lost call, cancellation."""

import asyncio
import random

import pytest

from inftythink.backends import Capabilities, Delta, Request, Sampling
from inftythink.backends.scripted import Scripted
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, UsageError
from inftythink.protocol import (
    Completion,
    Event,
    Kind,
    Outcome,
    Policy,
    Problem,
    Purpose,
    Stop,
    Trajectory,
)
from inftythink.reasoner import Began, Ended, Reasoner, derive_seed, run_sync

POLICY = Policy(eta=40, gamma=10, phi=30)


def rounds_of(request: Request) -> tuple[int, int]:
    """Read ``(wanted rounds, this round)`` from a prompt whose question is the wanted number."""
    wanted = int(request.prompt.turns[0].text.split()[0])
    done = request.prompt.prefill[1].text if len(request.prompt.prefill) > 1 else "0"
    return wanted, int(done) + 1


def counting(request: Request) -> str:
    """A model that writes its round number as its summary, and concludes at the round that the question names."""
    wanted, now = rounds_of(request)
    if now == wanted:
        return f"thought {now}\n</think>\n\nanswer {wanted}"
    return f"thought {now}\n</think>\n\n<summary>\n{now}\n</summary>"


def problems(count: int, most: int = 20) -> list[Problem]:
    draw = random.Random(0)
    return [Problem(f"p{i}", str(draw.randint(1, most))) for i in range(count)]


async def test_solve_drives_to_the_end():
    trajectory = await Reasoner(Scripted(counting), policy=POLICY).solve("3 rounds, please")
    assert (trajectory.outcome, trajectory.conclusion) == (Outcome.ANSWERED, "answer 3")
    assert [(r.k, r.thought, r.summary) for r in trajectory.rounds] == [
        (1, "thought 1", "1"),
        (2, "thought 2", "2"),
        (3, "thought 3", None),
    ]


@pytest.mark.parametrize("slots", [1, 7, 500])
async def test_every_problem_and_sample_comes_back_once_and_in_order(slots):
    asked = problems(60)
    found = await Reasoner(Scripted(counting, latency=0.0001), policy=POLICY, slots=slots).solve_many(asked, samples=2)
    assert [(t.problem.id, t.sample) for t in found] == [(p.id, s) for p in asked for s in (0, 1)]
    assert [t.conclusion for t in found] == [f"answer {p.question}" for p in asked for _ in (0, 1)]
    assert [len(t.rounds) for t in found] == [int(p.question) for p in asked for _ in (0, 1)]


async def test_slots_bound_what_runs_at_once_and_are_all_used():
    backend = Scripted(counting, latency=0.001)
    await Reasoner(backend, policy=POLICY, slots=16).solve_many(problems(80))
    assert backend.peak == 16


async def test_there_is_no_barrier_between_rounds():
    """Short trajectories finish while a long one is under way."""
    asked = [Problem("long", "20"), *(Problem(f"short{i}", "1") for i in range(30))]
    reasoner = Reasoner(Scripted(counting, latency=0.001), policy=POLICY, slots=2)
    ended = [t.problem.id async for t in reasoner.run(asked)]
    assert 10 < ended.index("long") < 25


async def test_problems_are_taken_only_when_a_slot_is_free():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            yield Problem(f"p{taken}", "2")
            taken += 1

    runs = Reasoner(Scripted(counting, latency=0.001), policy=POLICY, slots=4).run(endless())
    for _ in range(5):
        await anext(runs)
    await asyncio.sleep(0.1)  # the reader is slow: finished trajectories must not pile up
    assert taken < 40
    await runs.aclose()


async def test_closing_the_iterator_cancels_the_work():
    backend = Scripted(counting, latency=0.01)
    runs = Reasoner(backend, policy=POLICY, slots=8).run(problems(100))
    await anext(runs)
    assert backend.running > 0
    await runs.aclose()
    assert backend.running == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_failing_request_fails_its_trajectory_alone():
    def flaky(request: Request) -> str | Exception:
        wanted, now = rounds_of(request)
        return BackendError("HTTP 500, five times") if (wanted, now) == (2, 2) else counting(request)

    found = await Reasoner(Scripted(flaky), policy=POLICY).solve_many(["1", "2", "3"])
    assert [t.outcome for t in found] == [Outcome.ANSWERED, Outcome.FAILED, Outcome.ANSWERED]
    assert found[1].reason == "HTTP 500, five times"
    assert [r.summary for r in found[1].rounds] == ["1", None]


async def test_foreign_errors_are_attributed_to_the_backend():
    found = await Reasoner(Scripted([ZeroDivisionError("oops")])).solve("1")
    assert (found.outcome, found.reason) == (Outcome.FAILED, "backend scripted: ZeroDivisionError: oops")


async def test_a_backend_that_refuses_everything_stops_the_run():
    backend = Scripted(lambda request: BackendFatalError("wrong key"), latency=0.001)
    with pytest.raises(BackendFatalError, match="wrong key"):
        await Reasoner(backend, slots=8).solve_many(["1"] * 50)
    assert backend.calls <= 16
    assert backend.running == 0


async def test_a_broken_source_of_problems_raises_and_leaves_nothing_behind():
    def broken():
        yield Problem("a", "5")
        raise ValueError("line 2 is broken")

    with pytest.raises(ValueError, match="line 2"):
        await Reasoner(Scripted(counting, latency=0.001), policy=POLICY).solve_many(broken())
    assert len(asyncio.all_tasks()) == 1


async def test_ids_must_differ():
    with pytest.raises(UsageError, match="two problems have the id 'a'"):
        await Reasoner(Scripted(counting), policy=POLICY).solve_many([Problem("a", "1"), Problem("a", "1")])


async def test_seeds_differ_by_problem_sample_and_call_and_repeat_by_run():
    async def seeds() -> list[int | None]:
        backend = Scripted(counting)
        reasoner = Reasoner(backend, policy=POLICY, sampling=Sampling(seed=7), slots=1)
        await reasoner.solve_many(["2", "3"], samples=2)
        return [request.sampling.seed for request in backend.requests]

    first = await seeds()
    assert len(set(first)) == len(first) == 10
    assert first == await seeds()
    assert derive_seed(7, "a", 0) != derive_seed(7, "a", 1) != derive_seed(8, "a", 1)
    assert derive_seed(7, "\ud800") == derive_seed(7, "\ud800")  # half a character in a name
    assert all(0 <= seed < 2**31 for seed in first if seed is not None)


async def test_no_seed_stays_no_seed():
    backend = Scripted(counting)
    await Reasoner(backend, policy=POLICY).solve("2")
    assert {request.sampling.seed for request in backend.requests} == {None}


async def test_a_summariser_of_its_own_gets_the_summaries_only():
    thinker = Scripted([Completion("thinking", Stop.LENGTH), "42"], capabilities=Capabilities(False, False, False))
    writer = Scripted(["x is 6"], capabilities=Capabilities(False, False, False))
    found = await Reasoner(thinker, carry="two_call", policy=POLICY, summariser=writer).solve("Q")
    assert [(r.thought, r.summary) for r in found.rounds] == [("thinking", "x is 6"), ("", None)]
    assert (thinker.calls, writer.calls) == (2, 1)


@pytest.mark.parametrize(
    ("carry", "able", "message"),
    [
        ("summary", Capabilities(False, False, False), "two_call"),
        ("tail", Capabilities(True, False, False), "needs token ids"),
    ],
)
async def test_a_carry_that_the_backend_cannot_serve_is_refused_before_the_first_call(carry, able, message):
    backend = Scripted(counting, capabilities=able)
    with pytest.raises(UsageError, match=message):
        await Reasoner(backend, carry=carry).start()
    assert backend.calls == 0


async def collect(reasoner: Reasoner, question: str) -> tuple[list, Trajectory]:
    events = [event async for event in reasoner.stream(question)]
    assert isinstance(events[-1], Trajectory)
    return events[:-1], events[-1]


def texts(events: list, kind: Kind) -> str:
    return "".join(e.text for e in events if isinstance(e, Event) and e.kind is kind)


@pytest.mark.parametrize("chunk", [0, 1, 3])
async def test_stream_tells_what_happens_and_ends_with_the_trajectory(chunk):
    reasoner = Reasoner(Scripted(counting, chunk=chunk), policy=POLICY)
    events, trajectory = await collect(reasoner, "3")
    assert trajectory == await reasoner.solve("3")
    assert texts(events, Kind.THOUGHT) == "thought 1thought 2thought 3"
    assert texts(events, Kind.SUMMARY) == "12"
    assert texts(events, Kind.CONCLUSION) == "answer 3"
    assert [e.k for e in events if isinstance(e, Began)] == [1, 2, 3]
    assert [e.k for e in events if isinstance(e, Ended)] == [1, 2, 3]


@pytest.mark.parametrize("chunk", [0, 1])
async def test_stream_follows_forced_summaries_as_one_round(chunk):
    replies = [Completion("r", Stop.LENGTH), "s\n</summary>", Completion("q", Stop.LENGTH), "42"]
    reasoner = Reasoner(Scripted(replies, chunk=chunk), policy=Policy(eta=40, gamma=10, phi=2))
    events, trajectory = await collect(reasoner, "Q")
    assert [e.purpose for e in events if isinstance(e, Began)] == [
        Purpose.REASON,
        Purpose.FORCED_SUMMARY,
        Purpose.REASON,
        Purpose.FORCED_ANSWER,
    ]
    assert [texts(events, kind) for kind in (Kind.THOUGHT, Kind.SUMMARY, Kind.CONCLUSION)] == ["rq", "s", "42"]
    assert [(r.thought, r.summary) for r in trajectory.rounds] == [("r", "s"), ("q", None)]


async def test_stream_of_two_call_takes_back_what_turned_out_to_be_a_thought():
    replies = [Completion("half", Stop.LENGTH), "<think>hm</think>x = 6", Completion("42", Stop.STOP, reasoning="so")]
    reasoner = Reasoner(
        Scripted(replies, capabilities=Capabilities(False, False, False)), carry="two_call", policy=POLICY
    )
    events, trajectory = await collect(reasoner, "Q")
    kinds = [(e.kind, e.text) for e in events if isinstance(e, Event)]
    assert kinds == [
        (Kind.CONCLUSION, "half"),
        (Kind.RECLASSIFY, ""),
        (Kind.SUMMARY, "x = 6"),
        (Kind.THOUGHT, "so"),
        (Kind.CONCLUSION, "42"),
    ]
    assert [(r.thought, r.summary) for r in trajectory.rounds] == [("half", "x = 6"), ("so", None)]


async def test_stream_of_a_failing_backend_ends_failed_and_a_fatal_one_raises():
    _, trajectory = await collect(Reasoner(Scripted([BackendError("gone")])), "Q")
    assert (trajectory.outcome, trajectory.reason) == (Outcome.FAILED, "gone")
    with pytest.raises(BackendFatalError):
        await collect(Reasoner(Scripted([])), "Q")

    class Endless(Scripted):
        async def stream(self, request):
            yield Delta("half")

    _, trajectory = await collect(Reasoner(Endless([])), "Q")
    assert trajectory.reason == "backend scripted: the stream had no end"


async def test_closing_a_stream_stops_the_work():
    backend = Scripted(counting, latency=5)
    stream = Reasoner(backend, policy=POLICY).stream("2")
    assert isinstance(await anext(stream), Began)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.01)
    assert backend.running == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert backend.running == 0


def test_the_sync_wrappers_work_outside_and_inside_a_running_loop():
    assert Reasoner(Scripted(counting), policy=POLICY).solve_sync("2").conclusion == "answer 2"
    assert len(Reasoner(Scripted(counting), policy=POLICY).solve_many_sync(["1", "2"])) == 2

    async def notebook() -> str | None:
        return Reasoner(Scripted(counting), policy=POLICY).solve_sync("3").conclusion

    assert asyncio.run(notebook()) == "answer 3"
    with pytest.raises(UsageError):
        asyncio.run(_sync_inside())


async def _sync_inside() -> None:
    run_sync(Reasoner(Scripted([]), carry="tail").start())


@pytest.mark.parametrize("on_cut", ["stop", "summarise"])
async def test_a_window_outgrown_by_a_summary_is_the_models_own_fault(on_cut):
    """A question that is too long is an error of the settings; what a model wrote to be carried is not."""

    def window(request: Request):
        room = sum(len(part.text.split()) for part in request.prompt.prefill)
        if "long" in request.prompt.turns[0].text or room > 20:
            return ContextTooLongError("the prompt has 46 tokens and 85 more are asked for")
        return "thought\n</think>\n\n<summary>\n" + "so much to say " * 10 + "\n</summary>"

    policy = Policy(eta=40, gamma=10, phi=5, on_cut=on_cut)
    asked = [Problem("fits", "a question"), Problem("not", "a long question")]
    fits, too_long = await Reasoner(Scripted(window), policy=policy).solve_many(asked)
    assert (fits.outcome, too_long.outcome) == (Outcome.TRUNCATED, Outcome.FAILED)
    assert "46 tokens" in (too_long.reason or "")
