"""Counting tokens as ``render`` encodes content, fast.

A text is counted encoded alone, no special token added, and what looks like a special token counted as the ordinary
text it is. ``load_counter`` takes fastokens (a Rust tokenizer, an order of magnitude faster) where it is installed and
gives the very ids of the Hugging Face tokenizer for a set of probes; else the Hugging Face tokenizer. To make a counter
takes seconds where the vocabulary is large, so a process makes it once.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from inftythink.errors import InputError, MissingDependencyError, missing

if TYPE_CHECKING:
    from inftythink.render import Renderer

Fast = Literal["auto", "never", "always"]

PROBES = (
    *("x", "hello", "1", "", " ", "  lead", "trail  ", "\n\n", "a\n\nB", "a \n \n  b", "\r\n\r\n", "\t\tx"),
    "a\u00a0b\u3000c",
    *(
        "I'll we've DON'T it's",
        "12345678901234567890",
        "3.14159 × 10^-5",
        "...!!!???\n\n\nNext",
        "))))\n\n]]]]",
        "x=1;y=2//z",
    ),
    *(
        "\\[\n\\frac{a}{b} = \\boxed{7}\n\\]",
        "$$x^2$$\n\n- item\n- item",
        "```python\ndef f(x):\n    return x\n```\n\nSo",
    ),
    *(
        "好的，让我想想。因此答案是三。\n\n所以",
        "これは、問題です。「はい」",
        "문제를 풀어 봅시다.",
        "это не так, верно?",
    ),
    *("पहले हम देखते हैं", "ก่อนอื่นเรามาดู", "مرحبا، كيف؟", "שלום עולם", "e\u0301a\u0308\u0323 \u212b ﬁ", "Ǆ ŒUVRE ſ"),
    *("🙂👩‍👩‍👧‍👦🇩🇪👍🏽", "\u200b\u200d\ufeff\u0000\u0007", "𝔸𝕓𝒞"),
    *("<think>x</think>", "<|im_end|><|endoftext|></s>[INST]"),
    *("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "WaitWAITwait123abc_def-GHI"),
)
"""What two tokenizers must agree on to be taken for the same."""


_SHORT = 32  # characters of a text that is likely to come again: what stands between tags


class Counter(Protocol):
    """Counts tokens.

    ``additive`` promises that a text can be cut in two places without changing any token but for the end of the first
    piece, which may depend on the one character that follows it: between a line break and a character that is not white
    space, and between a character that is not white space and a space. So, for such ``a`` and ``b``,
    ``count(a + b) == count(a + b[0]) - count(b[0]) + count(b)``; the counts of many pieces then give those of the texts
    they make up. Without the promise nothing is taken for granted, and joined texts are counted again.
    """

    name: str
    additive: bool

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, encoded alone."""
        ...

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text``, encoded alone."""
        ...


class HuggingFaceCounter:
    """Counts with the Rust core of a Hugging Face tokenizer that knows no added tokens; ``spec``: tokenizer.json."""

    def __init__(self, spec: str, name: str = "") -> None:
        from tokenizers import Tokenizer

        self.name, self._spec, self.additive = f"{name} (Hugging Face tokenizers)", spec, _is_additive(json.loads(spec))
        self._tokenizer = Tokenizer.from_str(spec)
        # Offsets are not needed; leaving them out saves a sixth of the time. Older releases cannot.
        self._batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, encoded alone, on all cores."""
        return [len(encoding) for encoding in self._batch(list(texts), add_special_tokens=False)]

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text``, encoded alone."""
        return self.counts([text])[0]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        return [encoding.ids for encoding in self._batch(list(texts), add_special_tokens=False)]


class FastCounter:
    """Counts with fastokens. ``spec`` is a tokenizer.json. Raises ``MissingDependencyError`` without fastokens."""

    def __init__(self, spec: str, name: str = "") -> None:
        try:
            fastokens = import_module("fastokens")
        except ImportError as error:
            raise missing("fastokens", "fast") from error
        self.name, self.additive = f"{name} (fastokens)", _is_additive(json.loads(spec))
        self._tokenizer: Any = fastokens.Tokenizer.from_json_str(spec)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, encoded alone, on all cores."""
        ends = array("Q")
        ends.frombytes(self._tokenizer.encode_batch_flat(list(texts))[1])
        return [end - start for start, end in pairwise(ends)]

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text``, encoded alone."""
        return self.counts([text])[0]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def ids_of(self, text: str) -> list[int]:
        """Return the token ids of one text."""
        return self.ids([text])[0]


class RendererCounter:
    """Counts one text after the other with a ``Renderer``: slow, right for every tokenizer."""

    additive = False

    def __init__(self, renderer: Renderer) -> None:
        self.name, self._renderer = f"{renderer.name} (renderer)", renderer

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return [self._renderer.count(text) for text in texts]

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text``."""
        return self._renderer.count(text)


