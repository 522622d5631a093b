"""Programs in the layouts of HumanEval and MBPP, as models answer with them."""

from __future__ import annotations

from typing import Any

import pytest

from inftythink.grade.base import Ask
from inftythink.grade.code import find_code, grade_code

PROMPT = '''from typing import List


def helper(x: int) -> int:
    return x + 1


def total(numbers: List[int]) -> int:
    """Add the successors of numbers.

    >>> total([1, 2])
    5
    """
'''
CHECK = "def check(candidate):\n    assert candidate([1, 2]) == 5\n    assert candidate([]) == 0\n"
HUMANEVAL = {"tests": CHECK, "entry_point": "total", "prompt": PROMPT}
MBPP = {"tests": ["assert double(2) == 4", "assert double(math.inf) == math.inf"], "setup": ["import math"]}

WHOLE = "def total(numbers: List[int]) -> int:\n    return sum(helper(x) for x in numbers)"


def fenced(code: str, language: str = "python") -> str:
    return f"Here it is:\n\n```{language}\n{code}\n```\n\nIt runs in linear time."


@pytest.mark.parametrize(
    ("conclusion", "data", "right"),
    [
        (fenced(WHOLE), HUMANEVAL, True),
        (fenced(PROMPT + "    return sum(map(helper, numbers))"), HUMANEVAL, True),
        (fenced("    return sum(map(helper, numbers))"), HUMANEVAL, True),
        ("    return sum(map(helper, numbers))\n", HUMANEVAL, True),
        (WHOLE, HUMANEVAL, True),
        (fenced(WHOLE) + fenced("print(total([1, 2]))\nraise SystemExit"), HUMANEVAL, True),
        (fenced(WHOLE, "py") + "\nUse it so:\n```\n$ python total.py\n```", HUMANEVAL, True),
        (fenced(WHOLE + "\n\nif __name__ == '__main__':\n    total(input())"), HUMANEVAL, True),
        (fenced("def total(numbers):\n    return sum(numbers)"), HUMANEVAL, False),
        (fenced("def other(numbers):\n    return 5"), HUMANEVAL, False),
        (fenced("import os\nos._exit(0)"), HUMANEVAL, False),
        (fenced("def total(numbers):\n    import sys; sys.exit(0)"), HUMANEVAL, False),
        (fenced("def double(x):\n    return 2 * x"), MBPP, True),
        (fenced("def double(x):\n    return x + 3"), MBPP, False),
        ("~~~python\ndef double(x):\n    return 2 * x\n~~~", MBPP, True),
        ("```python\ndef double(x):\n    return 2 * x", MBPP, True),
    ],
)
def test_a_program_is_right_when_its_tests_pass(conclusion: str, data: dict[str, Any], right: bool) -> None:
    grade = grade_code(Ask("", None, conclusion, data))
    assert grade.correct is right, grade
    assert grade.extracted
    assert (grade.reason is None) is right


def test_the_reason_says_what_went_wrong() -> None:
    data = {**MBPP, "limits": {"seconds": 20, "cpu_seconds": 1}}
    assert grade_code(Ask("", None, fenced("def double(x):\n    while True: pass"), data)).reason == "CPU limit of 1 s"
    assert grade_code(Ask("", None, fenced("double = 2"), data)).reason == "TypeError: 'int' object is not callable"
    assert grade_code(Ask("", None, "I cannot do that.", data)).reason == "no program in the conclusion"
    assert grade_code(Ask("", None, None, data)).reason == "no conclusion"


def test_a_problem_without_tests_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tests"):
        grade_code(Ask("", None, fenced(WHOLE)))


@pytest.mark.parametrize(
    ("conclusion", "code"),
    [
        ("prose only", None),
        ("", None),
        ("42", None),
        ("x = 42", "x = 42"),
        (fenced("first = 1") + fenced("second = 2"), "second = 2\n"),
        (fenced("def wanted(): pass") + fenced("def other(): pass"), "def wanted(): pass\n"),
    ],
)
def test_the_program_of_a_conclusion(conclusion: str, code: str | None) -> None:
    assert find_code(conclusion, "wanted") == code
