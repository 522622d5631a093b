"""Forming instances: through the machine, so that training prompts are inference prompts; split by question."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.data.form import instances, messages, split_of, teach
from inftythink.data.read import Reject
from inftythink.protocol import Format, Generate, Machine, Policy, Problem, Trajectory, exchanges, make_carry
from inftythink.render import Renderer
from tests.protocol.test_stream import TEXTS
from tests.tiny import tiny

FMT = Format()
PROBLEM = Problem("p", "What is 2 + 2?", "4", (("system", "Be brief."),))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(tiny("qwen25"))


def taught(segments=("a\n\n", "b"), summaries=("s",), conclusion="It is 4.") -> Trajectory:
    done = teach(PROBLEM, segments, summaries, conclusion, FMT)
    assert isinstance(done, Trajectory)
    return done


def test_rounds_are_formed_with_history_thought_and_summary(renderer):
    first, second = instances(taught(), FMT, renderer)
    assert (first["round"], first["rounds"], second["round"]) == (1, 2, 2)
    assert first["completion"] == "a\n</think>\n\n<summary>\ns\n</summary>"
    assert second["completion"] == "b\n</think>\n\nIt is 4."
    assert second["prompt"].endswith("<history>\ns\n</history>\n<think>\n")
    assert (first["history"], first["thought"], first["summary"], first["conclusion"]) == (None, "a", "s", None)
    assert (second["history"], second["thought"], second["summary"], second["conclusion"]) == (
        "s",
        "b",
        None,
        "It is 4.",
    )
    assert (second["id"], second["problem"], second["answer"]) == ("p", "What is 2 + 2?", "4")


def test_the_prompt_text_and_its_tokens_are_those_of_inference(renderer):
    made = instances(taught(), FMT, renderer)
    machine = Machine(PROBLEM, FMT, make_carry("summary", Policy()), Policy())
    asked = machine.next()
    assert isinstance(asked, Generate)
    assert made[0]["prompt"] == renderer.text(asked.prompt)
    assert made[0]["prompt_tokens"] == len(renderer.ids(asked.prompt))
    assert (
        made[0]["completion_tokens"]
        == len(renderer.encode_content("a"))
        + len(renderer.encode_content("\n</think>\n\n<summary>\n"))
        + len(renderer.encode_content("s"))
        + len(renderer.encode_content("\n</summary>"))
        + 1
    )


def test_messages_hold_the_same_text():
    (row,) = exchanges(taught(("b",), ()), FMT, make_carry("summary", Policy()))
    assert messages(row) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "<think>\nb\n</think>\n\nIt is 4."},
    ]


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), max_size=3), TEXTS, TEXTS.filter(str.strip))
def test_whatever_a_teacher_writes_is_formed_or_rejected_with_a_reason(steps, last, conclusion):
    segments, summaries = [*(r for r, _ in steps), last], [s for _, s in steps]
    done = teach(PROBLEM, segments, summaries, conclusion, FMT)
    if isinstance(done, Reject):
        assert done.reason
        assert done.detail
    else:
        assert [r.thought for r in done.rounds] == [segment.strip() for segment in segments]
        assert [r.summary for r in done.rounds] == [*(summary.strip() for summary in summaries), None]
        assert done.conclusion == conclusion.strip()


def test_tags_in_what_a_teacher_wrote_survive():
    done = taught(("I write </think> and <summary>", "b"), ("a </summary> in it",), "<summary>x</summary>")
    assert [(r.thought, r.summary) for r in done.rounds] == [
        ("I write </think> and <summary>", "a </summary> in it"),
        ("b", None),
    ]
    assert done.conclusion == "<summary>x</summary>"


@pytest.mark.parametrize(
    ("segments", "summaries", "conclusion", "reason"),
    [
        (("a", "b"), (), "c", "summaries_missing"),
        (("a", "b"), (" ",), "c", "malformed"),
        (("a",), (), " ", "malformed"),
    ],
)
def test_what_cannot_be_formed_is_rejected(segments, summaries, conclusion, reason):
    done = teach(PROBLEM, segments, summaries, conclusion, FMT)
    assert isinstance(done, Reject)
    assert (done.stage, done.reason) == ("form", reason)


def test_the_split_is_by_question_and_near_its_share():
    questions = [f"What is {n} + {n}?" for n in range(4000)]
    share = sum(split_of(question, 0.1, 0) == "validation" for question in questions) / 4000
    assert 0.08 < share < 0.12
    assert all(split_of(q, 0.1, 0) == split_of(f"  {q.upper()}\n", 0.1, 0) for q in questions)
    assert {split_of(q, 0.0, 0) for q in questions} == {"train"}
    assert {split_of(q, 1.0, 0) for q in questions} == {"validation"}
    assert [split_of(q, 0.5, 0) for q in questions] != [split_of(q, 0.5, 1) for q in questions]
