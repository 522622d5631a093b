"""Pieces of an answer: any way of cutting what a model writes gives the same answer, streamed or whole."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inftythink.backends.base import Capabilities
from inftythink.backends.scripted import Scripted
from inftythink.protocol import Completion, Outcome, Policy, Stop
from inftythink.reasoner import Reasoner
from inftythink.serve.chat import Choice, Guard, Head, figures
from inftythink.serve.events import data
from inftythink.serve.responses import ResponseWriter
from inftythink.serve.told import StopCut, Teller, What
from inftythink.serve.wire import FIELDS, Offer, read_chat, read_response

OFFER = Offer(model="m", policy=Policy(eta=12, gamma=6, phi=3))
WORDS = [
    "so ",
    "we ",
    "add ",
    "<",
    "</",
    "<think>",
    "</think>",
    "<summary>",
    "</summary>",
    "<history>",
    "\n",
    "a<b ",
    "🙂",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join)
THOUGHTS = st.none() | TEXTS


def reasoner(replies, chunk: int, carry: str) -> Reasoner:
    able = Capabilities(prefill=carry == "summary", token_ids=False, logprobs=False)
    return Reasoner(Scripted(replies, chunk=chunk, capabilities=able), carry=carry, policy=OFFER.policy)


def tell(replies, chunk: int, carry: str):
    """The pieces of one trajectory, and who told them."""

    async def work():
        source = reasoner(list(replies), chunk, carry)
        teller, pieces = Teller(opened=source.format.thought == "opened"), []
        async for event in source.stream("question"):
            pieces += teller.feed(event)
        return teller, pieces

    return asyncio.run(work())


def write(pieces, teller, field="both", stop=()):
    choice = Choice(read_chat({"messages": [{"role": "user", "content": "q"}], "stop": list(stop)}, OFFER), keep=True)
    choice._writer._field = field
    deltas = [choice.feed(piece) for piece in pieces]
    deltas.append(choice.close(teller))
    joined = {}
    for delta in deltas:
        for name, text in delta.items():
            joined[name] = joined.get(name, "") + text
    return joined, choice


def completions(texts, thoughts, cuts):
    """Replies as a server gives them: each with how it ended, and perhaps a thought in a field of its own."""
    return [
        Completion(text, Stop.LENGTH if cut else Stop.STOP, reasoning=thought or None, completion_tokens=5)
        for text, thought, cut in zip(texts, thoughts, cuts, strict=True)
    ]


SCRIPT = st.tuples(
    st.lists(TEXTS, min_size=12, max_size=12),
    st.lists(THOUGHTS, min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


CUT_TWICE = (["so ", "so ", *[""] * 10], ["so ", *[None] * 11], [True, *[False] * 11])
"""A conclusion is begun, cut, and thought about once more: readers of tags still find one block."""


@example(CUT_TWICE, 1, "two_call", "think-tags")
@settings(max_examples=80)
@given(SCRIPT, st.sampled_from([1, 2, 3, 7]), st.sampled_from(["summary", "two_call", "none"]), st.sampled_from(FIELDS))
def test_any_chunking_gives_the_same_answer(script, chunk, carry, field):
    texts, thoughts, cuts = script
    if carry == "summary":
        thoughts = [None] * len(thoughts)
    replies = completions(texts, thoughts, cuts)
    one, other = tell(replies, 0, carry), tell(replies, chunk, carry)
    first, choice = write(one[1], one[0], field)
    second, _ = write(other[1], other[0], field)
    assert first == second
    message = choice.whole(0)["message"]
    assert message["content"] == first.get("content", "")
    for name in ("reasoning", "reasoning_content"):
        assert message.get(name) == first.get(name)
    if field == "think-tags":
        shown = first.get("content", "")
        assert shown.count("<think>") == shown.count("</think>") <= 1
        shown = shown.split("</think>")[-1]
    else:
        shown = first.get("content", "")
    assert not any(tag in shown for tag in ("<think>", "</think>", "<summary>", "</summary>", "<history>"))


@settings(max_examples=60)
@given(SCRIPT, st.sampled_from([0, 1, 3]), st.sampled_from(["summary", "two_call", "none"]))
def test_the_content_is_the_conclusion_and_the_figures_are_those_of_the_rounds(script, chunk, carry):
    texts, thoughts, cuts = script
    thoughts = [None] * len(thoughts) if carry == "summary" else thoughts
    teller, pieces = tell(completions(texts, thoughts, cuts), chunk, carry)
    said = "".join(piece.text for piece in pieces if piece.what is What.CONCLUSION)
    if teller.done.outcome is Outcome.ANSWERED:
        # What was cut in its conclusion and said afresh stands behind what had been sent.
        assert said == teller.done.conclusion or said.endswith("\n\n" + teller.done.conclusion)
    assert teller.finish_reason in ("stop", "length")
    usage = figures([teller])["usage"]
    assert usage["completion_tokens"] == teller.done.totals["completion_tokens"]
    assert 0 <= usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


@settings(max_examples=60)
@given(SCRIPT, st.sampled_from([1, 3]), st.sampled_from(["summary", "two_call"]))
def test_a_streamed_response_is_the_whole_one(script, chunk, carry):
    texts, thoughts, cuts = script
    thoughts = [None] * len(thoughts) if carry == "summary" else thoughts
    teller, pieces = tell(completions(texts, thoughts, cuts), chunk, carry)
    writer = ResponseWriter(read_response({"input": "q"}, OFFER), "resp_1", 0, "m")
    events = [*writer.begin(), *(e for piece in pieces for e in writer.feed(piece)), *writer.close(teller)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    response = events[-1]["response"]
    assert events[-1]["type"] == f"response.{response['status']}"
    for number, item in enumerate(response["output"]):
        mine = [event for event in events if event.get("output_index") == number]
        assert mine[0]["type"] == "response.output_item.added"
        assert mine[-1]["type"] == "response.output_item.done"
        for kind, parts in (("reasoning_summary_text", item.get("summary", [])), ("text", item["content"])):
            deltas = [
                e["delta"]
                for e in mine
                if e["type"].endswith("delta") and ("summary" in kind) == ("summary" in e["type"])
            ]
            assert "".join(deltas) == "".join(part["text"] for part in parts)
    assert [item["type"] for item in response["output"]].count("message") >= 1


@given(st.lists(st.text("abc", max_size=4)), st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_stop_string_cuts_the_same_in_any_pieces(pieces, stop):
    def cut(parts):
        cutter = StopCut(tuple(stop))
        return "".join(map(cutter.feed, parts)) + cutter.close(), cutter.matched

    text = "".join(pieces)
    assert cut(pieces) == cut([text]) == cut(list(text))
    found, matched = cut([text])
    assert matched == any(each in text for each in stop)
    assert text.startswith(found)
    assert not any(each in found for each in stop)


@given(st.lists(st.sampled_from([*WORDS, "<\\think>", "\\", "su", "mmary>"])))
def test_the_guard_lets_no_tag_through_and_loses_nothing(pieces):
    def guarded(parts):
        guard = Guard()
        return "".join(map(guard.feed, parts)) + guard.close()

    text = "".join(pieces)
    assert guarded(pieces) == guarded(list(text)) == guarded([text])
    assert not any(tag in guarded([text]) for tag in ("<think>", "</summary>", "<history>"))


def test_stop_ends_the_conclusion_and_not_the_thoughts():
    replies = ["thinking END on</think>\n\nit is 4 END never"]
    teller, pieces = tell(replies, 1, "summary")
    joined, choice = write(pieces, teller, stop=("END",))
    assert joined["content"] == "it is 4 "
    assert joined["reasoning"] == "thinking END on"
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_has_the_reasoning_with_marks_between_rounds(field):
    replies = ["one</think>\n\n<summary>\nnotes\n</summary>", "two</think>\n\nfour"]
    teller, pieces = tell(replies, 2, "summary")
    joined, _ = write(pieces, teller, field)
    reasoning = "one\n\n--- summary of round 1 ---\n\nnotes\n\n--- round 2 ---\n\ntwo"
    expected = {
        "both": {"reasoning": reasoning, "reasoning_content": reasoning, "content": "four"},
        "reasoning": {"reasoning": reasoning, "content": "four"},
        "reasoning_content": {"reasoning_content": reasoning, "content": "four"},
        "think-tags": {"content": f"<think>\n{reasoning}\n</think>\n\nfour"},
        "none": {"content": "four"},
    }
    assert joined == expected[field]


def test_a_limit_is_told_after_one_forced_answer():
    notes = "one</think>\n\n<summary>\nnotes\n</summary>"
    teller, pieces = tell([notes, notes, notes, "at a guess, 4"], 0, "summary")
    joined, choice = write(pieces, teller)
    assert joined["content"] == "at a guess, 4"
    assert choice.finish_reason == "length"
    report = Head("x", 0, "m").whole([choice])["inftythink"]
    assert (report["outcome"], report["rounds"]) == ("answered", 4)
    assert report["per_round"][-1]["forced"] == "forced_answer"


def test_a_chat_models_reply_is_told_live_and_is_the_content_once_it_is_sure():
    teller, pieces = tell(["the answer is 4"], 3, "two_call")
    assert [piece.what for piece in pieces[:-1]] == [What.THOUGHT] * (len(pieces) - 1)
    assert pieces[-1].text == "the answer is 4"
    assert teller.usage.reasoning == 0


@given(st.text(), st.integers(0, 9))
def test_events_of_a_stream_are_the_chunks_they_stand_for(text, index):
    head, delta = Head('chatcmpl-"x', 7, text), {"role": "assistant", "reasoning": text, "content": text}
    assert head.event(index, delta) == data(head.chunk(index, delta))
    assert head.event(index, {}) == data(head.chunk(index, {}))
