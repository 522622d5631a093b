"""Counters are made once, and from whatever files a tokenizer comes in."""

import json
import sys

import pytest

from inftythink.data.tokens import PROBES, FastCounter, HuggingFaceCounter, load_counter
from inftythink.errors import InputError, MissingDependencyError
from inftythink.render import Renderer
from tests.data.test_segment import BITS, TEXT, save, tokenizer


def save_in_parts(path):
    """Write a tokenizer as older models have it: a vocabulary and merges, no tokenizer.json."""
    tokenizer("qwen").model.save(str(path))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": None, "unk_token": None}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("fast", ["auto", "never"])
def test_a_vocabulary_and_merges_count_as_the_renderer_encodes(tmp_path, fast):
    counter, renderer = load_counter(save_in_parts(tmp_path), fast), Renderer.load(tmp_path, template="plain")
    texts = [*PROBES, TEXT, *BITS, "a<|im_end|>b", "<think>"]
    assert counter.counts(texts) == [len(renderer.encode_content(text)) for text in texts]
    assert isinstance(counter, HuggingFaceCounter if fast == "never" else FastCounter)


def test_a_process_makes_a_counter_once(tmp_path):
    save("gpt2", tmp_path)
    first = load_counter(tmp_path)
    assert load_counter(str(tmp_path)) is first
    assert load_counter(tmp_path, "never") is not first


def test_a_folder_that_changed_is_read_anew(tmp_path):
    counts = [load_counter(save(kind, tmp_path)).count("12345 " + TEXT) for kind in ("gpt2", "qwen", "gpt2")]
    assert counts[0] == counts[2] != counts[1]


def test_fast_counter_is_an_option(tmp_path, monkeypatch):
    def folder(name):
        return save("qwen", tmp_path / name)

    assert isinstance(load_counter(folder("plain")), FastCounter)
    assert isinstance(load_counter(folder("plain"), "never"), HuggingFaceCounter)
    monkeypatch.setattr(FastCounter, "ids", lambda self, texts: [[0] for _ in texts])
    assert isinstance(load_counter(folder("differs")), HuggingFaceCounter)
    with pytest.raises(InputError, match="it gives other token ids"):
        load_counter(folder("differs"), "always")
    monkeypatch.setitem(sys.modules, "fastokens", None)
    assert isinstance(load_counter(folder("missing")), HuggingFaceCounter)
    with pytest.raises(MissingDependencyError, match=r"inftythink\[fast\]"):
        load_counter(folder("missing"), "always")
