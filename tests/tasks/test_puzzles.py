"""The puzzles against independent definitions: each law is checked without the code that makes the reasoning."""

import itertools
import random

import pytest

from inftythink.tasks.automaton import CELLS as RING
from inftythink.tasks.automaton import Automaton
from inftythink.tasks.collatz import Collatz
from inftythink.tasks.colouring import CELLS, Colouring
from inftythink.tasks.puzzle import Family, families, family_of, grade, held_out

SPANS = ((2, 6), (8, 20), (30, 120))


def puzzles(family: Family, number: int = 20) -> list[tuple[tuple[int, int], object]]:
    rng = random.Random(7)
    return [(span, family.sample(rng, span)) for span in SPANS for _ in range(number)]


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_a_sample_has_the_length_asked_for_and_solves_itself(family: Family) -> None:
    for (low, high), puzzle in puzzles(family):
        assert low <= len(puzzle.lines) <= high  # type: ignore[attr-defined]
        assert family.solve(puzzle.question) == puzzle  # type: ignore[attr-defined]
        assert grade(puzzle.question, f"So: {puzzle.conclusion}").correct  # type: ignore[attr-defined]
        assert family_of(puzzle.question).name == family.name  # type: ignore[attr-defined,union-attr]


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_an_example_is_a_question_and_other_texts_are_not(family: Family) -> None:
    assert family.solve(family.example) is not None
    for text in ("", "What is 2 + 2?", family.example + " ", family.example.lower(), family.example.replace("?", "")):
        assert family.solve(text) is None


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_every_line_but_the_last_goes_on_to_the_next_whatever_came_before(family: Family) -> None:
    """The state in a line is all that is needed: the same line has the same successor in every puzzle it is in."""
    after: dict[str, str] = {}
    for _, puzzle in puzzles(family, 60):
        for line, following in itertools.pairwise(puzzle.lines):  # type: ignore[attr-defined]
            key = line if family.name != "colouring" else f"{puzzle.question}{line}"  # type: ignore[attr-defined]
            assert after.setdefault(key, following) == following


def test_held_out_states_are_a_tenth() -> None:
    for family in families():
        lines = [line for _, puzzle in puzzles(family, 40) for line in puzzle.lines]  # type: ignore[attr-defined]
        distinct = {state for line in lines if (state := family.state(line)) is not None}
        share = sum(held_out(family, line) for line in {family.state(line): line for line in lines}.values()) / len(
            distinct
        )
        assert 0.05 < share < 0.15


def collatz(number: int) -> list[int]:
    out = [number]
    while out[-1] != 1:
        out.append(out[-1] // 2 if out[-1] % 2 == 0 else 3 * out[-1] + 1)
    return out


def test_collatz_counts_and_places() -> None:
    family = Collatz()
    assert grade("How many Collatz steps from 27?", r"\boxed{111}").correct
    for start in (1, 2, 7, 97, 871, 6171):
        sequence = collatz(start)
        counted = family.solve(f"How many Collatz steps from {start}?")
        assert counted is not None
        assert counted.answer == str(len(sequence) - 1)
        read, *lines, tell = counted.lines
        assert [int(line.split(": ")[1].rstrip(".")[::-1]) for line in lines] == sequence
        assert read == f"Read 000: {start:.>6}"
        assert tell == f"Tell {counted.answer:0>3}: {counted.answer:.>6}"
    placed = family.solve("Where do 10 Collatz steps lead from 97?")
    assert placed is not None
    assert placed.answer == str(collatz(97)[10])
    assert placed.lines[0] == "Read 010: ....97"
    assert placed.lines[-1] == f"Tell 000: {placed.answer:.>6}"
    assert not family.check("How many Collatz steps from 27?", "112")
    assert not family.check("How many Collatz steps from 27?", "many")


def test_a_number_is_held_out_however_it_is_written() -> None:
    family = Collatz()
    for start in range(1000, 3000, 7):
        puzzle = family.solve(f"Where do 2 Collatz steps lead from {start}?")
        assert puzzle is not None
        assert family.state(puzzle.lines[0]) == family.state(puzzle.lines[1]) is not None
        assert family.state(puzzle.lines[-1]) == family.state(puzzle.lines[-2])


def test_a_sequence_that_grows_too_large_or_ends_too_soon_is_no_question() -> None:
    family = Collatz()
    assert family.solve("How many Collatz steps from 1234567?") is None
    assert family.solve("Where do 8 Collatz steps lead from 8?") is None


def test_the_automaton_is_rule_45_on_a_ring() -> None:
    rng = random.Random(3)
    for _ in range(50):
        puzzle = Automaton().sample(rng, (3, 30))
        rows = [line.split("|")[1] for line in puzzle.lines]
        assert all(row[RING:] == row[:2] for row in rows)
        for before, now in itertools.pairwise(row[:RING] for row in rows):
            cells = [cell == "#" for cell in before]
            # Rule 45 by its number, in place; then turned by one.
            table = [bool(45 >> index & 1) for index in range(8)]
            new = [table[4 * cells[i - 1] + 2 * cells[i] + cells[(i + 1) % RING]] for i in range(RING)]
            turned = new[1:] + new[:1]
            assert now == "".join("#" if cell else "." for cell in turned)


def test_colouring_finds_the_first_colouring_or_proves_that_there_is_none() -> None:
    rng, none = random.Random(5), 0
    for _ in range(60):
        puzzle = Colouring().sample(rng, (2, 60))
        given = puzzle.question.removeprefix("Colour ").removesuffix("?")
        first = next(solutions(given), None)
        none += first is None
        assert puzzle.answer == ("none" if first is None else first)
    assert 0 < none < 60


def solutions(given: str):  # type: ignore[no-untyped-def]
    """All colourings in order, without the code under test: cell by cell, checking backwards only."""

    def extend(row: str):  # type: ignore[no-untyped-def]
        if len(row) == CELLS:
            yield row
            return
        for colour in "abc" if given[len(row)] == "." else given[len(row)]:
            if all(row[-apart].lower() != colour.lower() for apart in (2, 3) if len(row) >= apart):
                yield from extend(row + colour)

    yield from extend("")


def test_any_right_colouring_is_accepted_and_nothing_else() -> None:
    question = "Colour A..............?"
    found = list(itertools.islice(solutions("A.............."), 20))
    assert all(Colouring().check(question, answer) for answer in found)
    assert not Colouring().check(question, "none")
    assert not Colouring().check(question, found[0].replace("A", "a"))
    assert not Colouring().check(question, found[0][:-1])
    assert not Colouring().check(question, "A" + "a" * (CELLS - 1))


@pytest.mark.parametrize(
    ("conclusion", "reason"),
    [(None, "no conclusion"), ("It is 111.", "no \\boxed{} in the conclusion"), (r"\boxed{110}", "wrong answer")],
)
def test_a_wrong_grade_says_why(conclusion: str | None, reason: str) -> None:
    verdict = grade("How many Collatz steps from 27?", conclusion)
    assert verdict.correct is False
    assert verdict.reason == reason


def test_only_puzzles_are_graded() -> None:
    with pytest.raises(ValueError, match="no puzzle"):
        grade("What is 2 + 2?", r"\boxed{4}")
