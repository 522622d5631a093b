"""The laws of segmentation, for texts and tokenizers of many kinds."""

import json
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inftythink.data.boundaries import Boundaries
from inftythink.data.read import Reject
from inftythink.data.segment import Segmented, segment
from inftythink.data.tokens import PROBES, FastCounter, HuggingFaceCounter, RendererCounter, counter_of, load_counter
from inftythink.errors import InputError, UsageError
from inftythink.render import Renderer

TEXT = """Okay, so I need to find the sum of the numbers. Let me think step by step.

Wait, maybe there is another way. So the answer is \\boxed{42}.

1. First, add the numbers: 1 + 2 + 3 = 6.
2. Then multiply.

\\[
x = \\frac{a}{b}
\\]

所以答案是四十二。我们再检查一遍。
"""
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KINDS = ("gpt2", "qwen", "whole", "metaspace")


@lru_cache
def tokenizer(kind: str) -> Tokenizer:
    """Train a small tokenizer: byte-level with the splits of GPT-2, of Qwen, or none; or a SentencePiece-like one."""
    tok = Tokenizer(models.BPE(byte_fallback=kind == "metaspace", unk_token="<unk>" if kind == "metaspace" else None))
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<|im_end|>"]
    if kind == "gpt2":
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif kind == "qwen":
        tok.normalizer = normalizers.NFC()
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), level])
    elif kind == "whole":
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        tok.pre_tokenizer, alphabet = pre_tokenizers.Metaspace(prepend_scheme="always"), []
        special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "<|im_end|>"]
    tok.decoder = decoders.Metaspace() if kind == "metaspace" else decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=special, show_progress=False, min_frequency=2
    )
    # A SentencePiece vocabulary has no line breaks: they are bytes.
    tok.train_from_iterator([TEXT.replace("\n", " ") if kind == "metaspace" else TEXT] * 4, trainer)
    data = json.loads(tok.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


@lru_cache
def counter(kind: str) -> HuggingFaceCounter:
    return HuggingFaceCounter(json.dumps(json.loads(tokenizer(kind).to_str()) | {"added_tokens": []}), kind)


def check(text: str, eta: int, kind: str, partition: str = "greedy") -> Segmented | None:
    """Assert the laws of one segmentation."""
    done = segment(text, eta, counter(kind), partition)
    if isinstance(done, Reject):
        if done.reason == "eta_too_small":
            character = max(text, key=lambda c: counter(kind).count(c))
            assert counter(kind).count(character) > eta or kind not in ("gpt2", "qwen")
        else:
            assert (done.reason, text.strip()) == ("empty_reasoning", "")
        return None
    assert "".join(done.segments) == text
    assert all(done.segments)
    assert counter(kind).counts(done.segments) == done.tokens
    assert max(done.tokens) <= eta
    assert max(counter(kind).counts([piece.strip() for piece in done.segments])) <= eta
    return done


BITS = (
    *(
        "Wait",
        "So ",
        "the ",
        "a",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        ". ",
        "!\n\n",
        "。",
        "好的",
        "所以",
        "か",
        "🙂",
        "👩‍👩‍👧‍👦",
    ),
    *(
        "🇩🇪",
        "e\u0301",
        "é",
        "\u3000",
        "12",
        "1. ",
        "- ",
        "x = 1",
        ":\n\n",
        "$$",
        "\\[",
        "\\]",
        "\\begin{a}",
        "\\end{a}",
        "```",
    ),
    *("```python\n", "</think>", "<|im_end|>", "'s", "/", "aaaaaaaaaaaaaaaaaaaaaaaaa"),
)
TEXTS = st.lists(st.sampled_from(BITS), max_size=60).map("".join) | st.text(max_size=80)


@settings(max_examples=300)
@given(text=TEXTS, eta=st.integers(1, 8) | st.integers(9, 60), kind=st.sampled_from(KINDS))
@example(text="\n\n🙂", eta=1, kind="gpt2")
@example(text=" " * 50, eta=2, kind="qwen")
def test_lossless_and_never_over_eta(text, eta, kind):
    greedy, balanced = check(text, eta, kind), check(text, eta, kind, "balanced")
    assert (greedy is None) == (balanced is None)
    if greedy is not None:
        assert len(balanced.tokens) == len(greedy.tokens)
        assert max(balanced.tokens) <= max(greedy.tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [1, 3, 17, 64, 10**9])
def test_long_reasoning(kind, eta):
    text = "".join(f"Attempt {i}. {TEXT}\n" for i in range(40))
    done = check(text, eta, kind)
    if eta == 10**9:
        assert done.segments == [text]


@pytest.mark.parametrize("unit", ["a", "foo bar ", "好", " ", "\n", "x = 1\n", "$$\n\n", "a. ", "👩‍👩‍👧‍👦"])
def test_text_without_boundaries(unit):
    check(unit * (30_000 // len(unit)) + "x", 64, "qwen")


def test_character_that_cannot_fit_is_a_reject():
    done = segment("So 🙂", 1, counter("gpt2"))
    assert isinstance(done, Reject)
    assert done.reason == "eta_too_small"
    assert "'🙂', takes 4 tokens; eta is 1" in done.detail


def test_misuse_and_unusable_texts():
    with pytest.raises(UsageError, match="eta is 0"):
        segment("So", 0, counter("gpt2"))
    with pytest.raises(UsageError, match="greedy, balanced, reference"):
        segment("So", 1, counter("gpt2"), "even")
    assert segment("", 9, counter("gpt2")).reason == "empty_reasoning"
    assert segment("So\ud800", 9, counter("gpt2")).reason == "invalid_unicode"


def test_segments_end_where_thoughts_end_when_thoughts_fit():
    thoughts = [f"Thought {i} is about the number {i * i}.\n\n" for i in range(30)]
    longest = max(counter("qwen").counts(thoughts))
    for partition in ("greedy", "balanced"):
        done = check("".join(thoughts) + "End.", 3 * longest, "qwen", partition)
        assert all(piece.endswith("\n\n") for piece in done.segments[:-1])
        assert len(done.segments) > 5


def test_balanced_is_even():
    text = "".join(f"Thought {i} is one of many.\n\n" for i in range(10, 31))
    one = counter("qwen").count("Thought 10 is one of many.\n\n")
    greedy, balanced = (check(text, 10 * one, "qwen", name).tokens for name in ("greedy", "balanced"))
    assert [round(tokens / one) for tokens in greedy] == [10, 10, 1]
    assert [round(tokens / one) for tokens in balanced] == [7, 7, 7]


# Boundaries

THOUGHTS = {
    "capital letters": (["So x.\n\n", "Wait, y. and\n\nthen z.\n\n", "No."], 3),
    "no case": (["首先我们来看。\n\n", "所以答案是三。\n\n", "「はい」です。"], 3),
    "Russian": (["Хорошо.\n\n", "Итак, два\n\nи три."], 2),
    "Arabic": (["أولا ننظر.\n\n", "ثم نرى."], 2),
    "formula after a colon": (["So:\n\nX = 1\n\n", "Then"], 2),
    "formula": (["So\n\n\\[ x \\]\n\n$y$ holds\n\n", "Then"], 2),
    "blank line in a formula": (["So\n\\[\nA\n\nB\n\\]\n\n", "Then"], 2),
    "blank line in dollars": (["So $$A$$.\n\n", "Then"], 2),
    "environment": (["So\n\\begin{align}\nA\n\nB\n\\end{align}\n\n", "Then"], 2),
    "code": (["So\n\n```python\nA = 1\n\nB = 2\n```\n\n", "Then"], 2),
    "stray fence": (["So\n```\n\n", "Then \\[\n\nA \\]\n\n", "End"], 3),
    "stray dollars": (["So $$ it costs\n\n", "Then $$A\nB$$\n\n", "End"], 3),
    "headings and items": (
        ["So\n\n", "## plan\n\n", "1. add\n\n", "2. multiply\n\n- and\n\n* so on\n\n", "**Done**"],
        5,
    ),
    "items after a colon": (["Cases:\n\n1. one\n\n", "2. two"], 2),
    "indented": (["So\n\n    Indented code\n\n", "Then"], 2),
    "three line breaks": (["So\n\n\n", "Then"], 2),
    "CR LF": (["So\r\n\r\n", "Then"], 2),
    "lines only": (["So x\n", "Then y\nand z\n", "End"], 3),
    "sentences only": (["So it is. ", "Then e.g. that! ", "No?"], 3),
    "Chinese sentences": (["首先。", "所以！”", "好"], 3),
}


@pytest.mark.parametrize(("pieces", "number"), THOUGHTS.values(), ids=THOUGHTS.keys())
def test_thoughts(pieces, number):
    text = "".join(pieces)
    places = [0, *Boundaries(text).thoughts(), len(text)]
    assert [text[start:end] for start, end in pairwise(places)] == pieces
    assert len(pieces) == number


def test_long_thought_is_cut_at_sentences_first():
    text = "So we look at the sum of it. " * 20 + "it ends here"
    done = check(text, 30, "qwen")
    assert all(piece.endswith(". ") for piece in done.segments[:-1])


def test_formula_stays_whole_when_it_fits():
    formula = "\\[\nx = \\frac{a}{b}\n= 42\n\\]\n"
    text = ("so it is and goes on\n" + formula) * 12
    done = check(text, counter("qwen").count(formula) + 15, "qwen")
    assert len(done.segments) > 3
    assert all(piece.count("\\[") == piece.count("\\]") for piece in done.segments)


def test_joined_characters_stay_whole_when_they_fit():
    for unit in ("👩‍👩‍👧‍👦", "🇩🇪", "e\u0301\u0323", "👍🏽"):
        done = check(unit * 50, 60, "qwen")
        assert all(set(piece.split(unit)) == {""} for piece in done.segments)


# The published rule


def test_reference_rule():
    text = "so\n\nA b\n\nc\n\nD\n\n E\n\nF"
    thoughts = ["so", "A b\n\nc", "D\n\n E", "F"]
    counts = counter("qwen").counts(thoughts)
    assert segment(text, 10**6, counter("qwen"), "reference") == Segmented([text], [sum(counts)])
    closed_after_going_over = segment(text, counts[0], counter("qwen"), "reference")
    assert closed_after_going_over.segments[0] == "so\n\nA b\n\nc"
    assert closed_after_going_over.tokens[0] == counts[0] + counts[1] > counts[0]


def test_reference_rule_fails_at_an_empty_piece_and_says_so():
    assert segment("A\n\n\n\nB", 9, counter("qwen"), "reference").reason == "reference_empty_piece"


# Counters


def save(kind, path):
    """Write a tokenizer's folder; return the path."""
    copy = Tokenizer.from_str(tokenizer(kind).to_str())
    PreTrainedTokenizerFast(tokenizer_object=copy, eos_token="<|im_end|>").save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("fast", ["auto", "never"])
def test_counter_counts_as_the_renderer_encodes(folder, fast):
    loaded, renderer = load_counter(folder, fast), Renderer.load(folder, template="plain")
    texts = [*PROBES, TEXT, "a<|im_end|>b", "<think>"]
    assert loaded.counts(texts) == [len(renderer.encode_content(text)) for text in texts]
    assert loaded.count(TEXT) == loaded.counts([TEXT])[0]
    assert loaded.counts([]) == []


@given(a=TEXTS, b=TEXTS, kind=st.sampled_from(["gpt2", "qwen"]))
def test_counts_add_up_where_they_are_promised_to(a, b, kind):
    count = counter(kind).count
    assert counter(kind).additive
    for left, right in ((a + "\n", b.lstrip()), (a.rstrip(), " " + b)):
        if left and right:
            assert count(left + right) == count(left + right[0]) - count(right[0]) + count(right)


def test_nothing_is_promised_for_other_tokenizers():
    assert not counter("whole").additive
    assert not counter("metaspace").additive


@pytest.mark.parametrize("kind", ["gpt2", "qwen"])
def test_fast_counter_gives_the_same_counts(kind):
    fast = FastCounter(counter(kind)._spec)
    texts = [*PROBES, TEXT, *BITS]
    assert fast.ids(texts) == counter(kind).ids(texts)
    assert fast.counts(texts) == counter(kind).counts(texts)


def test_tokenizer_with_a_prefix_is_counted_by_the_renderer(tmp_path):
    save("metaspace", tmp_path)
    assert isinstance(load_counter(tmp_path), RendererCounter)


def test_character_without_a_token_is_a_reject():
    renderer = SimpleNamespace(name="words", encode_content=refuse, count=refuse)
    loaded = counter_of(tokenizer("qwen").to_str(), renderer)
    assert isinstance(loaded, RendererCounter)
    assert segment("So it is", 9, loaded).reason == "no_token"


def refuse(text):
    raise InputError(f"no token for {text!r}")


def test_missing_tokenizer_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot load a tokenizer"):
        load_counter(tmp_path / "nothing")
