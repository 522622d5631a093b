"""Opening, writing and reading a round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.protocol import Completion, Format, Part, PartKind, Place, Problem, Stop, Turn
from inftythink.protocol.format import Conclusion, Cut, Interrupted, Malformed, Summary
from tests.protocol.test_stream import TEXTS

FMT = Format()
CHAT = Format(thought="written")


def said(text: str, stop: Stop = Stop.STOP, **more) -> list[tuple[str, Completion]]:
    return [("", Completion(text, stop, **more))]


def flat(parts: tuple[Part, ...]) -> str:
    return "".join(part.text for part in parts)


@given(TEXTS, TEXTS.filter(str.strip), st.sampled_from([FMT, CHAT]))
def test_write_then_read_is_the_identity(thought, other, fmt):
    other = other.strip()
    assert fmt.read(said(fmt.write(thought, summary=other))) == Summary(thought, other)
    assert fmt.read(said(fmt.write(thought, conclusion=other))) == Conclusion(thought, other)


@given(TEXTS, TEXTS)
def test_what_comes_from_outside_changes_nothing_but_the_content(question, summary):
    prompt = FMT.open(Problem("p", question, context=(("system", question),)), summary)
    plain = FMT.open(Problem("p", "x", context=(("system", "x"),)), "x")
    assert [p.kind for t in prompt.turns for p in t.parts] == [p.kind for t in plain.turns for p in t.parts]
    assert [p.text for p in prompt.prefill if p.kind is PartKind.STRUCTURE] == [
        "<history>\n",
        "\n</history>\n<think>\n",
    ]
    inside = "".join(p.text for p in prompt.prefill if p.kind is PartKind.CONTENT) + prompt.turns[-1].text
    assert not any(f"<{slash}{name}>" in inside for slash in ("", "/") for name in ("think", "summary", "history"))
    assert FMT.tags.unescape(prompt.turns[-1].text) == question


def test_the_layout_of_a_round():
    problem = Problem("p", "Q", context=(("system", "S"), ("user", "a"), ("assistant", "b")))
    first, later = FMT.open(problem), FMT.open(problem, "s")
    assert [(turn.role, turn.text) for turn in first.turns] == [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "Q"),
    ]
    assert flat(first.prefill) == "<think>\n"
    assert flat(later.prefill) == "<history>\ns\n</history>\n<think>\n"
    assert CHAT.open(problem).prefill == ()
    assert Format(instruction="Box it.").open(problem).turns[-1] == Turn(
        "user", (Part(PartKind.CONTENT, "Q\n\nBox it."),)
    )
    assert FMT.write("r", summary="s") == "r\n</think>\n\n<summary>\ns\n</summary>"
    assert FMT.write("r", conclusion="c") == "r\n</think>\n\nc"
    assert CHAT.write("r", conclusion="c") == "<think>\nr\n</think>\n\nc"


@pytest.mark.parametrize(
    ("fmt", "completion", "reading"),
    [
        (FMT, said("r\n</think>\n\n<summary>\ns\n</summary> more"), Summary("r", "s")),
        (FMT, said("r\n</think>\n\n"), Malformed("r", "empty conclusion")),
        (FMT, said("r"), Malformed("r", "thought not closed")),
        (FMT, said(""), Malformed("", "thought not closed")),
        (FMT, said("r</think><summary>s"), Malformed("r", "summary not closed")),
        (FMT, said("r</think><summary>\n \n</summary>"), Malformed("r", "empty summary")),
        (CHAT, said(" "), Malformed("", "empty completion")),
        (FMT, said("r", Stop.LENGTH), Cut("r", "", Place.THOUGHT)),
        (FMT, said("r</think> ", Stop.LENGTH), Cut("r", "", Place.BETWEEN)),
        (FMT, said("r</think><summary>half", Stop.LENGTH), Cut("r", "half", Place.SUMMARY)),
        (FMT, said("r</think>half", Stop.LENGTH), Cut("r", "half", Place.CONCLUSION)),
        # a closed summary is a summary, even when a model that never stops filled the round up behind it
        (FMT, said("r</think><summary>s</summary> and on", Stop.LENGTH), Summary("r", "s")),
        (CHAT, said("no tags, cut", Stop.LENGTH), Cut("no tags, cut", "", Place.THOUGHT)),
        (CHAT, said("no tags, ended"), Conclusion("", "no tags, ended")),
        # the template opened the thought: only its end is seen
        (CHAT, said("r</think>c"), Conclusion("r", "c")),
        # a stop string inside the thought or the conclusion is content
        (FMT, said("a </summary>", stop_text="</summary>"), Interrupted("a </summary>", "", Place.THOUGHT)),
        (FMT, said("r</think>x</summary>", stop_text="</summary>"), Interrupted("r", "x</summary>", Place.CONCLUSION)),
        (FMT, said("r</think><summary>s</summary>", stop_text="</summary>"), Summary("r", "s")),
        # a server that splits the thought off
        (CHAT, said("c", reasoning="r"), Conclusion("r", "c")),
        (CHAT, said("", reasoning="r"), Malformed("r", "empty conclusion")),
        (CHAT, said("", Stop.LENGTH, reasoning="r"), Cut("r", "", Place.THOUGHT)),
        (CHAT, said("c", Stop.LENGTH, reasoning="r"), Cut("r", "c", Place.CONCLUSION)),
    ],
)
def test_readings(fmt, completion, reading):
    assert fmt.read(completion) == reading


def test_a_round_of_several_calls_is_read_as_one_text():
    calls = [
        ("", Completion("r </thi", Stop.LENGTH)),
        ("\n</think>\n\n<summary>\n", Completion("s</summary>", Stop.STOP)),
    ]
    assert FMT.read(calls) == Summary("r </thi", "s")


@pytest.mark.parametrize("text", ["", "s"])
def test_what_a_server_splits_off_behind_a_closed_thought_is_what_was_asked_for(text):
    """Its parser knows of no summary: without an end of a thought it takes all for one."""
    first, scaffold = ("", Completion("r", Stop.LENGTH)), "\n</think>\n\n<summary>\n"
    split = Completion(text, Stop.LENGTH, reasoning="half of the ")
    assert FMT.read([first, (scaffold, split)]) == Cut("r", f"half of the {text}".rstrip(), Place.SUMMARY)
    answered = Completion(text, Stop.STOP, reasoning="4")
    assert FMT.read([first, ("\n</think>\n\n", answered)]) == Conclusion("r", f"4{text}")


def test_thoughts_that_a_server_splits_off_in_several_calls_are_all_kept():
    calls = [("", Completion("", Stop.LENGTH, reasoning="one ")), ("", Completion("c", Stop.STOP, reasoning="two"))]
    assert CHAT.read(calls) == Conclusion("one two", "c")


@pytest.mark.parametrize(
    ("place", "answer", "scaffold"),
    [
        (Place.THOUGHT, False, "\n</think>\n\n<summary>\n"),
        (Place.THOUGHT, True, "\n</think>\n\n"),
        (Place.BETWEEN, False, "<summary>\n"),
        (Place.BETWEEN, True, ""),
        (Place.SUMMARY, False, ""),
        (Place.CONCLUSION, True, ""),
    ],
)
def test_scaffolds(place, answer, scaffold):
    assert FMT.scaffold(place, answer) == scaffold
