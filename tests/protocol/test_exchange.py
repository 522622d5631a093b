"""Training rows: the training prompt is the inference prompt, whatever was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.errors import ProtocolError
from inftythink.protocol import (
    Completion,
    Done,
    Exchange,
    Format,
    Generate,
    Machine,
    Policy,
    Problem,
    Prompt,
    Stop,
    Trajectory,
    exchanges,
    make_carry,
    make_format,
    prompts,
)
from tests.protocol.test_stream import TEXTS

POLICY = Policy(eta=40, gamma=10, phi=3)


def run(carry: str, completions: list[Completion], question: str = "Q") -> tuple[Trajectory, list[Prompt]]:
    """Drive a machine; return the trajectory and the first prompt of every round."""
    m = Machine(Problem("p", question), make_format(carry), make_carry(carry, POLICY), POLICY)
    seen: dict[int, Prompt] = {}
    for completion in completions:
        asked = m.next()
        assert isinstance(asked, Generate)
        seen.setdefault(asked.k, asked.prompt)
        m.receive(completion)
    done = m.next()
    assert isinstance(done, Done)
    return done.trajectory, list(seen.values())


def rows(trajectory: Trajectory, carry: str = "summary") -> list[Exchange]:
    return list(exchanges(trajectory, make_format(carry), make_carry(carry, POLICY)))


def text(row: Exchange) -> str:
    return "".join(target.part.text for target in row.target)


CONTENT = TEXTS.filter(str.strip)


@given(TEXTS, st.lists(st.tuples(TEXTS, CONTENT), max_size=2), TEXTS, CONTENT)
def test_a_teachers_rows_have_the_prompts_of_inference_and_read_back(question, steps, thought, conclusion):
    fmt = Format()
    said = [fmt.write(r, summary=s.strip()) for r, s in steps] + [fmt.write(thought, conclusion=conclusion.strip())]
    trajectory, seen = run("summary", [Completion(one, Stop.STOP) for one in said], question)
    made = rows(trajectory)
    assert [row.prompt for row in made] == seen
    assert [text(row) for row in made] == said
    assert all(row.ended and target.sampled for row in made for target in row.target)


def test_sampled_ids_are_kept_word_for_word_and_the_scaffold_is_not_sampled():
    cut = Completion("r", Stop.LENGTH, token_ids=(1, 2))
    forced = Completion("s</summary>", Stop.STOP, token_ids=(3, 4), stop_text="</summary>")
    answer = Completion("r</think>42", Stop.STOP, token_ids=(5, 6))
    trajectory, seen = run("summary", [cut, forced, answer])
    first, second = rows(trajectory)
    assert [(t.part.ids, t.part.text, t.sampled) for t in first.target] == [
        ((1, 2), "", True),
        (None, "\n</think>\n\n<summary>\n", False),
        ((3, 4), "", True),
    ]
    assert [t.part.ids for t in second.target] == [(5, 6)]
    assert [first.prompt, second.prompt] == seen


def test_without_ids_a_forced_scaffold_is_still_not_sampled():
    trajectory, _ = run(
        "summary",
        [
            Completion("r", Stop.LENGTH),
            Completion("s</summary>", Stop.STOP),
            Completion("r", Stop.STOP),
        ],
    )
    first, second = rows(trajectory)
    assert [(t.part.text, t.sampled) for t in first.target][1] == ("\n</think>\n\n<summary>\n", False)
    assert [(t.part.text, t.sampled) for t in second.target] == [("r", True)]


def test_a_forced_answer_from_texts():
    cut = Completion("r", Stop.LENGTH)
    trajectory, _ = run("none", [cut, Completion("42", Stop.STOP)])
    (row,) = rows(trajectory, "none")
    assert [(t.part.text, t.sampled) for t in row.target] == [("r", True), ("\n</think>\n\n", False), ("42", True)]


def test_an_unfinished_round_is_not_ended():
    trajectory, _ = run("summary", [Completion("r</think>4", Stop.LENGTH), Completion("2", Stop.LENGTH)])
    (row,) = rows(trajectory)
    assert not row.ended
    assert text(row) == "r</think>42"


def test_a_summary_that_was_cut_is_a_row_as_it_was_written():
    said = [Completion("r", Stop.LENGTH), Completion("half", Stop.LENGTH), Completion("r</think>42", Stop.STOP)]
    trajectory, seen = run("summary", said)
    first, second = rows(trajectory)
    assert (text(first), first.ended) == ("r\n</think>\n\n<summary>\nhalf", False)
    assert [first.prompt, second.prompt] == seen


def test_tail_rows_open_with_what_inference_carried_and_need_ids():
    trajectory, seen = run(
        "tail",
        [
            Completion("x", Stop.LENGTH, token_ids=tuple(range(40))),
            Completion("</think>42", Stop.STOP, token_ids=(1,)),
        ],
    )
    assert [row.prompt for row in rows(trajectory, "tail")] == seen
    bare, _ = run("summary", [Completion("r</think>42", Stop.STOP)])
    with pytest.raises(ProtocolError, match="has no token ids"):
        rows(bare, "tail")


def test_a_two_call_trajectory_becomes_rows_of_the_summary_format():
    trajectory, _ = run(
        "two_call",
        [
            Completion("r", Stop.LENGTH, token_ids=(1,)),
            Completion("s", Stop.STOP, token_ids=(2,)),
            Completion("42", Stop.STOP),
        ],
    )
    assert [text(row) for row in rows(trajectory)] == ["r\n</think>\n\n<summary>\ns\n</summary>", "\n</think>\n\n42"]
    with pytest.raises(ProtocolError, match="no training format"):
        rows(trajectory, "two_call")


def test_the_summarisers_prompt_is_bounded_by_summary_and_segment():
    turns = prompts.question_only(Problem("p", "Q", context=(("system", "S"),)))
    first = prompts.summarise(turns, None, "r1", 100)
    later = prompts.summarise(turns, "s1", "r2", 100, feedback="x is missing")
    assert [(t.role, t.text) for t in first.turns[:-1]] == [("system", "S"), ("user", "Q"), ("assistant", "r1")]
    assert [t.text for t in later.turns[2:-1]] == ["s1", prompts.CONTINUE, "r2"]
    assert "70 words" in later.turns[-1].text
    assert "x is missing" in later.turns[-1].text
    assert "rejected" not in first.turns[-1].text
