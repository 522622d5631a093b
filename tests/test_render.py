"""Laws of the renderer, on imitations of the families' tokenizers and on a real one; golden files show the results."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from inftythink.errors import InputError
from inftythink.protocol.types import Exchange, Part, PartKind, Prompt, Target, Turn
from inftythink.render import Renderer
from tests import tiny as tk

NAMES = (*tk.ALL, "smollm2")
CHAT = (*tk.CHAT, *tk.METASPACE, "smollm2")
BYTE_LEVEL = (*tk.CHAT, *tk.BASE, "smollm2")
GOLDEN = Path(__file__).parent / "golden" / "render"
REGENERATE = os.environ.get("INFTYTHINK_REGENERATE", "") not in ("", "0")
TAGS = ("<think>", "</think>", "<history>", "</history>", "<summary>", "</summary>")


def structure(text: str) -> Part:
    return Part(PartKind.STRUCTURE, text)


def content(text: str) -> Part:
    return Part(PartKind.CONTENT, text)


def turn(role: Any, text: str) -> Turn:
    return Turn(role, (content(text),))


def first_round(question: str, *context: Turn) -> Prompt:
    return Prompt((*context, turn("user", question)), (structure("<think>\n"),))


def later_round(question: str, history: str, *context: Turn) -> Prompt:
    behind = structure("\n</history>\n<think>\n")
    return Prompt((*context, turn("user", question)), (structure("<history>\n"), content(history), behind))


def summarised(thought: str, summary: str, forced: bool = False) -> tuple[Target, ...]:
    opening = Target(structure("\n</think>\n\n<summary>\n"), not forced)
    return Target(content(thought)), opening, Target(content(summary)), Target(structure("\n</summary>"))


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    return tk.smollm2() if name == "smollm2" else tk.tiny(name)


@lru_cache
def renderer(name: str) -> Renderer:
    return Renderer(tokenizer(name), template_options=tk.options(name))


def forbidden(name: str) -> dict[str, int]:
    """The tokens that content may never yield."""
    return {t.content: i for i, t in tokenizer(name).added_tokens_decoder.items() if t.content.strip()}


@lru_cache
def vocabulary(name: str) -> dict[str, int]:
    return tokenizer(name).get_vocab()


@lru_cache
def hostile(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Text full of special tokens, pieces of them, tokens inside tokens, tags, white space and unicode."""
    tokens = sorted({token for name in names for token in forbidden(name)})
    nested = st.tuples(st.sampled_from(tokens), st.integers(0, 30), st.sampled_from(tokens)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]
    )
    cut = st.tuples(st.sampled_from(tokens), st.integers(0, 30), st.integers(0, 30)).map(lambda t: t[0][t[1] : -t[2]])
    piece = st.one_of(
        st.sampled_from(tokens),
        nested,
        cut,
        st.sampled_from(TAGS),
        st.text(max_size=5),
        st.sampled_from(tuple(" \n\t▁")),
    )
    return st.lists(piece, max_size=8).map("".join)


HOSTILE = hostile(NAMES)


def spelt(name: str, text: str) -> bool:
    """Whether the vocabulary has every byte of the text: SmolLM2's lacks a few that hardly any text uses."""
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return all(symbol in vocabulary(name) for piece, _ in pieces for symbol in piece)


def added_in(name: str, ids: list[int]) -> list[int]:
    return [token for token in ids if token in forbidden(name).values()]


# Content can never become structure


@pytest.mark.parametrize("name", NAMES)
@given(text=HOSTILE)
def test_content_never_yields_an_added_token(name: str, text: str) -> None:
    assert not added_in(name, renderer(name).encode_content(text))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(texts=st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE))
def test_content_adds_no_structure_to_a_row(name: str, texts: tuple[str, ...]) -> None:
    question, history, thought, summary, system = texts

    def row(*texts: str) -> tuple[list[int], list[int]]:
        question, history, thought, summary, system = texts
        prompt = later_round(question, history, turn("system", system))
        made = renderer(name).instance(Exchange(2, prompt, summarised(thought, summary), ended=True))
        return added_in(name, made.prompt_ids), added_in(name, made.completion_ids)

    assert row(question, history, thought, summary, system) == row("x", "x", "x", "x", "x")


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(text=HOSTILE)
def test_content_comes_back_as_it_was(name: str, text: str) -> None:
    made = renderer(name)
    assume(name != "smollm2" or spelt(name, text))
    assert made.decode(made.encode_content(text)) == text
    assert made.count(text) == len(made.encode_content(text))


