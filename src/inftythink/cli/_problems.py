"""Reads the questions of ``inftythink solve --input``: JSONL, or plain text with one question a line."""

from __future__ import annotations

import codecs
import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from inftythink.errors import UsageError
from inftythink.protocol import Problem

_QUESTION_KEYS = ("problem", "question")


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that holds no problem."""

    line: int
    reason: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The line of ``rejects.jsonl``."""
        return {"id": f"line {self.line}", "stage": "read", "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Problems:
    """What a file held: its problems in order, the lines that were rejected, and a digest of its bytes.

    ``lines`` has the number of the line (from 1) of each problem, by its id.
    """

    problems: list[Problem]
    rejects: list[Reject]
    digest: str
    lines: dict[str, int] = field(default_factory=dict)


def read_problems(source: str, system: str = "") -> Problems:
    """Read a file of questions; ``-`` is standard input. A bad line is a reject, the others go on.

    A line of JSON is an object with ``problem`` (or ``question``), and may have ``id`` and ``answer``; without an
    ``id`` the number of the line (from 1) is one. Which layout it is: ``.jsonl`` is JSON, ``.txt`` is text, otherwise
    the first line tells. ``system`` becomes the system prompt of every problem.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    data = _read(source).removeprefix(codecs.BOM_UTF8)
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    is_json = source.endswith((".jsonl", ".ndjson", ".json"))
    if not is_json and not source.endswith(".txt"):
        is_json = bool(lines) and lines[0][1].lstrip().startswith(b"{")
    problems: list[Problem] = []
    rejects: list[Reject] = []
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            name, question, answer = _fields(number, line, is_json)
            if name in seen:
                raise _BadLine("duplicate_id", f"the id {name!r} stands on line {seen[name]} already")
        except _BadLine as bad:
            rejects.append(Reject(number, *bad.args))
            continue
        seen[name] = number
        problems.append(Problem(name, question, answer, (("system", system),) if system else ()))
    return Problems(problems, rejects, hashlib.sha256(data).hexdigest()[:8], seen)


class _BadLine(Exception):
    """Arguments: reason and detail of a reject."""


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"--input {source}: cannot be read ({error.strerror})") from error


def _fields(number: int, line: bytes, is_json: bool) -> tuple[str, str, str | None]:
    """Return id, question and answer of a line."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise _BadLine("not_utf8", f"byte {error.start + 1} is not UTF-8") from None
    if not is_json:
        return str(number), text, None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _BadLine("not_json", str(error)) from None
    if not isinstance(data, dict):
        raise _BadLine("not_an_object", f"expected an object with 'problem' or 'question', found {type(data).__name__}")
    key = next((key for key in _QUESTION_KEYS if data.get(key) is not None), None)
    if key is None:
        raise _BadLine("no_question", f"neither 'problem' nor 'question'; there are: {', '.join(data) or 'no fields'}")
    if not isinstance(data[key], str) or not data[key].strip():
        raise _BadLine("no_question", f"{key!r} is to be a text that is not empty")
    return _text(data, "id", str(number)), data[key], _text(data, "answer", None)


def _text(data: dict[str, Any], key: str, default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _BadLine(f"bad_{key}", f"{key!r} is to be a text or a number, not {type(value).__name__}")
    return str(value)
