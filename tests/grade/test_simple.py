"""Multiple choice, exact text, and numbers within a tolerance."""

from __future__ import annotations

from typing import Any

import pytest

from inftythink.grade.base import Ask, Grader
from inftythink.grade.choice import grade_choice
from inftythink.grade.exact import grade_exact
from inftythink.grade.numeric import grade_numeric

CHOICE = {"letters": "ABCD", "options": ["5 m", "10 m", r"$15$ m", "a red giant"]}


@pytest.mark.parametrize(
    ("conclusion", "letter"),
    [
        *[
            (text, "C")
            for text in (r"\boxed{C}", r"\boxed{\text{C}}", r"$\boxed{(C)}$", r"\boxed{C. 15 m}", r"\boxed{c}")
        ],
        *[
            (text, "C")
            for text in (r"\boxed{\textbf{(C)}\ 15}", r"\boxed{15 m}", "The answer is (C).", "Answer: C", "C.")
        ],
        *[(text, "C") for text in ("**Answer:** **C**", "(C)", "**C**", "Answer: C) 15 m", "The answer is option C.")],
        ("The answer is C because A is wrong", "C"),
        ("The answer is a red giant.", "D"),
        ("I think it is (B)", "B"),
        ("The correct option is C because A is wrong.", "C"),
        ("Hence, option C is correct.", "C"),
        ("A is wrong. B is wrong. So C.", "C"),
        ("the correct choice is c", "C"),
        ("Options A and B fail, so option C is correct.", "C"),
        ("It is either option A or option C", None),
        ("The answer is A triangle.", None),
        ("I take (C), since it cannot be slower.", "C"),
        ("It is not option C", None),
        ("Option A is as good as option C", None),
        (r"\boxed{B} no, \boxed{C}", "C"),
        ("A good answer is hard to find", None),
        ("The best choice is (A), not (C)", None),
        (r"\boxed{A, C}", None),
        (r"\boxed{A and C}", None),
        (r"\boxed{E}", None),
        ("It is A triangle", None),
        ("", None),
    ],
)
def test_the_letter_that_is_settled_on(conclusion: str, letter: str | None) -> None:
    grade = grade_choice(Ask("", "C", conclusion, CHOICE))
    assert (grade.extracted, grade.correct) == (letter, letter == "C")


def test_a_reference_that_is_no_letter_is_the_graders_failure() -> None:
    grade = grade_choice(Ask("", "X", "A", CHOICE))
    assert grade.correct is None
    assert "none of the letters" in str(grade.reason)


@pytest.mark.parametrize(
    ("gold", "conclusion", "right"),
    [
        ("a b", "a  b\n", True),
        ("a b", r"\boxed{a b}", True),
        ("a b", "The answer is a b.", True),
        ("é", "\\boxed{e\u0301}", True),
        ("Ab", r"\boxed{ab}", False),
        ("0 1 1", r"\boxed{0 1 0}", False),
        ("1.0", r"\boxed{1}", False),
    ],
)
def test_exact_is_to_the_letter(gold: str, conclusion: str, right: bool) -> None:
    assert grade_exact(Ask("", gold, conclusion)).correct is right


@pytest.mark.parametrize(
    ("gold", "conclusion", "data", "right"),
    [
        ("9.81", r"\boxed{9.8}", {"tolerance": 0.05}, True),
        ("9.81", r"\boxed{9.8 \text{ m/s}}", {"tolerance": 0.01}, True),
        ("9.81", r"\boxed{9.7}", {"tolerance": 0.05}, False),
        ("1000", r"\boxed{990}", {"relative": 0.01}, True),
        ("1000", r"\boxed{989}", {"relative": 0.01}, False),
        ("-1000", r"\boxed{-1,005}", {"relative": 0.01}, True),
        ("299.792", "The answer is 299.5 km.", {"tolerance": 1}, True),
        ("0.5", r"\boxed{\frac{1}{2}}", {}, True),
        ("0.5", r"\boxed{0.51}", {}, False),
        ("6.022e23", r"\boxed{6.022\times 10^{23}}", {}, True),
        ("3", r"\boxed{x \approx 3.01}", {"tolerance": 0.1}, True),
        ("3", r"\boxed{three}", {"tolerance": 0.1}, False),
    ],
)
def test_numbers_within_a_tolerance(gold: str, conclusion: str, data: dict[str, Any], right: bool) -> None:
    assert grade_numeric(Ask("", gold, conclusion, data)).correct is right


def test_a_reference_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="no number"):
        grade_numeric(Ask("", "three", "3"))


@pytest.mark.parametrize("grader", [grade_choice, grade_exact, grade_numeric])
def test_no_conclusion_and_no_reference(grader: Grader) -> None:
    gold = "1" if grader is not grade_choice else "A"
    assert (grader(Ask("", gold, None)).correct, grader(Ask("", gold, None)).reason) == (False, "no conclusion")
    assert grader(Ask("", None, "1")).correct is None
