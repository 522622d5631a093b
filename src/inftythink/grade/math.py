r"""Mathematical answers, compared by value: ``\frac{9}{5}``, ``1.8`` and ``1\frac{4}{5}`` are the same.

An answer is taken apart here (lists, tuples, sets, units, equations, number bases), and what cannot be taken apart any
further is read and compared by math-verify. The reference is always read first and says what form matters.
"""

from __future__ import annotations

import re

from inftythink.grade.answer import find_answer, reference
from inftythink.grade.base import NO_ANSWER, NO_CONCLUSION, NO_GOLD, WRONG, Ask, Grade, limits
from inftythink.grade.boxed import closing_boxes
from inftythink.grade.number import read_number
from inftythink.grade.structure import Parts, equation, take_apart, union
from inftythink.grade.symbolic import canonical, is_relation, load, same_set, same_value
from inftythink.grade.tidy import squeezed, tidy, words
from inftythink.grade.units import without_unit

_BASES = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_BASED = re.compile(
    r"\(?(?P<digits>-?[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*)\)?\s*"
    r"(?:_\s*\{?\s*(?:\\text\s*\{)?|\\text\s*\{\s*\(?\s*(?=base)|\s+(?=base))\s*(?:base\s*-?\s*)?"
    rf"(?P<base>\d+|{'|'.join(_BASES)})\s*\)?\s*\}}*"
)
_MEMBER = re.compile(r"^(?:[A-Za-z]|\\[A-Za-z]+)\s*\\in(?![A-Za-z])\s*")
_APPROXIMATELY = re.compile(r"\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])|~=")
_NAME = re.compile(r"(?:\\?[A-Za-z]+|\\text\s*\{[^{}]*\})\s*(?:_\s*(?:\w|\{[^{}]*\}))?'*\s*(?:\([^()]*\))?")
_SAYS_NO_MORE = re.compile(r"[^-+*/^\d]+")
"""What stands before the equals sign of a reference that an answer need not repeat: a name, and nothing computed."""

_ONE_NAME = re.compile(r"(?:[A-Za-z]|\\(?!pi\b)[a-z]+)(?:_\s*(?:\w|\{\w+\}))?")
_LETTERS = re.compile(r"\\[A-Za-z]+|\\text\s*\{[^{}]*\}")

_TOO_LONG = 2000
"""An answer that is so many characters longer than the reference is wrong without being read."""

_MANY = 50
"""Most items of lists whose order does not count that are compared one with the other."""


@limits(prepare=load)
def grade_math(ask: Ask) -> Grade:
    """Grade by mathematical value. May run forever on hostile answers: use it in a worker that can be killed."""
    gold = tidy(reference(ask.gold or ""))
    if not gold:
        return NO_GOLD
    if ask.conclusion is None:
        return NO_CONCLUSION
    found = _joined(gold, ask.conclusion) or find_answer(ask.conclusion)
    if found is None:
        return NO_ANSWER
    if not (answer := tidy(found)):
        return Grade(False, None, "the answer is empty")
    if len(answer) > len(gold) + _TOO_LONG:
        return Grade(False, f"{answer[:100]}…", f"the answer has {len(answer)} characters: too long to be right")
    right = same(gold, answer)
    return Grade(right, normal_form(answer), None if right else WRONG)


def same(gold: str, answer: str) -> bool:
    """Whether a tidy answer says the same as a tidy reference."""
    if squeezed(gold) == squeezed(answer):
        return True
    if (said := words(gold)) is not None:
        return said == words(f"\\text{{{answer}}}") or said == words(answer)
    if (bases := _same_base(gold, answer)) is not None:
        return bases
    gold, answer = _MEMBER.sub("", gold), _exactly(_MEMBER.sub("", answer))
    plain, mine = without_unit(gold, bare=True), without_unit(answer, bare=not _has_letters(gold))
    if plain.conflicts(mine):
        return False
    if (plain.text, mine.text) != (gold, answer):
        return same(plain.text, mine.text)
    one, other = read_number(gold), read_number(answer)
    if one is not None and other is not None:
        return one.equals(other)
    return _same_parts(gold, answer)


def normal_form(answer: str) -> str:
    """Return a tidy answer in a form in which equal answers mostly are equal strings, so that votes can be counted."""
    if (said := words(answer)) is not None:
        return said
    answer = without_unit(_exactly(_MEMBER.sub("", answer)), bare=True).text
    if (number := read_number(answer)) is not None:
        return str(number)
    if (parts := take_apart(answer)) is not None:
        items = [normal_form(item) for item in parts.items]
        inside = ", ".join(items if parts.ordered else sorted(items))
        return f"{parts.kind[:1]}{inside}{parts.kind[1:]}"
    sides = equation(answer)
    if len(sides) > 1 and any(_NAME.fullmatch(side) for side in (sides[0], sides[-1])):
        return normal_form(_asked_side(sides))
    if len(sides) > 1 or is_relation(answer) or "\\cup" in answer:
        return squeezed(answer)
    return canonical(answer) or squeezed(answer)


