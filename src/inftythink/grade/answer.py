r"""Finding the answer in a conclusion: the last box, else what is announced as the answer, else what the end states."""

from __future__ import annotations

import re

from inftythink.grade.boxed import last_boxed
from inftythink.grade.units import is_unit

_HASHES = re.compile(r"^\s*####\s*(\S.*)$", re.MULTILINE)
_DISPLAY = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]", re.DOTALL)
_ANNOUNCED = re.compile(
    r"\b(?:answer|result|solution)s?\b[^.\n]{0,80}?(?:\b(?:is|are|be|equals)\b(?:\s+(?:equal\s+to|exactly|just))?\s*:?|:|=)"
    r"[\s*]*|\banswer\W{0,4}\n[\s*]*",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?:the|so|thus|hence|therefore)\b[^.\n$\\]{0,80}?\b(?:is|are|equals)\b\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"[.!?]?\s*\*\*(?=\s|$)|(?<!\\)[.!?](?=\s|$)|\n|[,;]?\s+(?:because|since|which|where|when|after|i\s+hope|as)\b",
    re.IGNORECASE,
)
_MATH = r"(?:\$\$.+?\$\$|(?<!\\)\$(?:\\\$|[^$\n])+?\$|\\\[.+?\\\]|\\\(.+?\\\))"
_FORMULA = re.compile(_MATH)
_FORMULAS = re.compile(rf"{_MATH}(?:\s*(?:,?\s*and|,?\s*or|,)\s*{_MATH})*")
_NUMBER = re.compile(r"[-−+]?\$?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?(?:\s*\\?%)?")
_WORD = re.compile(r"(?<![\\A-Za-z{])[^\W\d_]{2,}")
_MARKS = re.compile(r"^(?:[\s>•]|[-*]\s)+|[\s_]+$")

_BOLD = re.compile(r"\*\*([^*]+)(?:\*\*|$)")
_CONNECTING = {"and", "or"}
_UNDECIDED = {"not", "either", "neither", "nor", "cannot", "maybe", "between", "unknown"}

_FEW_WORDS = 3
"""A last line of at most this many words, without a number, is an answer by itself ("Evelyn")."""


def find_answer(conclusion: str) -> str | None:
    r"""Return the answer that a conclusion states; "" for an empty box, None when there is none.

    The last whole ``\boxed{...}`` counts, whatever follows. Without a box: the last ``#### x`` line, what follows the
    last "answer is" or "answer:", and else what the last line states.
    """
    box = last_boxed(conclusion)
    if box is not None:
        return box
    text = _DISPLAY.sub(lambda found: " ".join(found.group().split()), conclusion)
    if hashes := _HASHES.findall(text):
        return str(hashes[-1]).strip()
    announced = list(_ANNOUNCED.finditer(text))
    if announced and (said := _sentence(text[announced[-1].end() :])):
        return _value(said, first=True) or said
    line = next((_MARKS.sub("", line) for line in reversed(text.splitlines()) if line.strip()), "")
    if re.search(r"\d|\\|\$", line):
        return _value(line, first=False)
    return line if 0 < len(line.split()) <= _FEW_WORDS else None


def reference(gold: str) -> str:
    """Return the answer of a reference that may be a whole solution (GSM8K, MATH)."""
    box = last_boxed(gold)
    if box is not None:
        return box
    hashes = _HASHES.findall(gold)
    return str(hashes[-1] if hashes else gold).strip()


def _sentence(text: str) -> str:
    """Return the rest of a sentence, without what introduces the value in it."""
    said = text.strip()
    if subject := _SUBJECT.match(said):
        said = said[subject.end() :]
    end = _SENTENCE_END.search(said)
    return (said[: end.start()] if end else said).strip().rstrip("*_ ")


def _value(text: str, first: bool) -> str | None:
    """Return the value that a sentence states; all of it when it is a bare value, or says no single one.

    In prose it is what is set in bold, else the last formula, else what follows an equals sign, else the first or the
    last number.
    """
    if (bold := [found for found in _BOLD.findall(text) if re.search(r"\d", found)]) and not _is_undecided(text):
        return str(bold[-1]).strip()
    prose = {word.casefold() for word in _WORD.findall(_FORMULA.sub(" ", text)) if not is_unit(word)} - _CONNECTING
    if not prose or _is_undecided(text) or not re.search(r"\d|\\|\$", text):
        return text
    if formulas := list(_FORMULAS.finditer(text)):
        return formulas[-1].group()
    after = text.rpartition("=")[2].strip() if "=" in text else ""
    if after and not _WORD.search(after):
        return after
    numbers = _NUMBER.findall(text)
    return str(numbers[0 if first else -1]) if numbers else None


def _is_undecided(text: str) -> bool:
    return any(word.casefold() in _UNDECIDED for word in _WORD.findall(text))
