r"""Values that are no plain numbers: read by math-verify's parser, compared exactly.

Numbers are compared to fifty digits, not rounded; everything with variables by math-verify. Nothing here has a time
limit: a worker process has one.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from inftythink.errors import missing
from inftythink.grade.number import read_number
from inftythink.grade.structure import alternatives, union
from inftythink.grade.units import ANGLE

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no time limit of its own

_DIGITS = 50
_EQUAL = 40
"""Numbers whose first forty of fifty digits agree are equal."""

_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")
_HEAVY = re.compile(r"\^\s*\{[^{}]*\^|\^\s*\{?\s*-?\d{2,}|!|\\(?:sum|int|prod|lim|binom)(?![A-Za-z])|\d{30,}")
_NO_VALUE = re.compile(r"(?<![_^\d])\d+\s+\d|\\(?:[lc]?dots|text)(?![A-Za-z])|\.\.\.")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})")
_LONG = 120


def load() -> None:
    """Load the parser and use it once, which takes about a second. Raises ``MissingDependencyError`` without it."""
    try:
        import math_verify  # noqa: F401 - the import is what takes long
    except ImportError as error:
        raise missing("math-verify", "eval") from error
    parsed(r"\frac{1}{2}x+1")


def is_relation(text: str) -> bool:
    """Whether a text says that something is smaller or larger."""
    return _RELATION.search(text) is not None


def same_value(gold: str, answer: str) -> bool:
    """Whether two tidy texts are the same value, or the same statement about variables."""
    one, other = parsed(gold), parsed(answer)
    if one is None or other is None:
        return False
    if _is_number(one) and _is_number(other):
        return _same_number(one, other) or _rounded(gold, other) or _rounded(answer, one)
    from math_verify import verify

    try:
        return bool(verify(one, other, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:  # sympy raises whatever it likes for things that cannot be compared
        return False


def same_set(gold: str, answer: str) -> bool:
    """Whether two tidy texts are the same set of real numbers: intervals, unions, or conditions on one variable."""
    try:
        one, other = _set(gold), _set(answer)
        return one is not None and other is not None and bool(one.symmetric_difference(other).is_empty)
    except MemoryError:
        raise
    except Exception:  # as above
        return False


def canonical(text: str) -> str | None:
    """Return one spelling for equal values; None when there is none, or when to find it might take long."""
    if len(text) > _LONG or _HEAVY.search(text) or (value := parsed(text)) is None:
        return None
    from sympy import Expr, expand, radsimp

    try:
        return str(radsimp(expand(value.doit()))) if isinstance(value, Expr) else str(value)
    except MemoryError:
        raise
    except Exception:  # as above
        return None


@lru_cache(maxsize=256)
def parsed(text: str) -> Any:
    """Return the sympy value of a tidy text, None when it cannot be read. Decimals are exact."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy, normalize_latex
    from math_verify.grader import should_treat_as_complex
    from sympy import Float, I, Rational, Symbol

    if _NO_VALUE.search(text):
        return None
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    # The parser drops the sign of degrees, which matters where a function is taken of them.
    radians = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text) if ANGLE.search(text) else text
    try:
        value = latex2sympy(
            normalize_latex(radians, config),
            is_real=not should_treat_as_complex(text),
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
        if not hasattr(value, "atoms"):
            return None
        exact = {number: Rational(str(number)) for number in value.atoms(Float)}
        exact |= {symbol: I for symbol in value.atoms(Symbol) if symbol.name == "i"}
        return value.xreplace(exact) if exact else value
    except MemoryError:
        raise
    except Exception:  # the parser raises plain exceptions, sympy whatever it likes
        return None


def _is_number(value: Any) -> bool:
    return bool(getattr(value, "is_number", False)) and not value.is_Boolean


def _same_number(one: Any, other: Any) -> bool:
    from sympy import N

    one, other = one.doit(), other.doit()
    if one == other or (one.is_Rational and other.is_Rational):
        return bool(one == other)
    if not (one.is_finite and other.is_finite):
        return False
    difference = N(one - other, _DIGITS, maxn=2000)
    size = max(1, abs(N(one, _DIGITS)))
    return bool(abs(difference) < size * 10**-_EQUAL)


def _rounded(text: str, exact: Any) -> bool:
    """Whether a text is a decimal that is cut or rounded from a number that has no end."""
    number = read_number(text)
    if number is None or not exact.is_extended_real or not exact.is_finite:
        return False
    return number.rounds(Fraction(str(exact.evalf(_DIGITS))))


def _set(text: str) -> Any:
    """Return the set of real numbers that a tidy text describes, None when it describes none."""
    from sympy import Set, Union

    pieces = [piece for part in union(text) for piece in (alternatives(part) if is_relation(part) else [part])]
    sets = []
    for piece in pieces:
        value = parsed(piece)
        if is_relation(piece) and value is not None and len(value.free_symbols) == 1:
            value = value.as_set()
        value = value.doit() if value is not None else None
        if not isinstance(value, Set):
            return None
        sets.append(value)
    return Union(*sets)
