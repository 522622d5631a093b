"""Rows are what inference sends and what it would get back, id for id; nothing is dropped in silence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.data.form import instances, teach
from inftythink.protocol import (
    Completion,
    Done,
    Format,
    Machine,
    Policy,
    Problem,
    Stop,
    Trajectory,
    make_carry,
    make_format,
)
from inftythink.render import Renderer
from inftythink.train.model import add_tags
from inftythink.train.rows import Rejected, Row, rows_of
from tests.tiny import ALL, options, tiny

PROBLEM = Problem("p", "What <think> is 2 + 2?", "4", (("system", "Be brief."),))
SEGMENTS = ("The first <summary>thought</summary>.\n\n", "And the second one, so it is 4.")
SUMMARY, CONCLUSION = "2 + 2 is <history>", "It is 4."


def records(renderer, problem=PROBLEM, segments=SEGMENTS, summaries=(SUMMARY,), conclusion=CONCLUSION):
    done = teach(problem, segments, summaries, conclusion, Format())
    assert isinstance(done, Trajectory)
    return instances(done, Format(), renderer)


def completion(ids, renderer):
    """What a backend returns for ids: ended if the last one says so, else cut."""
    ended = ids[-1] in renderer.eos_ids
    text = renderer.decode(ids[:-1] if ended else ids)
    return Completion(text, Stop.STOP if ended else Stop.LENGTH, completion_tokens=len(ids), token_ids=tuple(ids))


def driven(carry, policy, rows, renderer):
    """Drive a machine with what the rows say a model generates; return the ids that each call sent and got."""
    machine = Machine(PROBLEM, make_format(carry), make_carry(carry, policy), policy)
    calls = []
    for row in rows:
        asked = machine.next()
        assert not isinstance(asked, Done)
        sent = renderer.ids(asked.prompt)
        got = [token for token in row.labels if token != -100]
        calls.append(sent + got)
        if len(got) > asked.max_tokens:  # the conclusion is cut, and written on in the same round
            machine.receive(completion(got[: asked.max_tokens], renderer))
            asked, sent, got = machine.next(), sent + got[: asked.max_tokens], got[asked.max_tokens :]
            assert not isinstance(asked, Done)
            assert renderer.ids(asked.prompt) == sent
        machine.receive(completion(got, renderer))
    done = machine.next()
    assert isinstance(done, Done)
    return calls, done.trajectory


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("carry", ["summary", "none"])
def test_a_row_is_what_inference_sends_and_gets(name, carry):
    renderer = Renderer(tiny(name), template_options=options(name))
    rows = list(rows_of(records(renderer), renderer, carry, eta=1, max_length=10_000))
    calls, trajectory = driven(carry, Policy(), rows, renderer)
    assert [row.input_ids for row in rows] == calls
    assert trajectory.conclusion == CONCLUSION
    assert len(rows) == (2 if carry == "summary" else 1)


@pytest.mark.parametrize("name", ALL)
def test_a_row_of_tail_is_what_inference_sends_and_gets_wherever_a_chunk_ends(name):
    renderer, checked = Renderer(tiny(name), template_options=options(name)), 0
    for eta in range(24, 48, 2):
        rows = list(rows_of(records(renderer), renderer, "tail", eta=eta, max_length=10_000))
        question = len(renderer.ids(make_format("tail").open(PROBLEM)))
        at_limit = renderer.decode(rows[-1].input_ids[: question + eta])
        if "</think>" not in at_limit and len(rows[-1].input_ids) > question + eta:
            continue  # inference would cut the tag itself
        calls, trajectory = driven("tail", Policy(eta=eta, phi=50), rows, renderer)
        assert [row.input_ids for row in rows] == calls
        assert trajectory.conclusion == CONCLUSION
        assert len(rows) == len(trajectory.rounds) > 1
        checked += 1
    assert checked > 3


def test_the_loss_falls_on_what_the_model_writes_and_on_nothing_else():
    renderer = Renderer(tiny("qwen25"))
    first, second = rows_of(records(renderer), renderer, "summary", eta=1, max_length=1000)
    for row in (first, second):
        assert len(row.labels) == len(row.input_ids)
        assert all(label in (-100, token) for label, token in zip(row.labels, row.input_ids, strict=True))
    trained = [renderer.decode([label for label in row.labels if label != -100]) for row in (first, second)]
    tags = Format().tags
    assert trained[0] == (
        f"{tags.escape(SEGMENTS[0].strip())}\n</think>\n\n<summary>\n{tags.escape(SUMMARY)}\n</summary><|im_end|>"
    )
    assert trained[1] == f"{SEGMENTS[1]}\n</think>\n\n{CONCLUSION}<|im_end|>"
    masked = renderer.decode(second.input_ids[: second.labels.index(next(x for x in second.labels if x != -100))])
    assert masked.endswith(f"<history>\n{tags.escape(SUMMARY)}\n</history>\n<think>\n")


@settings(max_examples=40, deadline=None)
@given(
    segments=st.lists(st.text("ab<>/think \n", min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=3),
    question=st.text("ab<>/think\\ \n", min_size=1, max_size=20).filter(str.strip),
)
def test_the_rows_of_instances_are_those_that_they_were_formed_as(segments, question):
    renderer = Renderer(tiny("qwen3"))
    problem = Problem("p", question, context=(("system", question),))
    done = teach(problem, segments, ["so far"] * (len(segments) - 1), "done", Format())
    assert isinstance(done, Trajectory)
    made = instances(done, Format(), renderer)
    rows = list(rows_of(made, renderer, "summary", eta=1, max_length=10_000))
    for row, record in zip(rows, made, strict=True):
        assert isinstance(row, Row)
        ids = row.input_ids
        assert len(ids) == record["prompt_tokens"] + record["completion_tokens"]
        assert renderer.decode(ids[: record["prompt_tokens"]]) == record["prompt"]


def test_vanilla_rows_hold_the_whole_thought_once():
    renderer = Renderer(tiny("qwen25"))
    (row,) = rows_of(records(renderer), renderer, "none", eta=1, max_length=1000)
    text = renderer.decode([label for label in row.labels if label != -100])
    whole = Format().tags.escape(f"{SEGMENTS[0].strip()}\n\n{SEGMENTS[1]}")
    assert text == f"{whole}\n</think>\n\n{CONCLUSION}<|im_end|>"


def test_segments_alone_make_the_vanilla_rows_that_instances_make():
    renderer = Renderer(tiny("qwen25"))
    segment = {
        "id": "p",
        "problem": PROBLEM.question,
        "context": '[["system", "Be brief."]]',
        "segments": list(SEGMENTS),
        "conclusion": CONCLUSION,
    }
    from_segments = list(rows_of([segment], renderer, "none", eta=1, max_length=1000))
    assert from_segments == list(rows_of(records(renderer), renderer, "none", eta=1, max_length=1000))
    (instructed,) = rows_of([segment], renderer, "none", eta=1, max_length=1000, instruction="Be exact.")
    assert "2 + 2?\n\nBe exact." in renderer.decode(instructed.input_ids)


def test_tail_rows_carry_head_and_tail_and_fill_the_window():
    renderer, eta = Renderer(tiny("qwen25")), 32
    rows = list(rows_of(records(renderer), renderer, "tail", eta=eta, max_length=1000))
    carry = make_carry("tail", Policy(eta=eta))
    question = len(renderer.ids(make_format("tail").open(PROBLEM)))
    thought = [label for row in rows for label in row.labels if label != -100]
    for row in rows[:-1]:
        assert len(row.input_ids) == question + eta
    for row in rows[2:]:
        assert row.input_ids[question : question + carry.head] == thought[: carry.head]
    (whole,) = rows_of(records(renderer), renderer, "none", eta=1, max_length=1000)
    assert thought == [label for label in whole.labels if label != -100]


def test_what_is_not_trained_on_is_told_with_its_reason():
    renderer = Renderer(tiny("qwen25"))
    first, second = records(renderer)
    kept, long = rows_of([first, second | {"thought": "x" * 500}], renderer, "summary", eta=1, max_length=300)
    assert isinstance(kept, Row)
    assert isinstance(long, Rejected)
    assert (long.id, long.k, long.reason) == ("p", 2, "too_long")
    assert long.detail.endswith("tokens, the window has 300")
    (broken,) = rows_of([second], renderer, "none", eta=1, max_length=300)
    assert (broken.reason, broken.detail) == ("incomplete", "1 of 2 rounds are here")
    assert broken.to_json() == {
        "id": "p",
        "round": 0,
        "stage": "sft",
        "reason": "incomplete",
        "detail": "1 of 2 rounds are here",
    }


def test_tags_as_tokens_keep_the_law_and_change_only_structure():
    """The tags become one id each; content that quotes them stays spelt out, so that it cannot become structure."""
    import copy

    plain = Renderer(tiny("qwen25"))
    tokenizer = copy.deepcopy(tiny("qwen25"))
    new = add_tags(tokenizer)
    assert len(new) == 4
    assert add_tags(tokenizer) == []
    tagged = Renderer(tokenizer)
    rows = list(rows_of(records(tagged), tagged, "summary", eta=1, max_length=1000))
    calls, trajectory = driven("summary", Policy(), rows, tagged)
    assert [row.input_ids for row in rows] == calls
    assert trajectory.conclusion == CONCLUSION
    before = list(rows_of(records(plain), plain, "summary", eta=1, max_length=1000))
    for with_tags, without in zip(rows, before, strict=True):
        assert tagged.decode(with_tags.input_ids) == plain.decode(without.input_ids)
    assert [sum(token in new for token in row.input_ids) for row in rows] == [2, 2]
