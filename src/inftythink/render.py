"""From the protocol's prompts to token ids, and from exchanges to training rows, by one and the same path.

Content can never become structure: a template is applied to placeholders, never to content; content is encoded by a
copy of the tokenizer that knows no added tokens (``<|im_end|>``, ``<think>``, ...), so that it cannot yield one of
their ids, whatever it says. For everything else a prompt's ids are those of ``tokenizer.apply_chat_template``.

How parts are encoded:

- Turns, and the template's text around them, are encoded together, as ``apply_chat_template`` does.
- What the protocol adds behind them (``Prompt.prefill``, a row's target) is encoded part by part; neighbouring
  structure is one part. Token ids are taken as they are.
- The model's own template may open ``<think>``, or close an empty one, where its answer begins. Before a prefill,
  which brings its own, that text is taken off.
- Thoughts of earlier turns stay or go as the template has it. A template that refuses the system role (Gemma) gets the
  system prompt at the head of the first user turn, a blank line between.
- The plain template, for base models: the text of each turn and a blank line, no markers; the beginning-of-sequence
  token if the tokenizer adds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from inftythink.errors import InputError, missing
from inftythink.protocol.types import Exchange, Part, PartKind, Prompt, Turn

Template = Literal["auto", "chat", "plain"]

_SLOT = re.compile(r"InftyThinkSlot(\d+)End")
_TAGS = re.compile(r"(\s*</?think>\s*)")
_OPENED_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?\Z")


def _slot(index: int) -> str:
    return f"InftyThinkSlot{index}End"


def _structure(text: str) -> Part:
    return Part(PartKind.STRUCTURE, text)


@dataclass(frozen=True, slots=True)
class RenderedInstance:
    """A training row. ``sampled`` has one entry for each id of ``completion_ids``: was it drawn from the model?

    ``completion_text`` is without the token that ends the turn; ``completion_ids`` has it when the turn ended.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    sampled: list[bool]
    prompt_text: str
    completion_text: str

    @property
    def input_ids(self) -> list[int]:
        """The whole row: prompt, then completion."""
        return self.prompt_ids + self.completion_ids

    def labels(self, ignore_index: int = -100) -> list[int]:
        """Return ``input_ids`` with the prompt and whatever was not sampled replaced by ``ignore_index``."""
        kept = zip(self.completion_ids, self.sampled, strict=True)
        return [ignore_index] * len(self.prompt_ids) + [token if drawn else ignore_index for token, drawn in kept]


