r"""One spelling for an answer's text: Unicode and TeX that mean the same become the same, wrappers and spacing go."""

from __future__ import annotations

import re
import unicodedata

from inftythink.grade.boxed import closing_brace

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_SYMBOLS = {
    **dict.fromkeys("−–—‐‑‒", "-"),
    **{"“": '"', "”": '"', "’": "'", "∕": "/", "⁄": "/"},
    **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "∓": r"\mp "},
    **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ", "º": r"^\circ "},
    **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∞": r"\infty ", "π": r"\pi "},
    **{"θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega "},
}
_VULGAR = re.compile("([0-9])\u2044([0-9]+)")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|([0-9]+|[A-Za-z]))")

_WORDED = r"\\(?:mbox|hbox|text(?:rm|bf|it|sf|tt|normal)|math(?:rm|bf|it|sf)|operatorname)\s*(?=\{)"
_SPACES = r"(?<!\\)\\[,;:> ]|(?<!\\)~"
_THOUSANDS = re.compile(rf"(?<![\d.,])(\d{{1,3}})((?:(?:{_SPACES}|\s)\d{{3}})+)(?!\d)")
_BRACED_THOUSANDS = re.compile(r"(?<!\\)\{\s*-?\d{1,3}(?:,\d{3})+\s*\}")
_REPLACED = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (_WORDED, r"\\text"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|boldsymbol|bm|rm|bf)(?![A-Za-z])", ""),
        (r"\\(?:left|right)\s*\.|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])", ""),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\leq?(?:slant)?(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq?(?:slant)?(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])", r"\\ne "),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\log_\s*(?:e(?![A-Za-z])|\{\s*e\s*\})", r"\\ln "),
        (r"\\(?:mathbb|Bbb)\s*(?:R|\{\s*R\s*\})(?=[\s$.}]*$)", r"(-\\infty,\\infty)"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\!\s*", ""),
        (r"\{\s*,\s*\}", ","),
        (r"\\\$\s*(-?\d[\d,]*(?:\.\d+)?)", r"\1\\text{ dollars}"),
        (rf"\\q?quad(?![A-Za-z])|{_SPACES}|\\hspace\*?\{{[^{{}}]*\}}", " "),
        (r"\\?\$|(?<!\\)\\[()\[\]]", " "),
        (r"(?<=[\w)}\]])\*\*(?=[\w({-])", "^"),
        (r"(?<![\\A-Za-z])(sqrt|pi)(?![A-Za-z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)|\\sqrt\s*(\d+)", r"\\sqrt{\1\2}"),
        (r"\\\\\s*\[\d+(?:\.\d+)?(?:pt|em|ex|mm|cm)\]", r"\\\\ "),
        (r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"([)\]])\s*[uU]\s*(?=[(\[])", r"\1\\cup "),
        (r"\s+", " "),
    )
]
"""Pattern and replacement, applied in this order."""

_ENDS = re.compile(r"^[\s*_`\"]+|[\s*_`\".,;:\\]+$")
_WRAPPER = re.compile(r"(\\text\s*)?\{")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def tidy(text: str) -> str:
    """Return an answer in the one spelling."""
    text = _THOUSANDS.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), _plain_unicode(text))
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _BRACED_THOUSANDS.sub(lambda found: found[0].replace(",", ""), text)
    return _unwrapped(_ENDS.sub("", text))


def squeezed(text: str) -> str:
    r"""Return a tidy text for comparison: no ``\text``, no spaces but between digits, nothing around a letter."""
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", _TEXT.sub(r"\1", text))
    return re.sub(r"^\(([A-Za-z])\)$|\{(\w)\}", lambda found: found[1] or found[2], text)


def words(text: str) -> str | None:
    r"""Return the words of a tidy text that is nothing but words (``\text{Evelyn}``, ``\text{(C)}``), else None."""
    wrapped = _TEXT.search(text) is not None
    bare = _TEXT.sub(r" \1 ", text)
    if "\\" in bare or re.search(r"[0-9=^_+*/<>{}]", bare):
        return None
    found = re.findall(r"[^\W\d_]+", bare)
    if not found or not (wrapped or any(len(word) > 2 for word in found)):
        return None
    return " ".join(word.casefold() for word in found if word.casefold() not in ("a", "an", "the") or len(found) == 1)


def _plain_unicode(text: str) -> str:
    """Return a text with TeX for mathematical characters, and ASCII digits."""
    if text.isascii():
        return text
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT.sub(lambda found: "_{" + found.group().translate(_SUBSCRIPTS) + "}", text)
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = unicodedata.normalize("NFKC", "".join(_SYMBOLS.get(character, character) for character in text))
    text = _VULGAR.sub(r" \\frac{\1}{\2}", text)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _unwrapped(text: str) -> str:
    r"""Take off braces that are around all of a text, and ``\text`` around what is no words."""
    while found := _WRAPPER.match(text):
        inside = text[found.end() : -1]
        if closing_brace(text, found.end()) != len(text) - 1 or (found[1] and not re.search(r"[\d\\]", inside)):
            break
        text = inside.strip()
    return text