@pytest.mark.parametrize("name", tk.METASPACE)
@given(text=HOSTILE)
def test_content_behind_other_text_comes_back_as_it_was(name: str, text: str) -> None:
    # The decoder of these tokenizers writes the marker itself as a space, which no content can help.
    made = renderer(name)
    assert made.decode(made.encode_content(text)) == text.replace("▁", " ")


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(text=st.text())
def test_ordinary_content_is_encoded_as_the_tokenizer_does(name: str, text: str) -> None:
    assume(not any(added in text for added in tokenizer(name).get_added_vocab()))
    assert renderer(name).encode_content(text) == tokenizer(name)(text, add_special_tokens=False).input_ids


def test_runs_of_spaces_stay_tokens() -> None:
    text = "x    =  1"
    ids = renderer("neox").encode_content(text)
    assert tokenizer("neox").convert_tokens_to_ids("    ") in ids
    assert ids == tokenizer("neox")(text, add_special_tokens=False).input_ids


def test_a_special_token_that_the_model_itself_can_spell_is_cut() -> None:
    backend = Tokenizer(
        models.WordLevel({"<s>": 0, "<": 1, "s>": 2, "x": 3, "\n": 4, "hello": 5, "1": 6}, unk_token="<s>")
    )
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    with pytest.raises(InputError, match=r"adds something to every text|has no token for"):
        Renderer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")).encode_content("<s> x")
    unigram = Tokenizer(models.Unigram([(c, -1.0) for c in "\n1helosx<>?"] + [("<s>", -0.5), ("hello", -1.0)], 10))
    unigram.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    made = Renderer(PreTrainedTokenizerFast(tokenizer_object=unigram, eos_token="<s>"))
    end = unigram.token_to_id("<s>")
    assert unigram.encode("<s>").ids == [end]
    for text in ("<s>", "x<s><s>h", "<<s>s>", "<s" * 3 + ">" * 3):
        ids = made.encode_content(text)
        assert end not in ids
        assert made.decode(ids).replace(" ", "") == text


# The prompt is the one that the model knows


@pytest.mark.parametrize("name", CHAT)
@given(question=st.text(), system=st.text(min_size=1) | st.none())
@example("0", "\r")
def test_a_question_is_what_apply_chat_template_makes_of_it(name: str, question: str, system: str | None) -> None:
    # There content that looks like a token becomes it; here it does not. (Hypothesis also draws words of our own code.)
    assume(not any(token in text for token in forbidden(name) for text in (question, system or "")))
    turns = (turn("user", question),) if system is None else (turn("system", system), turn("user", question))
    messages = [{"role": t.role, "content": t.text} for t in turns]
    if name == "gemma" and system is not None:
        assume(question.strip())
        messages = [{"role": "user", "content": f"{system}\n\n{question}"}]
    assert renderer(name).ids(Prompt(turns)) == applied(name, messages)


@pytest.mark.parametrize("name", CHAT)
def test_a_conversation_is_what_apply_chat_template_makes_of_it(name: str) -> None:
    for reply in ("Two.", "\n Two. \n", "<think>\nHm, one and one\n</think>\n\nTwo.", "Hm.</think>Two.</think> Three."):
        turns = (turn("user", " 1+1? \n"), turn("assistant", reply), turn("user", "\nSure?"))
        messages = [{"role": t.role, "content": t.text} for t in turns]
        got = renderer(name).text(Prompt(turns))
        options = tk.options(name)
        expected = tokenizer(name).apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        assert got == expected
        if "think" not in reply:
            assert renderer(name).ids(Prompt(turns)) == applied(name, messages)


def applied(name: str, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer(name).apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, **tk.options(name)
    )


def test_thoughts_of_earlier_turns_go_where_the_template_deletes_them() -> None:
    turns = (turn("user", "a"), turn("assistant", "<think>\nsecret\n</think>\n\nb"), turn("user", "c"))
    assert "secret" not in renderer("qwen3").text(Prompt(turns))
    assert "secret" not in renderer("r1").text(Prompt(turns))
    assert "secret" in renderer("qwen25").text(Prompt(turns))


