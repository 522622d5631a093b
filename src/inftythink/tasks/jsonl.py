"""Problems of one's own: any file that has problems and answers.

problem   the question; or messages, turns with role and content of which the last is the user's question
answer    the reference; of a multiple choice the letter of the right option, or its text
id        optional; else the number of the row
options   optional: the texts of a multiple choice, shown in this order
grader    optional: math, exact, numeric or choice
tolerance optional: of numeric answers
group     optional: what results are broken down by
system    optional: a system prompt
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from inftythink.errors import InputError, UsageError
from inftythink.protocol import Problem
from inftythink.protocol.types import Role
from inftythink.tasks import columns
from inftythink.tasks.base import Item, TaskSettings, collect
from inftythink.tasks.graders import named
from inftythink.tasks.options import letters, with_options
from inftythink.tasks.prompts import LOGIC, MATHEMATICS, SCIENCE, GraderName, Preset, preset
from inftythink.tasks.read import Row, read_rows

GRADERS: tuple[GraderName, ...] = ("math", "exact", "numeric", "choice")
_OWN: Mapping[str, Preset] = {"math": MATHEMATICS, "numeric": MATHEMATICS, "exact": LOGIC, "choice": SCIENCE}
_ROLES: Mapping[str, Role] = {role: role for role in get_args(Role)}


@dataclass(frozen=True)
class Jsonl:
    """The task; see the module."""

    name: str = "jsonl"
    about: str = "any file with problems and answers, named by --data"

    def items(self, settings: TaskSettings) -> list[Item]:
        """Return the problems. The prompt is the one asked for, else the one that fits a problem's grader."""
        chosen = preset(settings.prompt) if settings.prompt else None
        return collect(
            read_rows(settings.data, settings.split, None), settings, lambda row: _item(row, settings, chosen)
        )


def _item(row: Row, settings: TaskSettings, chosen: Preset | None) -> Item:
    options = columns.texts(row, ("options", "choices"))
    grader = _grader(row, bool(options), chosen)
    context, question = _conversation(row)
    answer, data = columns.gold(row), dict[str, Any]()
    if options:
        answer = _right(row, options, answer)
        question = with_options(question, options)
        data = {"letters": letters(len(options)), "options": options}
    data |= {name: _distance(row, name) for name in ("tolerance", "relative") if row.data.get(name) is not None}
    problem = Problem(columns.identity(row), question, answer, context)
    group = columns.group(row, settings.group, ("group", "subject", "level"))
    return Item((chosen or _OWN[grader]).apply(problem), named(grader), data, group)


def _grader(row: Row, has_options: bool, chosen: Preset | None) -> GraderName:
    """Return the grader that the row names, else that of a multiple choice, of the prompt, or of mathematics."""
    asked = columns.optional(row, ("grader",))
    for name in GRADERS:
        if name == asked:
            return name
    if asked is not None:
        raise InputError(f"{row.place}: there is no grader {asked!r} here; there are: {', '.join(GRADERS)}")
    if has_options or chosen is None:
        return "choice" if has_options else "math"
    if chosen.grader not in GRADERS:
        raise UsageError(f"--prompt {chosen.name} is for problems with tests: give --task code")
    return chosen.grader


def _conversation(row: Row) -> tuple[tuple[tuple[Role, str], ...], str]:
    """Return the turns before the question, a system prompt among them, and the question."""
    system = columns.optional(row, ("system",))
    before: tuple[tuple[Role, str], ...] = (("system", system),) if system else ()
    if row.data.get("messages") is None:
        return before, columns.text(row, columns.PROBLEMS, "problem").strip()
    turns = row.data["messages"]
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{row.place}: messages are to be a list of turns, each with role and content")
    read = [_turn(row, turn) for turn in turns]
    if read[-1][0] != "user":
        raise InputError(f"{row.place}: the last of the messages is the {read[-1][0]}'s; it is to be the user's")
    return (*before, *read[:-1]), read[-1][1]


def _turn(row: Row, turn: Any) -> tuple[Role, str]:
    role = _ROLES.get(str(turn.get("role"))) if isinstance(turn, Mapping) else None
    if role is None or not isinstance(turn.get("content"), str):
        raise InputError(f"{row.place}: a turn is to have a role ({', '.join(_ROLES)}) and a text as content")
    return role, turn["content"]


def _right(row: Row, options: list[str], answer: str) -> str:
    """Return the letter of the right option, which the row names by letter or by text."""
    by_letter = [letter for letter in letters(len(options)) if letter == answer.upper()]
    by_text = [letter for letter, option in zip(letters(len(options)), options, strict=True) if option == answer]
    found = set(by_letter + by_text)
    if len(found) != 1:
        why = "names several options" if found else "is neither the letter nor the text of an option"
        raise InputError(f"{row.place}: the answer {answer!r} {why}")
    return found.pop()


def _distance(row: Row, name: str) -> float:
    try:
        value = float(row.data[name])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{row.place}: column {name!r} is to be a number from 0 on, not {row.data[name]!r}")
    return value
