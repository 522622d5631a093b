r"""Multiple choice: which letter a conclusion settles on.

Known of a problem, in ``Ask.data``: ``letters`` ("ABCD", or a list), and ``options``, their texts in the same order, if
an answer that repeats an option's text shall count as its letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from inftythink.grade.answer import find_answer
from inftythink.grade.base import NO_ANSWER, NO_CONCLUSION, NO_GOLD, WRONG, Ask, Grade
from inftythink.grade.boxed import last_boxed
from inftythink.grade.tidy import squeezed, tidy

_LETTERS = "ABCDEFGHIJ"
_UNDECIDED = re.compile(r"\b(?:either|neither|nor|not|cannot|or)\b", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textrm|textit|mathrm|mathbf|bf|rm)\b\s*|[{}$*`]|\\[()\[\],;! ]")


def grade_choice(ask: Ask) -> Grade:
    """Grade by letter. An answer that names several letters, or none, is wrong."""
    letters = [str(letter).upper() for letter in ask.data.get("letters", _LETTERS)]
    gold = (ask.gold or "").strip().strip("()").upper()
    if not gold:
        return NO_GOLD
    if gold not in letters:
        return Grade(None, None, f"the reference {ask.gold!r} is none of the letters {', '.join(letters)}")
    if ask.conclusion is None:
        return NO_CONCLUSION
    answer = find_letter(ask.conclusion, letters, ask.data.get("options") or ())
    if answer is None:
        return NO_ANSWER
    return Grade(answer == gold, answer, None if answer == gold else WRONG)


def find_letter(conclusion: str, letters: Sequence[str], options: Sequence[str] = ()) -> str | None:
    """Return the letter that a conclusion settles on: in its last box, else as announced, else in its last line."""
    box = last_boxed(conclusion)
    if box is not None:
        return _letter(box, letters, alone=False) or _option(box, letters, options)
    announced = find_answer(conclusion)
    if announced is not None and (found := _letter(announced, letters, alone=False)):
        return found
    lines = [line for line in conclusion.splitlines() if line.strip()]
    if not lines:
        return None
    return (
        _marked(lines[-1], "".join(letters))
        or _letter(lines[-1], letters, alone=True)
        or _option(announced or "", letters, options)
    )


def _marked(line: str, letters: str) -> str | None:
    """Return the one letter that a line chooses: "option C is correct", "(C)", "**C**", or "so C" at its end."""
    named = r"\b(?:option|choice|answer)\s+(?:is\s+|must\s+be\s+)?:?\s*"
    said = (
        rf"(?i:{named})(?:\(([{letters}])\)|\**([{letters}])(?=[.,:;*]|\s*$|\s+(?:is|because|since|as)\b))",
        rf"(?i:\b(?:so|thus|hence|therefore),?\s+)\(?([{letters}])\)?\W*$",
        rf"(?i:{named}\(?([{letters}])\)?\W*$)",
    )
    marked = rf"\(([{letters}])\)|\*\*([{letters}])\*\*"
    for pattern in (marked,) if _UNDECIDED.search(line) else (said[0], marked, *said[1:]):
        found = {"".join(match).upper() for match in re.findall(pattern, line)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _letter(text: str, letters: Sequence[str], alone: bool) -> str | None:
    """Return the letter at the beginning of a text: ``C``, ``(C)``, ``C.``, ``C) 12 m``, "option C"."""
    plain = _TEXT.sub(" ", text).strip()
    any_letter = "".join(letters)
    begins = re.match(
        rf"(?:(?:option|choice|answer)\s*:?\s*)?(?:\(\s*([{any_letter}])\s*\)|([{any_letter}]))(?![\w'])\s*(.*)",
        plain,
        re.I | re.S,
    )
    if begins is None:
        return None
    letter, rest = begins[1] or begins[2], begins[3]
    bare = begins[1] is None
    if bare and not letter.isupper() and rest:
        return None  # "a good question"
    if re.match(rf"(?:,|and|or|/|&)\s*(?:and\s*|or\s*)?\(?[{any_letter}]\)?(?![\w'])", rest):
        return None  # several letters
    if rest and bare and not re.match(r"[.):,:;\-–—=]|because\b|since\b|\bis\b", rest):
        return None  # "A triangle"
    if alone and rest.strip(". "):
        return None
    return letter.upper()


def _option(text: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """Return the letter of the one option whose text this is."""
    said = squeezed(tidy(text)).casefold()
    found = [
        letter for letter, option in zip(letters, options, strict=False) if squeezed(tidy(option)).casefold() == said
    ]
    return found[0] if len(found) == 1 else None
