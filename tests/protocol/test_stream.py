"""The reader's laws, and a written case for each of its rules."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.protocol import Event, Kind, Place, Reader, Tags

TAGS = Tags()
PIECES = [
    "<think>",
    "</think>",
    "<summary>",
    "</summary>",
    "<history>",
    "</history>",
    "<\\think>",
    "<\\\\/summary>",
    "<",
    "</",
    "<th",
    "<\\",
    "\\",
    ">",
    "\n",
    "\n\n",
    " ",
    "a",
    "Wait, 2<3.",
    "思考",
    "🙂",
    "<|im_end|>",
    "</thinks>",
    "\r\n",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=60)


def read(text: str, start: Place, cuts: list[int] | None = None) -> tuple[list[Event], Place, str]:
    """Read ``text`` in chunks that end at ``cuts``; join adjacent events of one kind."""
    reader = Reader(TAGS, start)
    bounds = [0, *sorted(cuts or []), len(text)]
    events = [event for low, high in itertools.pairwise(bounds) for event in reader.feed(text[low:high])]
    events += reader.close()
    joined: list[Event] = []
    for event in events:
        if joined and joined[-1].kind is event.kind:
            joined[-1] = Event(event.kind, joined[-1].text + event.text)
        else:
            joined.append(event)
    return joined, reader.place, reader.after


@given(TEXTS, st.sampled_from([Place.OPEN, Place.THOUGHT, Place.BETWEEN, Place.SUMMARY]), st.data())
def test_any_chunking_gives_the_same_events(text, start, data):
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=len(text)))
    assert read(text, start, cuts) == read(text, start)
    assert read(text, start, list(range(len(text)))) == read(text, start)


@given(TEXTS)
def test_escape_can_be_undone_and_leaves_no_tag(text):
    escaped = TAGS.escape(text)
    assert TAGS.unescape(escaped) == text
    assert not any(tag in escaped for tag in PIECES[:6])


@given(TEXTS)
def test_an_escaped_text_is_thought_and_nothing_else(text):
    events, place, _ = read(TAGS.escape(text), Place.THOUGHT)
    assert place is Place.THOUGHT
    assert "".join(event.text for event in events) == text


@given(TEXTS, st.sampled_from(list(Place)))
def test_no_character_that_is_not_white_space_or_tag_is_lost(text, start):
    events, _, after = read(text, start)
    kept = "".join(event.text for event in events) + after

    def bare(value: str) -> str:
        """Leave what can belong to no tag."""
        return "".join(c for c in value if c not in "<>/\\thinksummaryhistory" and not c.isspace())

    assert bare(kept) == bare(text)


T, S, C, R = Kind.THOUGHT, Kind.SUMMARY, Kind.CONCLUSION, Kind.RECLASSIFY


@pytest.mark.parametrize(
    ("start", "text", "events", "place"),
    [
        (Place.THOUGHT, "r\n</think>\n\n42", [(T, "r"), (C, "42")], Place.CONCLUSION),
        (Place.THOUGHT, "r\n</think>\n\n<summary>\ns\n</summary>", [(T, "r"), (S, "s")], Place.AFTER),
        # the prompt opened the thought and the model opens it once more
        (Place.THOUGHT, "<think>\nr</think>c", [(T, "r"), (C, "c")], Place.CONCLUSION),
        # a nested opening tag is content; the first closing tag closes
        (
            Place.THOUGHT,
            "a <think> b </think> c </think> d",
            [(T, "a <think> b "), (C, "c </think> d")],
            Place.CONCLUSION,
        ),
        # <summary> and its end inside the thought are content
        (
            Place.THOUGHT,
            "a <summary>x</summary> b\n</think>c",
            [(T, "a <summary>x</summary> b"), (C, "c")],
            Place.CONCLUSION,
        ),
        # a nested <summary> inside the summary is content; the first end ends it
        (Place.BETWEEN, "<summary>a <summary> b</summary> c</summary>", [(S, "a <summary> b")], Place.AFTER),
        # only line breaks: exactly one belongs to the tag
        (Place.THOUGHT, "\n\nr\n\n</think>", [(T, "\n\nr\n")], Place.BETWEEN),
        # unclosed
        (Place.THOUGHT, "r\n", [(T, "r\n")], Place.THOUGHT),
        (Place.THOUGHT, "r</thi", [(T, "r</thi")], Place.THOUGHT),
        (Place.BETWEEN, "<summary>s", [(S, "s")], Place.SUMMARY),
        # empty ones
        (Place.THOUGHT, "</think>", [], Place.BETWEEN),
        (Place.BETWEEN, "<summary> \n</summary>", [], Place.AFTER),
        # a model that opens its thought itself, one that has none, one whose template opened it
        (Place.OPEN, " \n<think>\nr\n</think>\n\nc", [(T, "r"), (C, "c")], Place.CONCLUSION),
        (Place.OPEN, " plain <think> text ", [(C, "plain <think> text")], Place.PLAIN),
        (Place.OPEN, "r</think>c", [(C, "r"), (R, ""), (C, "c")], Place.CONCLUSION),
        (Place.OPEN, "</think>c", [(R, ""), (C, "c")], Place.CONCLUSION),
        (Place.OPEN, "<summary>s</summary>", [(S, "s")], Place.AFTER),
        # tags in the conclusion are content, as in an answer that writes HTML
        (
            Place.BETWEEN,
            "<details><summary>x</summary></details>",
            [(C, "<details><summary>x</summary></details>")],
            Place.CONCLUSION,
        ),
        (Place.BETWEEN, "</think> <history>", [(C, "</think> <history>")], Place.CONCLUSION),
        (Place.SUMMARY, "a <\\/summary> b</summary>", [(S, "a </summary> b")], Place.AFTER),
        (Place.OPEN, "<\\think> is a tag", [(C, "<think> is a tag")], Place.PLAIN),
    ],
)
def test_rules(start, text, events, place):
    assert read(text, start)[:2] == ([Event(kind, text) for kind, text in events], place)


def test_text_after_the_summary_changes_nothing_and_is_kept():
    assert read("<summary>s</summary> and <think> more", Place.BETWEEN) == (
        [Event(S, "s")],
        Place.AFTER,
        " and <think> more",
    )


def test_text_is_let_go_as_soon_as_it_is_certain():
    reader = Reader(TAGS, Place.THOUGHT)
    assert reader.feed("2 <") == [Event(T, "2 ")]
    assert reader.feed(" 3") == [Event(T, "< 3")]
    assert reader.feed("\n") == []
    assert reader.feed("</think") == []
    assert reader.feed(">") == []
    assert reader.place is Place.BETWEEN


def test_other_tag_names_and_bad_ones():
    tags = Tags("thought", "note", "memory")
    reader = Reader(tags, Place.THOUGHT)
    assert reader.feed("<think></think>r</thought><note>n</note>") == [Event(T, "<think></think>r"), Event(S, "n")]
    for names in [("think", "think", "history"), ("a b", "c", "d"), ("", "s", "h")]:
        with pytest.raises(ValueError, match="tags must be"):
            Tags(*names)


def test_a_million_small_chunks_are_read_in_linear_memory_and_order():
    reader = Reader(TAGS, Place.THOUGHT)
    text = "".join("".join(event.text for event in reader.feed(piece)) for piece in ["ab", "<", "\n", " "] * 50_000)
    text += "".join(event.text for event in reader.close())
    assert text == "ab<\n " * 50_000
