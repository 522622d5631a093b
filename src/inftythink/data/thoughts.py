"""Taking an assistant's text apart: the thought, and the conclusion after it.

The rules, in this order. A text that none of them reads is refused with the slug in brackets, never guessed at:

- An error message of an API in place of an answer is refused (``api_error``).
- Harmony channels: ``analysis`` and ``commentary`` are the thought, the last ``final`` the conclusion; without a final
  message the text is refused (``no_final_channel``).
- s1 words: a first line ``think`` and, later, exactly one line ``answer`` (else ``no_answer_line``,
  ``several_answer_lines``).
- A text that begins with a chat template's token is a whole prompt: everything up to the assistant's turn is taken off,
  and so are end-of-turn tokens at the very end.
- Tags (``<think>`` ... ``</think>`` and the other pairs of ``TAGS``): exactly one closing tag and at most one opening
  tag, in that order. Before the opening tag only the prompt itself may stand (``text_before_thought``); it is dropped.
  Refused are: no tags (``no_think_tags``), no closing tag (``no_closing_tag``: the thought was cut), several of a kind
  (``several_think_tags``: which one counts cannot be known), and a closing tag first (``tags_out_of_order``).
- A conclusion inside ``<answer>`` ... ``</answer>`` or the solution markers of OpenThoughts is taken out of them; one
  that is opened and not closed was cut (``unclosed_answer_tag``).
- A thought or a conclusion of white space alone is refused (``empty_reasoning``, ``empty_conclusion``).

White space that touches a tag is layout and is taken off; everything else is kept, character for character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Tags = Sequence[tuple[str, str]]

TAGS: Tags = (
    ("<think>", "</think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)
"""Pairs that mark a thought; the first pair of which either is in a text is the one that counts."""

_SHELLS = (("<|begin_of_solution|>", "<|end_of_solution|>"), ("<answer>", "</answer>"))

_API_ERROR = re.compile(
    r"\s*(?:Error after \d+ attempts\b|Error code: \d{3}\b"
    r"|(?:openai\.)?(?:APIError|APIConnectionError|RateLimitError)\b)"
)
_HARMONY = re.compile(
    r"(?:<\|start\|>(?P<role>[^<]*))?<\|channel\|>(?P<channel>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<text>.*?)(?=<\|(?:end|return|call|start)\|>|\Z)",
    re.DOTALL,
)
_S1_THINK = re.compile(r"\s*(?:<\|im_start\|>)?think[ \t]*\n")
_S1_ANSWER = re.compile(r"^(?:<\|im_start\|>)?answer[ \t]*$", re.MULTILINE)
_TEMPLATE = re.compile(
    r"\s*(?:<｜(?:begin▁of▁sentence|User|Assistant)｜>|<\|(?:im_start|begin_of_text|start_header_id|user|system|assistant)\|>"
    r"|<bos>|<start_of_turn>|<s>\s*\[INST\])"
)
_ASSISTANT = re.compile(
    r"(?:<｜Assistant｜>|<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>model|\[/INST\])\s*"
)
_END = re.compile(
    r"(?:\s*(?:<｜end▁of▁sentence｜>|<\|(?:im_end|endoftext|eot_id|end_of_text)\|>|<end_of_turn>|</s>))+\s*\Z"
)
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an assistant wrote: ``reasoning`` and ``conclusion``, neither empty, no white space around them."""

    reasoning: str
    conclusion: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a text could not be read: a stable slug, and a sentence for people."""

    reason: str
    detail: str


def read_assistant(text: str, problem: str = "", tags: Tags = TAGS) -> Parts | Refusal:
    """Take apart what an assistant wrote, by the rules of this module.

    ``problem`` lets a copy of the prompt in front of the thought be recognised.
    """
    if not any(mark in text for pair in tags for mark in pair):
        if _API_ERROR.match(text):
            return Refusal("api_error", f"the answer is an error message: {_clip(text)}")
        if "<|channel|>" in text:
            return _harmony(text)
        if _S1_THINK.match(text):
            return _s1(text)
    return _tagged(_END.sub("", _without_template(text, tags)), problem, tags)


def parts(reasoning: str, conclusion: str) -> Parts | Refusal:
    """Check and clean a thought and a conclusion that are already apart."""
    reasoning, conclusion = reasoning.strip(), conclusion.strip()
    for opening, closing in _SHELLS:
        if not conclusion.startswith(opening):
            continue
        if closing not in conclusion:
            return Refusal("unclosed_answer_tag", f"the conclusion opens {opening} and does not close it: it was cut")
        if conclusion.endswith(closing) and conclusion.count(closing) == 1:
            conclusion = conclusion[len(opening) : -len(closing)].strip()
    if not reasoning:
        return Refusal("empty_reasoning", "the thought is empty")
    if not conclusion:
        return Refusal("empty_conclusion", "nothing follows the thought")
    return Parts(reasoning, conclusion)


def unwrap(reasoning: str, tags: Tags = TAGS) -> str:
    """Take off the pair of tags around a thought that came in a field of its own."""
    text = reasoning.strip()
    for opening, closing in tags:
        if text.startswith(opening) and text.endswith(closing) and text.count(closing) == 1:
            return text[len(opening) : -len(closing)]
    return reasoning


def without_thought(text: str, tags: Tags = TAGS) -> str:
    """Return what an earlier assistant turn said, without its thought."""
    for _, closing in tags:
        if closing in text:
            return text.rsplit(closing, 1)[1].strip()
    return text


def _tagged(text: str, problem: str, tags: Tags) -> Parts | Refusal:
    opening, closing = next((pair for pair in tags if pair[0] in text or pair[1] in text), tags[0])
    opened, closed = text.count(opening), text.count(closing)
    if opened + closed == 0:
        return Refusal("no_think_tags", f"neither {opening} nor {closing} is in the text: {_clip(text)}")
    if closed == 0:
        return Refusal(
            "no_closing_tag", f"the thought is never closed by {closing}: it was cut ({len(text)} characters)"
        )
    if opened > 1 or closed > 1:
        return Refusal(
            "several_think_tags", f"{opening} {opened} times, {closing} {closed} times: the thought is unclear"
        )
    head, conclusion = text.split(closing)
    if opened:
        if opening not in head:
            return Refusal("tags_out_of_order", f"{closing} stands before {opening}")
        before, head = head.split(opening)
        if before.strip() and not (problem.strip() and _flat(problem) in _flat(before)):
            return Refusal("text_before_thought", f"before {opening} stands what is not the prompt: {_clip(before)}")
    return parts(head, conclusion)


def _harmony(text: str) -> Parts | Refusal:
    thoughts: list[str] = []
    finals: list[str] = []
    for match in _HARMONY.finditer(text):
        if (match["role"] or "assistant").strip().startswith("assistant"):
            (finals if match["channel"] == "final" else thoughts).append(match["text"].strip())
    if not finals:
        return Refusal("no_final_channel", f"{len(thoughts)} analysis messages and no final one: the text was cut")
    return parts("\n\n".join(thought for thought in thoughts if thought), finals[-1])


def _s1(text: str) -> Parts | Refusal:
    body = _S1_THINK.sub("", text, count=1)
    marks = list(_S1_ANSWER.finditer(body))
    if len(marks) != 1:
        if not marks:
            return Refusal("no_answer_line", "the text begins with a line 'think' and has no line 'answer': it was cut")
        return Refusal("several_answer_lines", f"{len(marks)} lines say 'answer': where the thought ends is unclear")
    return parts(body[: marks[0].start()], _END.sub("", body[marks[0].end() :]))


def _without_template(text: str, tags: Tags) -> str:
    """Take off the prompt of a text that begins with a chat template's token."""
    if not _TEMPLATE.match(text):
        return text
    turns = list(_ASSISTANT.finditer(text))
    if not turns:
        return text
    opened = [turn for turn in turns if text.startswith(tuple(pair[0] for pair in tags), turn.end())]
    # With several turns the last one is the answer, unless the model quoted a template inside its thought.
    return text[(opened or turns)[-1].end() :]


def _flat(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def _clip(text: str, most: int = 120) -> str:
    flat = _flat(text)
    return flat if len(flat) <= most else f"{flat[:most]}…"
