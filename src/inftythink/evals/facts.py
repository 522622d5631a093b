r"""The numbers and formulas that a text states, each in one spelling, so that texts can be compared.

For LaTeX and plain text in any script: the digits of all scripts count, thousands separators do not. Everything works
on the spelling of ``spell``: ``1{,}234``, ``\dfrac{6}{5}``, ``x²`` and ``２`` become ``1234``, ``6/5``, ``x^2``, ``2``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
_CHARACTERS = str.maketrans(
    {"−": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "∕": "/", "⁄": "/", "٫": ".", "٬": ",", "，": ", ", "、": ", "}
    | {"。": ". ", "；": "; ", "：": ": ", "≤": "<=", "≥": ">=", "≠": "!=", "＝": "=", "＋": "+", "－": "-", "（": "("}
    | {"）": ")", "＜": "<", "＞": ">", "√": "sqrt", "$": " ", "&": ""}
)
_COMMANDS = {"times": "*", "cdot": "*", "div": "/", "leq": "<=", "le": "<=", "geq": ">=", "ge": ">=", "neq": "!="}
_COMMANDS |= {"ne": "!=", "lt": "<", "gt": ">", "approx": "≈", "equiv": "≡", "pm": "±", "pi": "π", "lvert": "|"}
_COMMANDS |= {"rvert": "|", "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "displaystyle": "", "bigl": ""}
_COMMANDS |= dict.fromkeys(("left", "right", "big", "Big", "bigg", "Bigg", "bigr", "quad", "qquad"), "")
_COMMANDS |= dict.fromkeys(("text", "textbf", "mathrm", "mathbf", "boxed", "fbox", "mbox", "operatorname"), " ")

_DEPTH = 20
"""Groups of LaTeX nested deeper than this stay as they are."""
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_GROUPED = re.compile(r"(?<![\d.])([1-9]\d{0,2})((?:(?:\{,\}|\\[,!;: ]|[\u00a0\u2009\u202f'’])\d{3})+)(?!\d)")
_COMMAS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
_COMMAND = re.compile(r"\\([A-Za-z]+)(?:[ \t]+(?![A-Za-z]))?")
_SPACING = re.compile(r"\\[,!;: ]|~")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\\\")
_SHORT = (
    (re.compile(r"\\sqrt[ \t]*"), "sqrt"),
    (re.compile(r"\\frac[ \t]*"), r"\\frac"),
    (re.compile(r"\\frac(\w)[ \t]*(\w)"), r"\\frac{\1}{\2}"),
    (re.compile(r"sqrt(\d)"), r"sqrt{\1}"),
)
"""What LaTeX allows to be left out, put in."""
_FRACTION = re.compile(r"\\frac\{([^{}]*)\}[ \t]*\{([^{}]*)\}")
_ARGUMENT = re.compile(r"([\^_]|sqrt)\{([^{}]*)\}")
_GROUP = re.compile(r"(?<![\^_}])(?<!\\frac)(?<!sqrt)\{([^{}]*)\}")
_OPERATOR = re.compile(r"[ \t]*(<=|>=|!=|[=<>≈≡±+*/^_,])[ \t]*")
_MINUS = re.compile(r"[ \t]*-[ \t]*(?=[\d(|\\]|[^\W\d_](?![^\W\d_]))")
_PRODUCT = re.compile(r"(?<=\d)[ \t]+(?=[A-Za-z](?![A-Za-z]))")
_LIST_MARK = re.compile(r"^[ \t]*[-*#>\t ]*(?:step[ \t]+)?\d{1,2}[.):](?!\d)", re.IGNORECASE | re.MULTILINE)
_NUMBER = re.compile(r"(?<![\d.])\d+(?:\.\d+)?")

_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_TOKEN = re.compile(
    r"(?P<relation><=|>=|!=|[=<>≈≡])|"
    r"(?P<operand>(?:\((?:[^()\n=<>]|\([^()\n]*\))*\)|[A-Za-z0-9_^+*/.!|'%πα-ωΑ-Ω\\\[\]±-])+)"
)
_OPERATION = re.compile(r"[\w)|][+*/^±-][\w(|\\-]|sqrt\(")
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")
_FUNCTIONS = {
    "sin",
    "cos",
    "tan",
    "log",
    "exp",
    "gcd",
    "lcm",
    "mod",
    "max",
    "min",
    "sqrt",
    "det",
    "sum",
    "prod",
    "pmod",
}
_EDGES = " \t.!'"


def spell(text: str) -> str:
    """Return the text with its mathematics in one spelling, without delimiters and without spaces round operators."""
    text = _RAISED.sub(lambda match: "^" + "".join(_SUPERSCRIPTS[each] for each in match[0]), text)
    text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]), text)
    text = "".join(_digit(each) for each in text) if not text.isascii() else text
    for mark, plain in (("\\%", "%"), ("\\$", " "), ("\\{", "("), ("\\}", ")")):
        text = text.replace(mark, plain)
    text = _GROUPED.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    text = _DELIMITERS.sub(" \n ", text.translate(_CHARACTERS))
    text = _COMMAS.sub(lambda match: match[0].replace(",", ""), text)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0].rstrip()), _SPACING.sub(" ", text))
    for pattern, to in _SHORT:
        text = pattern.sub(to, text)
    for _ in range(_DEPTH):
        if (opened := _open(text)) == text:
            break
        text = opened
    return _PRODUCT.sub("", _MINUS.sub("-", _OPERATOR.sub(r"\1", text)))


def numbers(text: str) -> list[str]:
    """Return the numbers of a text in order, without sign and needless zeros: ``-1,234.50`` is ``1234.5``.

    What only counts the items of a list is left out. Indices and the parts of a fraction are numbers like others.
    """
    return [_short(match[0]) for match in _NUMBER.finditer(_LIST_MARK.sub("", spell(text)))]


def formulas(text: str) -> list[str]:
    """Return the formulas of a text: relations, a chain in pairs, and what stands as an operation in LaTeX's marks.

    ``$a = b + c < 5$`` gives ``a=b+c`` and ``b+c<5``; ``$x^2 + 1$`` gives ``x^2+1``. What has words in it (of three
    letters or more, but for the names of functions) is none.
    """
    found = list(_relations(spell(text)))
    for match in _MATH.finditer(text):
        inner = spell(next(group for group in match.groups() if group is not None))
        for piece in re.split(r"[,;\n]", inner):
            whole = piece.strip(_EDGES)
            if _OPERATION.search(whole) and not re.search(r"[=<>≈≡]", whole) and _wordless(whole):
                found.append(whole)
    return found


class Sources:
    """Texts in which numbers and formulas are looked for."""

    def __init__(self, *texts: str) -> None:
        self._spelt = "\n".join(map(spell, texts))
        self._numbers = {_short(match[0]) for match in _NUMBER.finditer(self._spelt)}

    def has_number(self, number: str) -> bool:
        """Say whether a number, as ``numbers`` gives it, occurs."""
        return number in self._numbers

    def has_formula(self, formula: str) -> bool:
        """Say whether a formula, as ``formulas`` gives it, occurs; not as a piece of a longer name or number."""
        start = self._spelt.find(formula)
        while start >= 0:
            end = start + len(formula)
            before, after = self._spelt[max(0, start - 1) : start], self._spelt[end : end + 2]
            longer = (_joins(before) and _joins(formula[0])) or (_joins(after[:1]) and _joins(formula[-1]))
            if not longer and not (formula[-1].isdigit() and re.match(r"\.\d", after)):
                return True
            start = self._spelt.find(formula, start + 1)
        return False


def _digit(character: str) -> str:
    """Return a digit of any script as one of 0 to 9, and any other character as it is."""
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _open(text: str) -> str:
    """Write the innermost fractions, arguments and groups of LaTeX in line."""
    text = _FRACTION.sub(lambda match: f"{_whole(match[1])}/{_whole(match[2])}", text)
    text = _ARGUMENT.sub(lambda match: match[1] + _whole(match[2], match[1] == "sqrt"), text)
    return _GROUP.sub(r"\1", text)


def _whole(text: str, always: bool = False) -> str:
    """Return an operand, in brackets unless it is one name or number."""
    text = text.strip()
    return text if not always and re.fullmatch(r"[\w.]*", text) else f"({text})"


def _short(number: str) -> str:
    """Return a decimal without needless zeros."""
    value = Decimal(number)
    return format(value.to_integral_value() if value == value.to_integral_value() else value.normalize(), "f")


def _relations(spelt: str) -> Iterator[str]:
    """Yield each relation between two operands that stand next to it."""
    tokens = list(_TOKEN.finditer(spelt))
    for left, middle, right in zip(tokens, tokens[1:], tokens[2:], strict=False):
        near = left.end() == middle.start() and middle.end() == right.start()
        if near and (left.lastgroup, middle.lastgroup, right.lastgroup) == ("operand", "relation", "operand"):
            first, last = left[0].lstrip(_EDGES), right[0].rstrip(_EDGES + "\\")
            if first and last and _wordless(first) and _wordless(last):
                yield first + middle[0] + last


def _wordless(text: str) -> bool:
    return all(word.lower() in _FUNCTIONS for word in _WORD.findall(text))


def _joins(character: str) -> bool:
    return character.isascii() and character.isalnum()
