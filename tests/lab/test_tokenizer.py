import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from inftythink.data.form import teach
from inftythink.lab.tokenizer import END, make_tokenizer
from inftythink.protocol import Format, Policy, Problem, exchanges, make_carry
from inftythink.render import Renderer
from inftythink.tasks.puzzle import families

TOKENIZER = make_tokenizer()
RENDERER = Renderer(TOKENIZER)


@given(st.text())
def test_any_text_comes_back_and_yields_no_special_token(text: str) -> None:
    ids = RENDERER.encode_content(text)
    assert RENDERER.decode(ids) == text
    assert not set(ids) & set(TOKENIZER.all_special_ids)


def test_a_turn_ends_with_the_end_token_and_nothing_else_ends_it() -> None:
    assert RENDERER.end_id == TOKENIZER.convert_tokens_to_ids(END)
    assert RENDERER.eos_ids == {RENDERER.end_id}


def test_a_state_stands_at_the_same_distance_behind_the_one_before_wherever_a_round_begins() -> None:
    """What makes the puzzles learnable for so small a model: see the module's docstring."""
    for family in families():
        puzzle = family.sample(random.Random(1), (9, 12))
        lines = puzzle.lines[1:7]  # behind the line that reads the question, where a family has one
        segments, summaries = ["\n\n".join(lines[:3]), "\n\n".join(lines[3:])], [lines[2]]
        trajectory = teach(Problem("p", puzzle.question), segments, summaries, puzzle.conclusion, Format())
        rows = [
            RENDERER.instance(x).input_ids for x in exchanges(trajectory, Format(), make_carry("summary", Policy()))
        ]  # type: ignore[arg-type]
        first = RENDERER.encode_content(lines[0])[0]
        for row in rows:
            begins = [place for place, token in enumerate(row) if token == first]
            distances = {b - a for a, b in pairwise(begins)}
            assert distances == {len(RENDERER.encode_content(lines[0] + "\n\n"))}
