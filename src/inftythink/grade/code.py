"""Programs, graded by running tests in a sandbox (``inftythink.grade.sandbox``).

Known of a problem, in ``Ask.data``:

    tests         text, or a list of texts: HumanEval's ``def check(candidate)``, or asserts (MBPP)
    entry_point   the function that is asked for; may be left out when the tests call it by its name
    prompt        the beginning of the program that the model was given (HumanEval)
    setup         what the tests need before them (MBPP's ``test_setup_code``)
    limits        what the program may use: see ``Limits``
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from inftythink.grade.base import NO_CONCLUSION, Ask, Grade, limits
from inftythink.grade.sandbox import MOST_SECONDS, Limits, isolation, run

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*[\w+-]*[ \t]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_IMPORT = re.compile(r"^(?:import|from)\s.*$", re.MULTILINE)
_NO_CODE = Grade(False, None, "no program in the conclusion")


@limits(timeout=MOST_SECONDS + 60, prepare=isolation)
def grade_code(ask: Ask) -> Grade:
    """Grade a program by its tests. Raises ``ValueError`` when there are none, ``RuntimeError`` without a sandbox."""
    tests = _texts(ask.data.get("tests"))
    if not tests:
        raise ValueError("the problem has no tests")
    if ask.conclusion is None:
        return NO_CONCLUSION
    entry_point, prompt = ask.data.get("entry_point"), str(ask.data.get("prompt") or "")
    found = find_code(ask.conclusion, entry_point)
    if found is None:
        return _NO_CODE
    begun = prompt if entry_point and not _defines(found, entry_point) else _whole(prompt)
    code = f"{begun}\n{found}"
    if entry_point and any(_defines(test, "check") for test in tests):
        tests.append(f"check({entry_point})")
    allowed = Limits(**(ask.data.get("limits") or {}))
    trouble = run([*_texts(ask.data.get("setup")), code, *tests], allowed)
    return Grade(trouble is None, found.strip(), trouble)


def find_code(conclusion: str, entry_point: str | None = None) -> str | None:
    """Return the program of a conclusion: the last fenced block that defines the entry point, else the last with code.

    Without any fence it is all of the conclusion, if that is Python.
    """
    blocks: list[str] = [found[1] for found in _FENCE.findall(conclusion)]
    if not blocks:
        return conclusion if _is_python(conclusion) else None
    wanted = [block for block in blocks if entry_point and _defines(block, entry_point)]
    defining = [block for block in blocks if re.search(r"^\s*(?:def|class)\s", block, re.MULTILINE)]
    return (wanted or defining or blocks)[-1]


def _whole(prompt: str) -> str:
    """Return a begun program so that it runs: helper functions and imports are in it, and an empty last function."""
    whole = f"{prompt.rstrip()}\n    pass"
    return whole if prompt.strip() and _is_python(whole) else "\n".join(_IMPORT.findall(prompt))


def _defines(code: str, name: str) -> bool:
    return (
        re.search(rf"^(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.MULTILINE)
        is not None
    )


def _is_python(text: str) -> bool:
    """Whether a text is Python that defines something, or the body of a function."""
    if not text.strip():
        return False
    if text[:1] in " \t":
        text = "def body():\n" + text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return not all(isinstance(part, ast.Expr) for part in ast.parse(text).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


def _texts(value: Any) -> list[str]:
    return [] if not value else [value] if isinstance(value, str) else [str(one) for one in value]
