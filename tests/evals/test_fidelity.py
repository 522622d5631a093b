"""Facts found in any notation, and summaries held against what they were written from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.evals.facts import Sources, formulas, numbers, spell
from inftythink.evals.fidelity import Chain, fidelity, measure, of_row, of_trajectory, repeats
from inftythink.evals.restart import HISTORIES, history, shuffled
from inftythink.protocol import Outcome, Problem, Round, Trajectory


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("1,234.50 and 1{,}234 and 12\\,345 and 1\u202f234\u202f567", ["1234.5", "1234", "12345", "1234567"]),
        ("the set {1,2,3} and (4, 5)", ["1", "2", "3", "4", "5"]),
        ("007, 0.50, 3.0, 100.", ["7", "0.5", "3", "100"]),
        ("x² + 10⁻ and 10³", ["2", "10", "10", "3"]),
        ("٣٤٥٫٥ and ١٬٢٣٤ and १२३ and １２", ["345.5", "1234", "123", "12"]),
        ("共１２个，答案是3。", ["12", "3"]),
        ("\\frac12 + \\dfrac{3}{4} - ½", ["1", "2", "3", "4", "1", "2"]),
        ("1. First\n2) then 5\nStep 3: 6\n- 7 apples\n**4.** 8", ["5", "6", "7", "8"]),
        ("3.14 at a line's start is no list", ["3.14"]),
        ("3.5 kg\n2.25 m", ["3.5", "2.25"]),
        ("50\\% of \\$20", ["50", "20"]),
    ],
)
def test_numbers_in_any_notation(text, expected):
    assert numbers(text) == expected


@given(st.integers(0, 10**12))
def test_thousands_separators_do_not_matter(value):
    for separator in (",", "{,}", "\\,", "\u00a0", "\u2009", "\u202f", "’"):
        assert numbers(f"a {value:,} b".replace(",", separator)) == [str(value)]
    assert numbers(f"{value:,}".translate(str.maketrans("0123456789,", "٠١٢٣٤٥٦٧٨٩٬"))) == [str(value)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no formula here, 5 apples and $x$ and $12$", []),
        ("So x = 2y + 3 then", ["x=2y+3"]),
        ("$a = b + c < 5$", ["a=b+c", "b+c<5"]),
        ("\\[ x^{2} + 1 \\]", ["x^2+1"]),
        ("thus \\(\\left|x - 3\\right| \\leq \\dfrac{1}{2}\\).", ["|x-3|<=1/2"]),
        ("\\begin{aligned} a &= b+1 \\\\ c &= d \\end{aligned}", ["a=b+1", "c=d"]),
        ("f(x) = x² − 1, gcd(a, b) = 1", ["f(x)=x^2-1", "gcd(a,b)=1"]),
        ("所以x=5，因此y＝x+3。", ["x=5", "y=x+3"]),
        ("the total = 30 and x = the rest", []),
        ("\\sin \\theta = \\frac{\\sqrt{3}}{2}", ["\\sin\\theta=(sqrt(3))/2"]),
        ("2 x = 4", ["2x=4"]),
        ("$x = 1, y = 2$", ["x=1", "y=2"]),
    ],
)
def test_formulas_in_any_notation(text, expected):
    assert formulas(text) == expected


def test_a_formula_is_found_in_other_spellings_but_not_in_longer_ones():
    source = Sources("First $y=\\frac{22}{5}$, so that a = b = c; then xx=5 and z = 12.5")
    for there in ("y = 22/5", "$y = \\tfrac{22}{5}$", "a=b", "b = c", "z = 12.5"):
        assert source.has_formula(formulas(there)[0]), there
    for lacking in ("x = 5", "y = 22/57", "z = 12", "z=1", "a = c"):
        assert not source.has_formula(formulas(lacking)[0]), lacking


@given(st.text(alphabet="{}()[]$\\^_,. \n=+-1x²٣。sqrtfac", max_size=60))
def test_any_text_can_be_read_and_contains_its_own_facts(text):
    spell(text)
    own = Sources(text)
    assert all(own.has_number(number) for number in numbers(text))
    assert all(isinstance(formula, str) and formula for formula in formulas(text))


def test_hostile_text_is_read_in_time():
    for text in (
        "(" * 30000,
        "{" * 30000,
        "{" * 5000 + "}" * 5000,
        "\\frac{" * 5000,
        "1" * 50000,
        "(a" * 20000,
        "a=" * 20000,
    ):
        formulas(text)
        numbers(text)


QUESTION = "Solve 3x + 2y = 10 with x - y = 5."
CHAIN = Chain(
    "1",
    QUESTION,
    (
        "Adding, 5x = 20, so x = 4. Then y = x - 5 = -1.",
        "Check: 3 * 4 - 2 = 10. It holds. 17 is prime.",
        "So x + y = 3.",
    ),
    ("We have $x = 4$ and $y = x - 5$; 5x = 20.", "$x = 4$, $y = 7$; 17 is prime.", None),
)


def test_a_summary_is_held_against_its_sources():
    found = fidelity(CHAIN)
    first, second = found.summaries
    assert (first.numbers, first.numbers_supported, first.formulas, first.formulas_supported) == (3, 3, 3, 3)
    assert first.unsupported == ()
    assert (second.numbers, second.numbers_supported) == (3, 2)
    assert (second.formulas, second.formulas_supported) == (2, 1)
    assert second.unsupported == ("7", "y=7")
    assert first.chance is None


def test_what_only_the_first_thought_had_is_no_source_of_the_second_summary():
    chain = Chain("1", "?", ("The key is 41.", "Go on."), ("Nothing yet.", "The key is 41."))
    assert fidelity(chain).summaries[1].unsupported == ("41",)


def test_numbers_are_followed_through_later_summaries():
    chain = Chain("1", "Start with 2.", ("", "", "", ""), ("2 and 30 and 40", "30 and 50", "30", "50 and 40"))
    carried = fidelity(chain).carried
    # 30 and 40 come in first, 50 second; 50 and 40 come in again last, with nothing after it
    assert carried == {1: (1, 3), 2: (2, 3), 3: (1, 2)}


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        ("a = 1\nb", "a = 1 b", "identical"),
        (
            "The answer so far is 15, go on with the second case.",
            "The answer so far is 15, go on with the second case",
            "near",
        ),
        (
            "The answer so far is 15, go on with the second case.",
            "The answer so far is 16, go on with the second case.",
            None,
        ),
        ("x = 1", "Something else entirely", None),
        ("", "", "identical"),
        ("进行第二种情况，继续计算直到完成为止", "进行第二种情况，继续计算直到完成为止。", "near"),
    ],
)
def test_repeated_summaries(before, text, expected):
    assert repeats(before, text) == expected


def test_the_report_adds_up():
    other = Chain("2", "Another 88?", ("Some 4 thought.", "x"), ("4", "4"))
    report = measure([CHAIN, other, Chain("3", "No rounds", ("one thought",), (None,))]).to_json()
    assert (report["chains"], report["summaries"]) == (3, 4)
    assert report["numbers"] == {"count": 7, "of": 8, "share": 7 / 8}
    assert report["numbers_by_chance"] == {"count": 2, "of": 2, "share": 1.0}  # 4 stands in the first chain, too
    assert report["formulas"] == {"count": 4, "of": 5, "share": 4 / 5}
    assert report["repeated"]["identical"] == {"count": 1, "of": 2, "share": 0.5}
    assert report["examples"] == [{"id": "1", "round": 2, "unsupported": ["7", "y=7"]}]
    assert report["chars_by_round"]["1"]["summaries"] == 2
    chars = sum(len(text) for text in (*CHAIN.summaries[:2], "4", "4"))
    thoughts = sum(len(text) for text in (*CHAIN.thoughts[:2], *other.thoughts))
    assert report["compression"] == thoughts / chars
    json.dumps(report)


def test_the_report_of_nothing():
    report = measure([]).to_json()
    assert report["chains"] == 0
    assert report["numbers"]["share"] is report["compression"] is report["growth"] is None


def test_another_sample_of_the_same_question_is_no_chance():
    report = measure([CHAIN, CHAIN]).to_json()
    assert report["numbers_by_chance"]["of"] == 0


def test_chains_of_rows_and_of_trajectories_are_the_same():
    row = {"id": "1", "problem": QUESTION, "segments": list(CHAIN.thoughts), "summaries": list(CHAIN.summaries[:2])}
    assert of_row(row) == CHAIN
    rounds = tuple(Round(k + 1, *pair) for k, pair in enumerate(zip(CHAIN.thoughts, CHAIN.summaries, strict=True)))
    assert of_trajectory(Trajectory(Problem("1", QUESTION), Outcome.ANSWERED, rounds, "3")) == CHAIN
    json.dumps(fidelity(CHAIN, CHAIN).to_json())


def test_histories_of_the_restart_ablation():
    summary, thoughts = "x is 4\nand y is -1, check both", ("One.", "Two.")
    made = {how: history(how, summary, thoughts) for how in HISTORIES}
    assert made["true"] == summary
    assert made["empty"] == ""
    assert made["full"] == "One.\n\nTwo."
    assert made["shuffled"] != summary
    assert sorted(made["shuffled"].split()) == sorted(summary.split())
    assert made["shuffled"].index("\n") > 0
    assert made["shuffled"] == history("shuffled", summary, thoughts) != history("shuffled", summary, thoughts, seed=1)


@given(st.text(max_size=40))
def test_shuffling_keeps_all_characters(text):
    assert sorted(shuffled(text)) == sorted(text)
