import pytest

from inftythink.grade.answer import find_answer, reference
from inftythink.grade.boxed import closing_boxes


@pytest.mark.parametrize(
    ("conclusion", "answer"),
    [
        (r"first \boxed{1}, then \boxed{2}. The answer is 3.", "2"),
        (r"\boxed{a} and an open \boxed{b", "a"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{}", ""),
        ("She pays 18.\n#### 1,234", "1,234"),
        ("The answer is 3.5.", "3.5"),
        ("The final answer is $x^2$. I hope it is correct.", "$x^2$"),
        ("**Answer:** **4 years**.", "4 years"),
        ("The answer is $1$ and $2$.", "$1$ and $2$"),
        ("Result: the value of x is 7 because 3 + 4 = 7", "7"),
        ("Therefore $x = 5$ and $y = 6$.", "$x = 5$ and $y = 6$"),
        ("40 + 2 = 42", "40 + 2 = 42"),
        ("So she has 40 + 2 = 42", "42"),
        ("After 3 days she has 18 dollars left", "18"),
        ("Evelyn", "Evelyn"),
        ("I have no idea whatsoever about this", None),
        ("", None),
    ],
)
def test_the_answer_is_what_the_conclusion_settles_on(conclusion: str, answer: str | None) -> None:
    assert find_answer(conclusion) == answer


@pytest.mark.parametrize(
    ("gold", "answer"), [("42", "42"), ("3 + 4 = <<3+4=7>>7\n#### 7", "7"), (r"We get $\boxed{\frac12}$.", r"\frac12")]
)
def test_a_reference_may_be_a_whole_solution(gold: str, answer: str) -> None:
    assert reference(gold) == answer


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        (r"$\boxed{1}$ and $\boxed{-2}$", ["1", "-2"]),
        (r"\boxed{1}, \boxed{2}, \boxed{3}.", ["1", "2", "3"]),
        (r"\boxed{1}. No, it is \boxed{2}", ["2"]),
        ("none", []),
    ],
)
def test_boxes_side_by_side_are_one_answer(text: str, boxes: list[str]) -> None:
    assert closing_boxes(text) == boxes
