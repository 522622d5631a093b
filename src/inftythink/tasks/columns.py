"""Reading a row by its columns, under the names that data sets have published them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from inftythink.errors import InputError
from inftythink.grade import last_boxed
from inftythink.tasks.read import Row

PROBLEMS = ("problem", "question", "Problem", "Question", "prompt")
ANSWERS = ("answer", "Answer", "final_answer", "expected_answer", "gold")
SOLUTIONS = ("solution", "Solution")
IDS = ("unique_id", "id", "ID", "Record ID", "task_id", "problem_id", "problem_idx", "uuid")


def text(row: Row, names: Sequence[str], what: str) -> str:
    """Return the first of the columns ``names`` that there is.

    Raises ``InputError``, naming the place and the columns found, when there is none or nothing in it.
    """
    found = optional(row, names)
    if found is not None:
        return found
    present = [name for name in names if name in row.data]
    if present:
        raise InputError(f"{row.place}: column {present[0]!r} is empty; the {what} is to be there")
    raise InputError(
        f"{row.place}: no {what}: none of the columns {', '.join(names)}; there are: {', '.join(map(str, row.data))}"
    )


def optional(row: Row, names: Sequence[str]) -> str | None:
    """Return the first of the columns ``names`` that holds something, None when none does."""
    for name in names:
        value = row.data.get(name)
        if value is not None and (found := _text(value, f"{row.place}: column {name!r}")).strip():
            return found
    return None


def texts(row: Row, names: Sequence[str]) -> list[str]:
    """Return the column that holds a list of texts; an empty list when there is none."""
    for name in names:
        value = row.data.get(name)
        if value is not None:
            place = f"{row.place}: column {name!r}"
            if not isinstance(value, list):
                raise InputError(f"{place} holds {type(value).__name__}, where a list belongs")
            return [_text(each, place) for each in value]
    return []


def identity(row: Row) -> str:
    """Return the row's own id, else its number."""
    return (optional(row, IDS) or str(row.number)).strip()


def group(row: Row, asked: str | None, usual: Sequence[str]) -> str:
    """Return what results are broken down by: the column ``asked`` for, else the first of the ``usual`` ones, or ""."""
    return text(row, (asked,), "group") if asked else optional(row, usual) or ""


def gold(row: Row) -> str:
    r"""Return the reference answer: a column of answers, else the last ``\boxed{}`` of a column of worked solutions."""
    if (answer := optional(row, ANSWERS)) is not None:
        return answer.strip()
    solution = optional(row, SOLUTIONS)
    if solution is None:
        return text(row, ANSWERS, "answer")
    found = last_boxed(solution)
    if not found:
        raise InputError(f"{row.place}: no column {', '.join(ANSWERS)}, and no \\boxed{{}} in the solution")
    return found


def behind_hashes(row: Row) -> str:
    """Return GSM8K's answer: what stands behind the last ``####`` of it, without commas."""
    answer = gold(row).rpartition("####")[2].strip().replace(",", "")
    if not answer:
        raise InputError(f"{row.place}: nothing stands behind #### in the answer")
    return answer


def whole(row: Row) -> str:
    r"""Return a reference answer that is a whole number, written plainly: 025 is 25, 27.0 is 27, 336^\circ is 336."""
    answer = gold(row)
    match = re.fullmatch(r"(-?)0*(\d+)(?:\.0*)?(?:\^\{?\\circ\}?)?", answer.replace(",", ""))
    if match is None:
        raise InputError(f"{row.place}: the answer {answer!r} is no whole number")
    return match[1] + match[2]


def _text(value: Any, place: str) -> str:
    """Return a value as text; a list of one is that one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{place} holds {type(value).__name__}, where a text or a number belongs")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found = str(value).replace("\r\n", "\n")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place} holds half a surrogate pair at character {error.start + 1}") from error
    return found
