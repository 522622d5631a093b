r"""Numbers within a tolerance, for answers that are measured or rounded.

Known of a problem, in ``Ask.data``: ``tolerance``, the largest difference that is right, and ``relative``, the same as
a share of the reference (0.01 is one per cent). Without either the number must be the same.
"""

from __future__ import annotations

from fractions import Fraction

from inftythink.grade.answer import find_answer, reference
from inftythink.grade.base import NO_ANSWER, NO_CONCLUSION, NO_GOLD, WRONG, Ask, Grade
from inftythink.grade.number import Number, read_number
from inftythink.grade.tidy import tidy
from inftythink.grade.units import without_unit


def grade_numeric(ask: Ask) -> Grade:
    """Grade by distance. Raises ``ValueError`` for a reference that is no number."""
    if not ask.gold:
        return NO_GOLD
    gold = _number(reference(ask.gold))
    if gold is None:
        raise ValueError(f"the reference {ask.gold!r} is no number")
    if ask.conclusion is None:
        return NO_CONCLUSION
    found = find_answer(ask.conclusion)
    if found is None:
        return NO_ANSWER
    answer = _number(found)
    if answer is None:
        return Grade(False, tidy(found), "the answer is no number")
    tolerance, relative = (Fraction(str(ask.data.get(name) or 0)) for name in ("tolerance", "relative"))
    right = gold.equals(answer) or abs(answer.value - gold.value) <= max(tolerance, relative * abs(gold.value))
    return Grade(right, str(answer), None if right else WRONG)


def _number(text: str) -> Number | None:
    r"""Read a number with or without a unit; of ``x = 5`` and ``\pi \approx 3.14`` what stands last."""
    last = tidy(text).replace("\\approx", "=").rpartition("=")[2].strip()
    return read_number(last) or read_number(without_unit(last, bare=True).text)
