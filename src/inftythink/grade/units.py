r"""Units behind a value: which text is one, and which two name the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAMES = {
    "dollar": "dollars usd bucks",
    "cent": "cents",
    "euro": "euros eur",
    "inch": "inches in",
    "foot": "feet ft",
    "yard": "yards yd yds",
    "mile": "miles mi",
    "millimetre": "millimetres millimeter millimeters mm",
    "centimetre": "centimetres centimeter centimeters cm cms",
    "metre": "metres meter meters m",
    "kilometre": "kilometres kilometer kilometers km kms",
    "milligram": "milligrams mg",
    "gram": "grams g gm",
    "kilogram": "kilograms kg kgs",
    "pound": "pounds lb lbs",
    "ounce": "ounces oz",
    "second": "seconds sec secs s",
    "minute": "minutes min mins",
    "hour": "hours hr hrs h",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "degree": "degrees deg degs",
    "radian": "radians rad rads",
    "millilitre": "millilitres milliliter milliliters ml",
    "litre": "litres liter liters l",
    "gallon": "gallons gal",
    "mile per hour": "mph",
    "kilometre per hour": "kph kmh",
}
_CANONICAL = {name: unit for unit, names in _NAMES.items() for name in (unit, *names.split())}
_FILLING = frozenset(re.findall(r"\w+", "square squared sq cubic cubed cu units unit of per the total each a"))
_NO_UNIT = frozenset(
    re.findall(
        r"\w+",
        "and or not to if for is mod minus plus over about more less than at least most million billion thousand "
        "hundred dozen half percent",
    )
)
_POWER = r"(?:\^\s*\{?\s*[23]\s*\}?)?"
_SYMBOL = re.compile(r"\s*\^\s*\{?\s*(?:\\circ|\\degree)\s*\}?\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF]))?$|\s*\\degree$")
ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
"""Degrees within these are part of the value."""
_WRAPPED = re.compile(r"\s*(?:\\cdot\s*)?\\text\s*\{([^{}]*)\}\s*" + _POWER + r"(?:\s*/\s*\\text\s*\{[^{}]*\})?$")
_FRACTION = re.compile(r"(?<=[\d})\]])\s*\\frac\s*\{\s*\\text\s*\{([^{}]*)\}\s*\}\s*\{\s*\\text\s*\{[^{}]*\}[^{}]*\}$")
_BARE = re.compile(r"(?:(?<=[\d})\]])|(?<=\\pi)(?=\s))\s*((?:[A-Za-z]+\.?(?:\s+|\s*/\s*|-)?){1,4})" + _POWER + "$")
_COMMANDS = re.compile(r"\\[A-Za-z]+\s*$")


@dataclass(frozen=True, slots=True)
class Measured:
    """A tidy text and the unit that stood behind it: "" when none, or none that is known; power 0 when not said."""

    text: str
    unit: str = ""
    power: int = 0

    def conflicts(self, other: Measured) -> bool:
        """Whether both units are known and cannot be the same."""
        if self.unit and other.unit and self.unit != other.unit:
            return True
        return self.power != other.power and min(self.power, other.power) > 0


def without_unit(text: str, bare: bool) -> Measured:
    r"""Take the unit off a tidy text: degrees, a ``\text{...}`` at its end, and words behind a number if ``bare``.

    Nothing is taken when nothing would be left: ``\text{east}`` is an answer.
    """
    if (found := _SYMBOL.search(text)) and found.start() and not ANGLE.search(text):
        return Measured(text[: found.start()].rstrip(), "degree")
    found = _FRACTION.search(text) or _WRAPPED.search(text)
    if found and text[: found.start()].strip() and _may_be_unit(found.group(1), single=True):
        return _measured(text, found)
    found = _BARE.search(text) if bare else None
    if found and not _COMMANDS.search(text[: found.end(1)]) and _may_be_unit(found.group(1), single=False):
        return _measured(text, found)
    return Measured(text)


def is_unit(word: str) -> bool:
    """Whether a word is a known unit, or stands in the name of one."""
    return word.casefold().rstrip(".") in _CANONICAL or word.casefold() in _FILLING


def _may_be_unit(text: str, single: bool) -> bool:
    """Whether words may be a unit; a single letter only where it is marked as text, or names a known unit."""
    found = [word.casefold() for word in re.findall(r"[A-Za-z]+", text)]
    if any(word in _NO_UNIT for word in found) or re.search(r"\d", text):
        return False
    return single or (bool(found) and all(len(word) > 2 or word in _CANONICAL or word in _FILLING for word in found))


def _measured(text: str, found: re.Match[str]) -> Measured:
    named = re.findall(r"[a-z]+", found.group().casefold())
    unit = " per ".join(_CANONICAL[word] for word in named if word in _CANONICAL)
    power = re.search(r"\^\s*\{?\s*([23])", found.group())
    said = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
    powers = [int(power[1])] if power else [said[word] for word in named if word in said]
    return Measured(text[: found.start()].rstrip(), unit, powers[0] if powers else 0)
