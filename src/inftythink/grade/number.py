r"""Numbers as people and models write them, read exactly: ``1,234.50``, ``-\frac{3}{4}``, ``6.7\times10^{-5}``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_ARGUMENT = r"(?:\{{\s*(?P<{0}>-?" + _DECIMAL.replace("{", "{{").replace("}", "}}") + r")\s*\}}|(?P<{0}_digit>\d))"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:"
    rf"(?P<decimal>{_DECIMAL})(?:\s*(?:[eE]|(?:\\times|\\cdot|\*)\s*10\s*\^)\s*\{{?\s*(?P<power>[-+]?\d{{1,3}})\s*\}}?)?"
    rf"|(?:(?P<whole>\d+)\s*)?\\frac\s*{_ARGUMENT.format('over')}\s*{_ARGUMENT.format('under')}"
    rf"|(?:(?P<whole2>\d+)\s+)?(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf")\s*(?P<percent>\\?%|\\?\s*percent|\\text\s*\{{\s*percent\s*\}})?",
    re.IGNORECASE,
)

_ROUNDED = 6
"""Significant digits from which a decimal may stand for a number that no decimal is equal to."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number read exactly: percent are hundredths. ``places`` are the decimals written, None for a fraction."""

    value: Fraction
    percent: bool = False
    places: int | None = None

    def equals(self, other: Number) -> bool:
        """Whether both are the same number; 15% and 15 are, too: the sign is often part of the question."""
        if self.value == other.value:
            return True
        if self.percent != other.percent:
            return self._bare() == other._bare()
        if self.places is not None and other.places is not None:
            return False
        return self.rounds(other.value) or other.rounds(self.value)

    def rounds(self, exact: Fraction) -> bool:
        """Whether this is a decimal of at least six significant digits that is cut or rounded from ``exact``."""
        if not self.places or (exact * 10**self.places).denominator == 1:
            return False
        digits = len(str(abs(int(self.value * 10**self.places))))
        return digits >= _ROUNDED and abs(self.value - exact) < Fraction(1, 10**self.places)

    def __str__(self) -> str:
        return str(self._bare())

    def _bare(self) -> Fraction:
        return self.value * 100 if self.percent else self.value


def read_number(text: str) -> Number | None:
    """Read a tidy text that is a number and nothing else."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    try:
        value, places = _value(found)
    except (ValueError, ZeroDivisionError):
        return None
    value = -value if found["sign"] == "-" else value
    percent = found["percent"] is not None
    if percent:
        return Number(value / 100, True, None if places is None else places + 2)
    return Number(value, False, places)


def _value(found: re.Match[str]) -> tuple[Fraction, int | None]:
    if (decimal := found["decimal"]) is not None:
        power = int(found["power"] or 0)
        digits = decimal.replace(",", "")
        places = max(0, len(digits.partition(".")[2]) - power)
        return Fraction(digits.rstrip(".") or "0") * Fraction(10) ** power, places
    whole = Fraction(found["whole"] or found["whole2"] or 0)
    if found["top"] is not None:
        return whole + _plain(found["top"]) / _plain(found["bottom"]), None
    return whole + _plain(found["over"] or found["over_digit"]) / _plain(found["under"] or found["under_digit"]), None


def _plain(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))