def load_counter(name_or_path: str | Path, fast: Fast = "auto") -> Counter:
    """Load the fastest counter that counts as ``render.Renderer.count`` of the same tokenizer does.

    ``name_or_path``: a folder with a tokenizer, or a name on the Hugging Face Hub. ``fast``: whether to use fastokens
    ``"auto"`` (where installed and equal), ``"never"``, or ``"always"`` (else an error). The process keeps the counter,
    and makes it anew when a file of the folder changed. Raises ``InputError`` when the tokenizer cannot be loaded, or
    fastokens was asked for and differs; ``MissingDependencyError`` when a package is not there.
    """
    return _load(str(name_or_path), _stamp(Path(name_or_path)), fast)


def quicken(renderer: Renderer, name_or_path: str | Path) -> None:
    """Have the renderer of a tokenizer encode content with fastokens, where ``load_counter`` takes that."""
    counter = load_counter(name_or_path)
    if isinstance(counter, FastCounter):
        short = lru_cache(maxsize=4096)(counter.ids_of)
        renderer.encode_with(lambda text: list(short(text)) if len(text) <= _SHORT else counter.ids_of(text))


def _stamp(folder: Path) -> tuple[object, ...]:
    """Return what changes when a file of the folder does; nothing for a name on the Hub."""
    if not folder.is_dir():
        return ()
    files = sorted((file.name, file.stat()) for file in folder.iterdir())
    return (folder.resolve(), *((name, status.st_size, status.st_mtime_ns) for name, status in files))


@lru_cache(maxsize=4)
def _load(name_or_path: str, stamp: tuple[object, ...], fast: Fast) -> Counter:
    """Make a counter; ``stamp`` only tells one state of the folder from another."""
    from inftythink.render import Renderer

    renderer = Renderer.load(name_or_path, template="plain")
    # What the renderer loaded: a folder without tokenizer.json is slow to load.
    return counter_of(renderer._tokenizer.backend_tokenizer.to_str(), renderer, fast)


def counter_of(spec: str, renderer: Renderer, fast: Fast = "auto") -> Counter:
    """Return the fastest counter for the tokenizer.json ``spec`` that counts as ``renderer`` does."""
    data = json.loads(spec)
    added = [token["content"] for token in data.get("added_tokens", [])]
    kept = data | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    bare = json.dumps(kept, ensure_ascii=False)
    # Added tokens are probes as well: a model can know such a string itself, and white space may be one.
    probes = [*PROBES, *added, *(f"a{token}b" for token in added)]
    try:
        expected = [renderer.encode_content(text) for text in probes]
    except InputError:  # a vocabulary without some characters: the renderer refuses the texts that have them
        return RendererCounter(renderer)
    problem = ""
    if fast != "never":
        try:
            quick = FastCounter(bare, renderer.name)
            if quick.ids(probes) == expected and quick.counts(probes) == [len(ids) for ids in expected]:
                return quick
            problem = "it gives other token ids"
        except MissingDependencyError:
            if fast == "always":
                raise
        except ValueError as error:  # what fastokens raises for a kind of tokenizer that it does not know
            problem = str(error)
    if fast == "always":
        raise InputError(f"fastokens cannot stand in for the tokenizer of {renderer.name}: {problem}. Use fast='auto'")
    whole = HuggingFaceCounter(bare, renderer.name)  # not before it is needed: it takes long to make as well
    return whole if whole.ids(probes) == expected else RendererCounter(renderer)


# Pre-tokenizers of which no alternative matches a line break and then a character that is not white space, or such a
# character and then a space; that look ahead by one character at most, and back by none: see ``Counter.additive``.
# (The one of o200k does match a line break and then a slash.)
_CASED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = (
    _CASED + r"\p{N}" + _REST,  # Qwen
    _CASED + r"\p{N}{1,3}" + _REST,  # cl100k, Llama 3
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
)
_SAFE = frozenset(re.sub(r"\(\?i:([^)]*)\)", r"(?:\1)", words) for words in _WORDS)


def _is_additive(spec: dict[str, Any]) -> bool:
    """Tell whether counts add up at the beginnings of lines; see ``Counter``."""
    if (spec.get("model") or {}).get("type") != "BPE" or (spec["model"].get("dropout") or 0) > 0:
        return False
    normalizer, splitter = spec.get("normalizer"), spec.get("pre_tokenizer")
    # Composition (NFC) never reaches over a line break.
    if normalizer and normalizer.get("type") != "NFC":
        return False
    steps = splitter.get("pretokenizers", [splitter]) if splitter else []
    return any(map(_splits_lines, steps)) and all(_splits_lines(step) or _is_local(step) for step in steps)


def _splits_lines(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True)) and not step.get("add_prefix_space")
    if step["type"] != "Split" or step.get("behavior") not in ("Isolated", "Removed") or step.get("invert"):
        return False
    words = re.sub(r"\(\?i:([^)]*)\)", r"(?:\1)", step.get("pattern", {}).get("Regex", ""))
    return step["behavior"] == "Isolated" and words in _SAFE


def _is_local(step: dict[str, Any]) -> bool:
    return step["type"] == "Digits" or (step["type"] == "ByteLevel" and not step.get("add_prefix_space"))
