"""Answers that must be written exactly as the reference is: white space and the form of Unicode apart."""

from __future__ import annotations

import unicodedata

from inftythink.grade.answer import find_answer
from inftythink.grade.base import NO_ANSWER, NO_CONCLUSION, NO_GOLD, WRONG, Ask, Grade


def grade_exact(ask: Ask) -> Grade:
    """Grade by text. The answer is what is boxed or announced; else a conclusion that is nothing but the reference."""
    gold = _plain(ask.gold or "")
    if not gold:
        return NO_GOLD
    if ask.conclusion is None:
        return NO_CONCLUSION
    if (whole := _plain(ask.conclusion)) == gold:
        return Grade(True, whole)
    found = find_answer(ask.conclusion)
    if found is None:
        return NO_ANSWER
    answer = _plain(found)
    return Grade(answer == gold, answer, None if answer == gold else WRONG)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