def _joined(gold: str, conclusion: str) -> str | None:
    """Return the last boxes as one list when a reference of several items has each of them in a box of its own."""
    parts, boxes = take_apart(gold), closing_boxes(conclusion)
    return ", ".join(boxes) if parts and not parts.ordered and len(parts.items) == len(boxes) > 1 else None


def _same_base(gold: str, answer: str) -> bool | None:
    """Compare numbers with a base; None when the reference has none. An answer without one is in the base asked for."""
    one = _BASED.fullmatch(gold)
    if one is None:
        return None
    answer = (equation(answer) or [answer])[-1]
    other = _BASED.fullmatch(answer)
    if other is None:
        return one["digits"].upper().lstrip("0") == squeezed(answer).replace(",", "").upper().lstrip("0")
    if _base(one["base"]) != _base(other["base"]):
        return False
    return one["digits"].upper().lstrip("0") == other["digits"].upper().lstrip("0")


def _base(name: str) -> int:
    return _BASES.index(name) + 2 if name in _BASES else int(name)


def _exactly(answer: str) -> str:
    r"""Return what stands before ``\approx``, or after one at the beginning."""
    sides = [side.strip() for side in _APPROXIMATELY.split(answer) if side.strip()]
    return sides[0] if sides else answer


def _has_letters(text: str) -> bool:
    return re.search(r"[A-Za-z]", _LETTERS.sub("", text)) is not None


def _same_parts(gold: str, answer: str) -> bool:
    """Compare sets of real numbers, lists, equations, and at last single values."""
    pieces, others = union(gold), union(answer)
    if is_relation(gold) != is_relation(answer) or len(pieces) > 1 or len(others) > 1:
        return (len(pieces) == len(others) > 1 and _match(pieces, others)) or same_set(gold, answer)
    one, other = take_apart(gold), take_apart(answer)
    sides = equation(gold) if one is None else [gold]
    other_sides = equation(answer) if other is None else [answer]
    if len(sides) > 1 or len(other_sides) > 1:
        return _same_equation(sides, other_sides)
    if one is not None or other is not None:
        return _same_items(one or Parts("", (gold,)), other or Parts("", (answer,)))
    return same_value(gold, answer)


def _same_items(gold: Parts, answer: Parts) -> bool:
    if len(gold.items) != len(answer.items):
        return False
    if gold.ordered:
        in_order = answer.kind == gold.kind or (answer.kind == "" and gold.kind == "()")
        return in_order and all(same(one, other) for one, other in zip(gold.items, answer.items, strict=True))
    loose = answer.kind == "{}" or answer.kind == "" or (gold.kind == "" and answer.kind == "()")
    return loose and _match(gold.items, answer.items)


def _match(gold: list[str] | tuple[str, ...], answer: list[str] | tuple[str, ...]) -> bool:
    """Whether each item has its equal, whatever the order."""
    left = list(answer)
    if len(left) > _MANY:
        return sorted(map(squeezed, gold)) == sorted(map(squeezed, left))
    for item in gold:
        equal = next((place for place, other in enumerate(left) if same(item, other)), None)
        if equal is None:
            return False
        del left[equal]
    return True


def _same_equation(gold: list[str], answer: list[str]) -> bool:
    """Compare when at least one is an equation, given by its sides; ``x = 5`` is the same as ``5``."""
    if len(gold) == 1:
        return same(gold[0], _asked_side(answer))
    if len(answer) == 1:
        return _SAYS_NO_MORE.fullmatch(gold[0]) is not None and same(_asked_side(gold), answer[0])
    if _NAME.fullmatch(gold[0]) and _NAME.fullmatch(answer[0]):
        return squeezed(gold[0]) == squeezed(answer[0]) and same(gold[-1], answer[-1])
    return same_value(f"{gold[0]}={gold[-1]}", f"{answer[0]}={answer[-1]}")


def _asked_side(sides: list[str]) -> str:
    """Return the side with the value: the last one, unless it is the name (``5 = x``)."""
    return sides[0] if _ONE_NAME.fullmatch(sides[-1]) and not _ONE_NAME.fullmatch(sides[0]) else sides[-1]
