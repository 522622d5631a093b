"""Programming problems graded by running tests, in the layouts of HumanEval and MBPP.

HumanEval   task_id, prompt (a function to complete), entry_point, test, canonical_solution
MBPP        task_id, text or prompt, code, test_list, test_imports or test_setup_code
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inftythink.errors import InputError
from inftythink.grade.code import grade_code
from inftythink.protocol import Problem
from inftythink.tasks import columns
from inftythink.tasks.base import Item, TaskSettings, collect
from inftythink.tasks.prompts import CODE, preset
from inftythink.tasks.read import Hub, Row, read_rows

_COMPLETE = "Complete this Python function. Give it whole, with its imports.\n\n```python\n{prompt}\n```"
_WRITE = "{prompt}\n\nYour code is to pass these tests:\n\n```python\n{tests}\n```"


@dataclass(frozen=True)
class Code:
    """Problems of a data set, or of a file."""

    name: str
    about: str
    hub: Hub | None = None

    def items(self, settings: TaskSettings) -> list[Item]:
        """Return the problems; each row tells its layout by its columns."""
        prompt = preset(settings.prompt) if settings.prompt else CODE

        def make(row: Row) -> Item:
            question, solution, data = _humaneval(row) if "test_list" not in row.data else _mbpp(row)
            problem = Problem(columns.identity(row), question, solution)
            return Item(prompt.apply(problem), grade_code, data, columns.group(row, settings.group, ()))

        return collect(read_rows(settings.data, settings.split, self.hub), settings, make)


def tasks() -> tuple[Code, ...]:
    """Return all of them."""
    return (
        Code("code", "programming problems with tests in HumanEval's or MBPP's layout, named by --data"),
        Code(
            "humaneval",
            "164 Python functions to complete (openai/openai_humaneval)",
            Hub("openai/openai_humaneval", config="openai_humaneval"),
        ),
        Code(
            "mbpp",
            "257 short Python programs (google-research-datasets/mbpp, sanitized, test)",
            Hub("google-research-datasets/mbpp", config="sanitized"),
        ),
    )


def _humaneval(row: Row) -> tuple[str, str | None, dict[str, Any]]:
    """Return question, reference solution and what the grader is told."""
    prompt = columns.text(row, ("prompt",), "function to complete")
    entry = columns.text(row, ("entry_point",), "name of the function")
    tests = columns.text(row, ("test",), "tests (test of HumanEval, test_list of MBPP)")
    body = columns.optional(row, ("canonical_solution",))
    question = _COMPLETE.format(prompt=prompt.rstrip())
    return question, None if body is None else prompt + body, {"tests": tests, "entry_point": entry, "prompt": prompt}


def _mbpp(row: Row) -> tuple[str, str | None, dict[str, Any]]:
    """Return question, reference solution and what the grader is told."""
    text = columns.text(row, ("text", "prompt"), "problem").strip()
    tests = columns.texts(row, ("test_list",))
    if not tests:
        raise InputError(f"{row.place}: column 'test_list' is empty; the tests are to be there")
    setup = [columns.optional(row, ("test_setup_code",)) or "", *columns.texts(row, ("test_imports",))]
    more = columns.texts(row, ("challenge_test_list",))
    question = _WRITE.format(prompt=text, tests="\n".join(tests))
    data = {"tests": [*tests, *more], "setup": [*filter(None, setup)]}
    return question, columns.optional(row, ("code",)), data