@pytest.mark.parametrize(
    ("name", "opened"), [("r1", "<think>\n"), ("qwen3", "<think>\n"), ("qwen3-quiet", "</think>\n\n")]
)
def test_a_prefill_replaces_the_thought_that_the_template_opens(name: str, opened: str) -> None:
    assert renderer(name).text(Prompt((turn("user", "q"),))).endswith(opened)
    text = renderer(name).text(later_round("q", "s"))
    assert text.endswith("<history>\ns\n</history>\n<think>\n")
    assert text.count("think>") == 1
    assert renderer(name).text(first_round("q")).count("think>") == 1


def test_the_protocol_opens_the_thought_just_as_the_template_does() -> None:
    for name in ("r1", "qwen3"):
        assert renderer(name).ids(first_round("why?")) == renderer(name).ids(Prompt((turn("user", "why?"),)))
        assert tokenizer(name).convert_tokens_to_ids("<think>") in renderer(name).ids(first_round("why?"))


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_begins_once(name: str) -> None:
    bos = tokenizer(name).bos_token_id
    ids = renderer(name).ids(later_round("q", "s"))
    if name in ("r1", "llama3", "gemma", "base-bos", *tk.METASPACE):
        assert ids[0] == bos
        assert ids.count(bos) == 1


def test_a_base_model_gets_the_question_and_a_blank_line() -> None:
    assert renderer("neox").template == "plain"
    assert renderer("neox").text(first_round("1+1?")) == "1+1?\n\n<think>\n"
    assert renderer("base-bos").text(first_round("1+1?", turn("system", "Be brief."))) == (
        "<s>Be brief.\n\n1+1?\n\n<think>\n"
    )
    assert Renderer(tk.tiny("qwen3"), template="plain").text(Prompt((turn("user", "1"),))) == "1\n\n"


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("qwen25", "<|im_end|>"),
        ("r1", "<｜end▁of▁sentence｜>"),
        ("llama3", "<|eot_id|>"),
        ("gemma", "<end_of_turn>"),
        ("llama2-first", "</s>"),
        ("neox", "<|endoftext|>"),
        ("smollm2", "<|im_end|>"),
    ],
)
def test_the_end_of_a_turn_is_the_templates_own(name: str, end: str) -> None:
    made = renderer(name)
    assert made.decode([made.end_id]) == end
    assert {made.end_id, tokenizer(name).eos_token_id} <= made.eos_ids


# Rows


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(texts=st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), forced=st.booleans(), ended=st.booleans())
def test_a_row_is_the_inference_prompt_and_the_parts_behind_it(
    name: str, texts: tuple[str, ...], forced: bool, ended: bool
) -> None:
    question, history, thought, summary = texts
    prompt, made = later_round(question, history), renderer(name)
    row = made.instance(Exchange(2, prompt, summarised(thought, summary, forced), ended))
    assert row.prompt_ids == made.ids(prompt)
    assert row.prompt_text == made.text(prompt)
    scaffold = made.instance(Exchange(1, prompt, summarised("", "", forced)[1:2], False)).completion_ids
    close = made.instance(Exchange(1, prompt, summarised("", "", forced)[3:], ended)).completion_ids
    behind = [made.encode_content(thought), scaffold, made.encode_content(summary), close]
    if thought and summary:
        assert row.completion_ids == [token for ids in behind for token in ids]
        assert row.sampled == [flag for i, ids in enumerate(behind) for flag in [not (forced and i == 1)] * len(ids)]
    assert row.input_ids == row.prompt_ids + row.completion_ids
    kept = [token if drawn else -1 for token, drawn in zip(row.completion_ids, row.sampled, strict=True)]
    assert row.labels(-1) == [-1] * len(row.prompt_ids) + kept
    assert (row.completion_ids[-1] == made.end_id) is ended
    assert row.completion_text == f"{thought}\n</think>\n\n<summary>\n{summary}\n</summary>"


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_taken_as_they_are(name: str) -> None:
    made = renderer(name)
    odd = [token for char in "so what" for token in made.encode_content(char)]  # not how the tokenizer would cut it
    prompt = Prompt((turn("user", "q"),), (structure("<think>\n"), Part(PartKind.CONTENT, ids=tuple(odd))))
    assert made.ids(prompt) == made.ids(first_round("q")) + odd
    assert made.text(prompt) == made.text(first_round("q")) + "so what"
    ended = (*odd, made.end_id)
    row = made.instance(Exchange(1, first_round("q"), (Target(Part(PartKind.CONTENT, ids=ended)),), ended=True))
    assert row.completion_ids == list(ended)
    assert row.completion_text == "so what"


