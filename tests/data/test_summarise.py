"""Writing summaries: what is asked, what is refused and asked again, and what it cost."""

import itertools

import pytest

from inftythink.backends import Request, Sampling
from inftythink.backends.scripted import Scripted, prompt_text
from inftythink.data.read import Reject
from inftythink.data.summarise import Segmented, Settings, Summarised, Summariser
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError
from inftythink.protocol import Completion, Problem, Stop


class Words:
    """Counts words: enough to see that limits are kept."""

    name = "words"
    additive = False

    def counts(self, texts):
        return [len(text.split()) for text in texts]

    def count(self, text: str) -> int:
        return self.counts([text])[0]


TRACE = Segmented(
    Problem("p", "What is 2 + 2?", context=(("system", "Be brief."),)), ("first bit\n\n", "second bit\n\n", "end")
)


async def run(replies, judge=None, trace=TRACE, **settings):
    backend = Scripted(replies)
    summariser = Summariser(backend, Words(), Settings(gamma=5, **settings), judge)

    async def ask(key, backend, request):
        return await backend.complete(request)

    return await summariser.summarise(trace, ask), backend, summariser.usage


async def test_one_summary_for_each_segment_but_the_last():
    done, backend, usage = await run(["one", "two"])
    assert done == Summarised(["one", "two"], [1, 1], [1, 1])
    assert (usage.calls, usage.completion_tokens, usage.judge_calls) == (2, 2, 0)
    assert usage.prompt_tokens == sum(len(prompt_text(r.prompt).split()) for r in backend.requests)


async def test_a_trace_of_one_segment_asks_nothing():
    done, backend, _ = await run([], trace=Segmented(Problem("p", "Q"), ("all",)))
    assert (done, backend.calls) == (Summarised([], [], []), 0)


async def test_incremental_sees_the_last_summary_and_this_segment_only():
    _, backend, _ = await run(["one", "two"])
    texts = [[turn.text for turn in request.prompt.turns[:-1]] for request in backend.requests]
    assert texts[0] == ["Be brief.", "What is 2 + 2?", "first bit"]
    assert texts[1][:3] == ["Be brief.", "What is 2 + 2?", "one"]
    assert texts[1][-1] == "second bit"
    assert "first bit" not in "".join(texts[1])


async def test_cumulative_sees_all_reasoning_so_far_and_no_summary():
    _, backend, _ = await run(["one", "two"], strategy="cumulative")
    texts = [[turn.text for turn in request.prompt.turns[:-1]] for request in backend.requests]
    assert texts[1] == ["Be brief.", "What is 2 + 2?", "first bit\n\nsecond bit\n\n"]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("a b c d e f", "over gamma: 6 tokens"),
        ("   ", "empty"),
        (Completion("half a", Stop.LENGTH, completion_tokens=10), "cut at 10 tokens"),
        ("<history>x</history>", "wrong form: it holds tags of the format"),
        ("<summary>never closed", "wrong form: summary not closed"),
        (BackendError("HTTP 500"), "failed: HTTP 500"),
        (ZeroDivisionError("oops"), "failed: backend scripted: ZeroDivisionError: oops"),
    ],
)
async def test_a_bad_summary_is_asked_for_again_with_a_new_seed_and_then_rejected_with_every_reason(bad, fault):
    done, backend, _ = await run([bad, "one", bad, bad, "two"])
    assert done == Summarised(["one", "two"], [1, 1], [2, 3])
    assert len({request.sampling.seed for request in backend.requests}) == 5
    done, _, _ = await run([bad] * 3, attempts=3)
    assert isinstance(done, Reject)
    assert (done.id, done.stage, done.reason) == ("p", "summarise", "no_summary")
    assert done.detail == "segment 1 of 3: " + "; ".join([fault] * 3)


async def test_thoughts_and_tags_around_a_summary_are_taken_off():
    done, _, _ = await run(["<think>hm</think>one", "<summary>\ntwo\n</summary>"])
    assert done == Summarised(["one", "two"], [1, 1], [1, 1])
    done, _, _ = await run([Completion("one", Stop.STOP, reasoning="hm"), "two"])
    assert isinstance(done, Summarised)


async def test_a_prompt_that_does_not_fit_is_not_tried_again():
    done, backend, _ = await run(["one", ContextTooLongError("4000 of 2048")], attempts=9)
    assert isinstance(done, Reject)
    assert done.detail == "segment 2 of 3: context too long: 4000 of 2048"
    assert backend.calls == 2


async def test_a_server_that_refuses_everything_stops_the_run():
    with pytest.raises(BackendFatalError):
        await run([BackendFatalError("wrong key")])


async def test_sampling_is_as_set_and_seeds_repeat():
    _, first, _ = await run(["one", "two"], temperature=0.3, top_p=0.8)
    _, again, _ = await run(["one", "two"], temperature=0.3, top_p=0.8)
    assert first.requests[0].sampling == Sampling(0.3, 0.8, seed=first.requests[0].sampling.seed)
    assert [r.sampling.seed for r in first.requests] == [r.sampling.seed for r in again.requests]
    assert first.requests[0].max_tokens == 10


async def test_a_judge_rejects_with_feedback_for_the_next_attempt():
    judge = Scripted(["Score: 3\nIt lacks x = 4.", "Score: 9/10\nFine.", "**Score:** 10"])
    done, backend, usage = await run(["one", "one better", "two"], judge=judge)
    assert done == Summarised(["one better", "two"], [2, 1], [2, 1])
    asked = [prompt_text(request.prompt) for request in backend.requests]
    assert "It lacks x = 4." not in asked[0]
    assert "It lacks x = 4." in asked[1]
    assert "It lacks x = 4." not in asked[2]
    assert (usage.calls, usage.judge_calls) == (3, 3)
    assert "first bit" in prompt_text(judge.requests[0].prompt)
    assert "one better" in prompt_text(judge.requests[2].prompt)


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        ("Score: 6\nInvents y.", "judge: 6 of 10: Invents y."),
        ("I like it", "judge gave no score: 'I like it'"),
        (BackendError("gone"), "judge: failed: gone"),
    ],
)
async def test_what_a_judge_refuses_or_cannot_say_is_a_fault_on_record(verdict, fault):
    done, _, _ = await run(["one"], judge=Scripted([verdict]), attempts=1)
    assert isinstance(done, Reject)
    assert done.detail == f"segment 1 of 3: {fault}"


async def test_incremental_prompts_stay_bounded_and_cumulative_ones_grow():
    trace = Segmented(Problem("p", "Q"), tuple("word " * 50 for _ in range(20)))

    def longest(strategy: str) -> list[int]:
        return [len(prompt_text(r.prompt).split()) for r in asked[strategy]]

    asked: dict[str, list[Request]] = {}
    for strategy in ("incremental", "cumulative"):
        _, backend, _ = await run(lambda request: "s", trace=trace, strategy=strategy)
        asked[strategy] = list(backend.requests)
    assert len(set(longest("incremental")[1:])) == 1
    grown = longest("cumulative")
    assert all(b - a == 50 for a, b in itertools.pairwise(grown))