class Renderer:
    """Turns prompts into token ids with one tokenizer and one template; safe to use from several threads."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: Template = "auto",
        template_options: Mapping[str, Any] | None = None,
        eos_ids: Iterable[int] = (),
    ) -> None:
        """Wrap a fast ``transformers`` tokenizer.

        ``template_options`` go to the chat template (``{"enable_thinking": False}``); ``eos_ids`` end a sequence
        besides those that the tokenizer and the template name. Raises ``InputError`` when this tokenizer cannot be
        used, or has no chat template where one was asked for.
        """
        self.name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if template == "chat" and not tokenizer.chat_template:
            raise InputError(f"tokenizer {self.name} has no chat template; use template='plain'")
        self.template: Template = "chat" if template != "plain" and tokenizer.chat_template else "plain"
        self._tokenizer = tokenizer
        self._options = dict(template_options or {})
        self._codec = _Codec(tokenizer, self.name)
        self._layout = lru_cache(maxsize=512)(self._render_layout)
        self._bos = () if self.template == "chat" else self._codec.bos(tokenizer)
        self.end_id = self._find_end()
        own = tokenizer.eos_token_id
        self.eos_ids: frozenset[int] = frozenset({self.end_id, *eos_ids} | ({own} if own is not None else set()))

    @classmethod
    def load(cls, name_or_path: str | Path, *, template: Template = "auto", **options: Any) -> Renderer:
        """Load the tokenizer of a local folder or a Hugging Face model name.

        ``options`` go to the template. Raises ``InputError`` when it cannot be loaded, ``MissingDependencyError``
        without transformers.
        """
        try:
            from transformers import AutoTokenizer, GenerationConfig
        except ImportError as error:
            raise missing("transformers", "hf") from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
        except Exception as error:
            raise InputError(
                f"cannot load a tokenizer from {str(name_or_path)!r}: {error}. "
                "Give a folder with tokenizer.json, or the name of a model on the Hugging Face Hub."
            ) from error
        try:
            ends = GenerationConfig.from_pretrained(str(name_or_path)).eos_token_id
        except OSError:  # there is no such file: the tokenizer alone says how a sequence ends
            ends = None
        eos_ids = () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
        return cls(tokenizer, template=template, template_options=options, eos_ids=eos_ids)

    # Text and ids

    def encode_content(self, text: str) -> list[int]:
        """Encode text that came from outside, as it stands inside a sequence: never the id of an added token.

        Equals ``tokenizer(text, add_special_tokens=False)`` for text without added tokens (for tokenizers that put a
        space before a text: without that space). Raises ``InputError`` for a character the tokenizer cannot encode.
        """
        return self._codec.encode(text)

    def encode_with(self, ids: Callable[[str], list[int]]) -> None:
        """Have content encoded by ``ids`` from now on, which must give what ``encode_content`` does."""
        self._codec.quick = ids

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text`` as content."""
        return len(self._codec.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids from inside a sequence: special tokens kept, spaces untouched."""
        return self._codec.decode(ids)

    def ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt. Raises ``InputError`` when the chat template cannot take its turns."""
        body, rest = self._parts(prompt)
        out = self._codec.join(body, self._bos)
        for part in rest:
            out += self._codec.part(part)
        return out

    def text(self, prompt: Prompt) -> str:
        """Return a prompt as text, special tokens spelt out."""
        body, rest = self._parts(prompt)
        return self._codec.text([Part(PartKind.STRUCTURE, ids=self._bos), *body, *rest])

    def instance(self, exchange: Exchange) -> RenderedInstance:
        """Return an exchange as a training row; its ``prompt_ids`` are ``ids(exchange.prompt)``."""
        completion: list[int] = []
        sampled: list[bool] = []
        parts: list[Part] = []
        for drawn in _groups((target.part, target.sampled) for target in exchange.target):
            ids = self._codec.part(drawn[0])
            completion += ids
            sampled += [drawn[1]] * len(ids)
            parts.append(drawn[0])
        text = self._codec.text(parts)
        if completion and completion[-1] in self.eos_ids:
            text = text.removesuffix(self._codec.decode(completion[-1:]))
        elif exchange.ended:
            completion.append(self.end_id)
            sampled.append(True)
        return RenderedInstance(self.ids(exchange.prompt), completion, sampled, self.text(exchange.prompt), text)

    # The template

    def _parts(self, prompt: Prompt) -> tuple[list[Part], list[Part]]:
        """Return the parts that are encoded together, and those encoded one by one behind them."""
        turns = self._fold(prompt.turns) if self.template == "chat" else prompt.turns
        body = self._chat(turns) if self.template == "chat" else _plain(turns)
        rest = [part for part, _ in _groups((part, True) for part in prompt.prefill)]
        if prompt.prefill and body and body[-1].kind is PartKind.STRUCTURE:
            body[-1] = _structure(_OPENED_THOUGHT.sub("", body[-1].text))
        if rest and rest[0].kind is PartKind.STRUCTURE and rest[0].ids is None:
            body.append(rest.pop(0))
        return [part for part, _ in _groups((part, True) for part in body)], rest

    def _chat(self, turns: Sequence[Turn]) -> list[Part]:
        """Put the turns' parts into the chat template."""
        slots: list[tuple[Part, ...]] = []
        messages = tuple((turn.role, _message(turn, slots)) for turn in turns)
        body: list[Part] = []
        for piece in self._layout(messages):
            body.extend(slots[piece] if isinstance(piece, int) else (piece,))
        return body

    def _render_layout(self, messages: tuple[tuple[str, str], ...], answer: bool = True) -> tuple[Part | int, ...]:
        """Apply the chat template to messages that hold slots; return its text, and the slots by number."""
        pieces = _SLOT.split(self._apply(messages, answer))  # text, number, text, number, ..., text
        found = [int(number) for number in pieces[1::2]]
        owner = {int(m[1]): turn for turn, (_, text) in enumerate(messages) for m in _SLOT.finditer(text)}
        needed = {max(slot for slot in owner if owner[slot] == turn) for turn in set(owner.values())}
        if found != sorted(set(found)) or not needed <= set(found):
            raise InputError(
                f"the chat template of {self.name} drops, repeats or rewrites a message "
                f"(roles: {', '.join(role for role, _ in messages)}); use template='plain' or another template"
            )
        out: list[Part | int] = [_structure(pieces[0])]
        for position, slot in enumerate(found):
            behind = pieces[2 * position + 2]
            inside = found[position + 1 : position + 2] and owner[found[position + 1]] == owner[slot]
            out += [slot, Part(PartKind.CONTENT, behind) if inside else _structure(behind)]
        return tuple(out)

    def _apply(self, messages: Iterable[tuple[str, str]], answer: bool) -> str:
        """Run the chat template; ``answer`` opens the assistant's turn."""
        conversation = [{"role": role, "content": text} for role, text in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=answer, **self._options
            )
        except Exception as error:
            roles = ", ".join(message["role"] for message in conversation)
            raise InputError(f"the chat template of {self.name} refused a conversation of {roles}: {error}") from error
        return text

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template prints a system prompt."""
        try:
            return _slot(0) in self._apply((("system", _slot(0)), ("user", _slot(1))), True)
        except InputError:
            return False

    def _fold(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """Put a leading system prompt into the first user turn where the template takes none."""
        if len(turns) < 2 or turns[0].role != "system" or turns[1].role != "user" or self._takes_system:
            return turns
        system, user, *others = turns
        return (Turn("user", (*system.parts, _structure("\n\n"), *user.parts)), *others)

    def _find_end(self) -> int:
        """Return the token that closes an assistant's turn, else the end-of-sequence token."""
        if self.template == "chat":
            try:
                layout = self._render_layout((("user", _slot(0)), ("assistant", _slot(1))), answer=False)
            except InputError:
                layout = ()  # a template for questions only
            if layout and isinstance(layout[-1], Part):
                for atom in self._codec.atoms(layout[-1].text):
                    if isinstance(atom, int):
                        return atom
                    if atom.strip():
                        break
        if self._tokenizer.eos_token_id is None:
            raise InputError(f"tokenizer {self.name} has no end-of-sequence token; set tokenizer.eos_token")
        return int(self._tokenizer.eos_token_id)


def _plain(turns: Iterable[Turn]) -> list[Part]:
    """Lay turns out for a base model."""
    return [part for turn in turns for part in (*turn.parts, _structure("\n\n"))]


def _groups(parts: Iterable[tuple[Part, bool]]) -> Iterator[tuple[Part, bool]]:
    """Join neighbouring structure of the same flag into one part; leave out what is empty."""
    held: tuple[Part, bool] | None = None
    for part, flag in parts:
        if not part.text and not part.ids:
            continue
        if part.kind is PartKind.STRUCTURE and part.ids is None:
            if held and held[1] is flag:
                held = (_structure(held[0].text + part.text), flag)
                continue
            if held:
                yield held
            held = (part, flag)
            continue
        if held:
            yield held
            held = None
        yield part, flag
    if held:
        yield held


def _message(turn: Turn, slots: list[tuple[Part, ...]]) -> str:
    """Return a turn's text for the template, its content taken into ``slots``.

    White space around the content stays, and so do think tags in an assistant's turn, so that a template that strips,
    or deletes thoughts, does what it does; nothing else of the content is shown to it.
    """
    parts = [part for part in turn.parts if part.text or part.ids]
    if len(parts) == 1 and parts[0].ids is None and turn.role == "assistant" and "</think>" in parts[0].text:
        message = ""
        for index, text in enumerate(_TAGS.split(parts[0].text)):
            message += text if index % 2 else _message(Turn("user", (replace(parts[0], text=text),)), slots)
        return message
    lead = trail = ""
    while parts and parts[0].ids is None:
        first = parts.pop(0)
        core = first.text.lstrip()
        lead += first.text[: len(first.text) - len(core)]
        if core:
            parts.insert(0, replace(first, text=core))
            break
    while parts and parts[-1].ids is None:
        last = parts.pop()
        core = last.text.rstrip()
        trail = last.text[len(core) :] + trail
        if core:
            parts.append(replace(last, text=core))
            break
    slots.append(tuple(parts))
    return lead + _slot(len(slots) - 1) + trail


class _Codec:
    """A tokenizer as two encoders: ``full`` parses added tokens, the bare ones have none to parse."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        from tokenizers import Tokenizer

        self._name = name
        self.quick: Callable[[str], list[int]] | None = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"tokenizer {name} ({type(tokenizer).__name__}) is not a fast one (it has no tokenizer.json)"
            )
        data = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        self._full = Tokenizer.from_str(json.dumps(data))
        kept = [token for token in data["added_tokens"] if not token["content"].strip()]
        self.added = frozenset(token["id"] for token in data["added_tokens"] if token["content"].strip())
        bare = data | {"added_tokens": kept, "post_processor": None}
        self._inner = self._outer = Tokenizer.from_str(json.dumps(bare))
        inner, self._prefix = _without_prefix(bare)
        if self._prefix != "never":  # a space is put before a text: right at its beginning, wrong inside
            self._inner = Tokenizer.from_str(json.dumps(inner))
        ids = {self._inner.token_to_id(token["content"]): token["id"] for token in kept}
        self._moved = {new: old for new, old in ids.items() if new != old}  # their ids depend on the ones left out
        self._anchor = self.encode("x") if self._prefix != "never" else []
        self._cache = lru_cache(maxsize=512)(self._parse)
        for probe in ("x", "hello", "1"):
            ids_inside = self.encode(probe)
            if self._full.encode("\n" + probe, add_special_tokens=False).ids[-len(ids_inside) :] != ids_inside:
                raise InputError(f"tokenizer {name} adds something to every text, in a way that is not supported")

    def encode(self, text: str, encoder: Any = None) -> list[int]:
        """Encode content as it stands inside a text."""
        if not text:
            return []
        if self.quick is not None and (encoder is None or encoder is self._inner):
            return self.quick(text)
        try:
            encoding = (encoder or self._inner).encode(text, add_special_tokens=False)
        except TypeError as error:  # tokenizers takes no text that UTF-8 cannot write
            raise InputError(f"tokenizer {self._name}: a text with half a surrogate pair cannot be encoded") from error
        ids: list[int] = encoding.ids
        if self._moved:
            ids = [self._moved.get(token, token) for token in ids]
        if self.added.isdisjoint(ids):
            return ids
        # The model itself, not the list of added tokens, knows such a string: cut inside it.
        cuts = [0]
        for token, (start, end) in zip(ids, encoding.offsets, strict=True):
            if token in self.added:
                if end - start < 2:
                    raise InputError(f"tokenizer {self._name} has no token for {text[start:end]!r}")
                cuts.append(start + 1)
        pieces = [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]
        return self.encode(pieces[0], encoder) + [token for piece in pieces[1:] for token in self.encode(piece)]

    def atoms(self, text: str) -> tuple[int | str, ...]:
        """Split structure into the ids of added tokens and the text between them."""
        return self._cache(text)

    def _parse(self, text: str) -> tuple[int | str, ...]:
        encoding = self._full.encode(text, add_special_tokens=False)
        out: list[int | str] = []
        position = 0
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self.added:
                out += [text[position:start], token]
                position = end
        out.append(text[position:])
        return tuple(atom for atom in out if atom != "")

    def join(self, parts: Iterable[Part], head: Sequence[int] = (), inside: bool = False) -> list[int]:
        """Encode parts together: text between two added tokens is encoded as one, content and structure alike.

        ``inside``: the parts stand behind other text.
        """
        out, run = list(head), ""
        encoder = self._outer if (self._prefix == "always" or not head) and not inside else self._inner
        for part in parts:
            atoms = (part.ids,) if part.ids is not None else (part.text,)
            for atom in self.atoms(part.text) if part.kind is PartKind.STRUCTURE and part.ids is None else atoms:
                if isinstance(atom, str):
                    run += atom
                    continue
                if run:
                    out += self.encode(run, encoder)
                run = ""
                out += (atom,) if isinstance(atom, int) else atom
                encoder = self._outer if self._prefix == "always" and isinstance(atom, int) else self._inner
        return out + self.encode(run, encoder)

    def part(self, part: Part) -> list[int]:
        """Encode one part as it stands inside a sequence."""
        return self.join((part,), inside=True)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids from inside a sequence."""
        anchored: str = self._full.decode([*self._anchor, *ids], skip_special_tokens=False)
        return anchored[1:] if self._anchor else anchored

    def text(self, parts: Iterable[Part]) -> str:
        """Return parts as text."""
        return "".join(part.text if part.ids is None else self.decode(part.ids) for part in parts)

    def bos(self, tokenizer: Any) -> tuple[int, ...]:
        """Return what the tokenizer itself puts before a text."""
        whole, inner = tokenizer("x").input_ids, self._outer.encode("x", add_special_tokens=False).ids
        return tuple(whole[: next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)])


def _without_prefix(data: dict[str, Any]) -> tuple[dict[str, Any], Literal["never", "first", "always"]]:
    """Return a tokenizer's JSON without the space it puts before texts, and before which it does."""
    found: set[str] = set()

    def clean(node: dict[str, Any] | None) -> dict[str, Any] | None:
        if node is None:
            return None
        if node["type"] == "Prepend":
            found.add("always")
            return None
        if node["type"] == "Metaspace" and node.get("prepend_scheme", "always") != "never":
            found.add(node.get("prepend_scheme", "always"))
            return node | {"prepend_scheme": "never"}
        if node["type"] == "ByteLevel" and node.get("add_prefix_space"):
            found.add("always")
            return node | {"add_prefix_space": False}
        for key in ("pretokenizers", "normalizers"):
            if key in node:
                return node | {key: [child for child in map(clean, node[key]) if child is not None]}
        return node

    clean_data = data | {key: clean(data[key]) for key in ("normalizer", "pre_tokenizer")}
    return clean_data, "always" if "always" in found else "first" if found else "never"