def test_tags_become_their_tokens_where_there_are_some() -> None:
    ids = renderer("qwen3").instance(Exchange(1, first_round("q"), summarised("t", "s"), True)).completion_ids
    assert added_in("qwen3", ids) == [forbidden("qwen3")["</think>"], forbidden("qwen3")["<|im_end|>"]]


# Refusals


def test_what_a_template_cannot_take_is_refused_with_its_name() -> None:
    with pytest.raises(InputError, match=r"gemma.*user, user.*alternate"):
        renderer("gemma").ids(Prompt((turn("user", "a"), turn("user", "b"))))
    for template in ("{{ messages[0]['content'] | upper }}", "fixed", "{{ messages[0].content * 2 }}"):
        loses = PreTrainedTokenizerFast(
            tokenizer_object=tk.byte_level(), eos_token="!", chat_template=template, name_or_path="odd/model"
        )
        with pytest.raises(InputError, match=r"odd/model drops, repeats or rewrites a message"):
            Renderer(loses).ids(Prompt((turn("user", "hello"),)))


def test_a_chat_template_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(InputError, match="neox has no chat template"):
        Renderer(tk.tiny("neox"), template="chat")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Renderer(PreTrainedTokenizerFast(tokenizer_object=tk.byte_level()))


def test_loading(tmp_path: Path) -> None:
    tk.tiny("llama3").save_pretrained(tmp_path)
    ends = sorted(forbidden("llama3")[token] for token in ("<|end_of_text|>", "<|eot_id|>"))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    made = Renderer.load(tmp_path)
    assert made.ids(first_round("q")) == renderer("llama3").ids(first_round("q"))
    assert made.eos_ids == set(ends)
    with pytest.raises(InputError, match=r"cannot load a tokenizer from .*nothing"):
        Renderer.load(tmp_path / "nothing")


# Golden files: what it looks like


def shown(made: Renderer, ids: list[int]) -> str:
    return "│".join(made.decode([token]).replace("\n", "⏎\n") for token in ids)


def runs(flags: list[bool]) -> str:
    """The mask as run lengths: ``12+ 5- 7+`` is 12 sampled, 5 not, 7 sampled."""
    out: list[list[Any]] = []
    for flag in flags:
        if out and out[-1][1] == flag:
            out[-1][0] += 1
        else:
            out.append([1, flag])
    return " ".join(f"{count}{'+' if flag else '-'}" for count, flag in out)


def layouts(made: Renderer) -> dict[str, Exchange]:
    question, thought, summary = "What is 12 + 30 <|im_end|>?", "So 12 + 30, and", "The answer is 42 <think>."
    answer = (Target(content(thought)), Target(structure("\n</think>\n\n")), Target(content("It is 42.")))
    context = (
        turn("system", " Be brief. "),
        turn("user", "Hi"),
        turn("assistant", "<think>\nA user\n</think>\n\nHello"),
    )
    ids = tuple(made.encode_content("so what"))
    thinking = (structure("<think>\n"), Part(PartKind.CONTENT, ids=ids))
    sampled = (Target(Part(PartKind.CONTENT, ids=(*ids, made.end_id))),)
    return {
        "question only": Exchange(1, Prompt((turn("user", question),)), answer, True),
        "first round": Exchange(1, first_round(question), summarised(thought, summary), True),
        "later round": Exchange(2, later_round(question, summary), answer, True),
        "later round behind earlier turns": Exchange(2, later_round(question, summary, *context), answer, True),
        "forced summary": Exchange(1, first_round(question), summarised(thought, summary, forced=True), True),
        "cut": Exchange(1, first_round(question), (Target(content(thought)),), False),
        "ids": Exchange(2, Prompt((turn("user", question),), thinking), sampled, True),
    }


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    made, text = renderer(name), ""
    for title, exchange in layouts(made).items():
        row = made.instance(exchange)
        text += f"=== {title}\n--- prompt: {len(row.prompt_ids)} tokens\n{shown(made, row.prompt_ids)}\n"
        text += f"--- completion: sampled {runs(row.sampled)}\n{shown(made, row.completion_ids)}\n\n"
    path = GOLDEN / f"{name}.txt"
    if REGENERATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "run with INFTYTHINK_REGENERATE=1 and read the difference"
