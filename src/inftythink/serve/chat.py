"""Pieces as chat completions: the fields of streamed chunks, and whole answers as their sum. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from inftythink.protocol import Tags
from inftythink.serve.events import dump, sent
from inftythink.serve.told import Piece, StopCut, Teller, Usage, What
from inftythink.serve.wire import Asked, ReasoningField

_TAGS = Tags()
_MAYBE_TAG = re.compile(r"<\\*/?[a-z]{0,7}\Z")
OPEN, CLOSE = "<think>\n", "\n</think>\n\n"
_BEHIND = '"logprobs":null,"finish_reason":null}]}\n\n'


class Guard:
    r"""Makes sure that a text holds no tag of the protocol: what a model wrote as content gets a backslash.

    ``<think>`` becomes ``<\think>``, as everywhere in the protocol; nothing is lost, and no client takes it for a tag.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what is certain; the beginning of a possible tag is held back."""
        text = self._held + piece
        at = text.rfind("<")
        if at < 0:
            return text if not self._held else self._release(text, "")
        partial = _MAYBE_TAG.search(text, at)
        end = partial.start() if partial else len(text)
        return self._release(text[:end], text[end:])

    def close(self) -> str:
        """Return what was held back."""
        return self._release(self._held, "")

    def _release(self, text: str, held: str) -> str:
        self._held = held
        return _TAGS.escape(text)


class Writer:
    """Writes one choice: ``feed`` and ``close`` return deltas, dictionaries of text fields that are to be joined."""

    def __init__(self, reasoning: ReasoningField, stop: tuple[str, ...] = ()) -> None:
        self._field = reasoning
        self._stop, self._guard, self._thoughts = StopCut(stop), Guard(), Guard()
        self._part: tuple[What, int] | None = None
        self._tag_open = self._tag_closed = False

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the conclusion."""
        return self._stop.matched

    def feed(self, piece: Piece) -> dict[str, str]:
        """Return the delta of a piece; nothing when all of it is held back."""
        if piece.what is What.CONCLUSION:
            return self._content(self._leave() + self._guard.feed(self._stop.feed(piece.text)))
        return self._thought(self._mark(piece) + piece.text)

    def close(self) -> dict[str, str]:
        """Return what was held back."""
        return self._content(self._leave() + self._guard.feed(self._stop.close()) + self._guard.close())

    def _mark(self, piece: Piece) -> str:
        """Return what stands between two parts of the reasoning."""
        part, self._part = self._part, (piece.what, piece.k)
        if part == self._part or (part is None and piece.what is What.THOUGHT and piece.k == 1):
            return ""
        name = f"summary of round {piece.k}" if piece.what is What.SUMMARY else f"round {piece.k}"
        return f"--- {name} ---\n\n" if part is None else f"\n\n--- {name} ---\n\n"

    def _thought(self, text: str) -> dict[str, str]:
        if self._field == "none":
            return {}
        if self._field == "think-tags":
            if self._tag_closed:  # readers of tags know one block, at the beginning: what is thought later stays out
                return {}
            opening = "" if self._tag_open else OPEN
            self._tag_open = True
            return self._content(opening + self._thoughts.feed(text))
        names = ("reasoning", "reasoning_content") if self._field == "both" else (self._field,)
        return dict.fromkeys(names, text)

    def _leave(self) -> str:
        """Close the tag around the thoughts, if there is one."""
        if not self._tag_open:
            return ""
        self._tag_open, self._tag_closed = False, True
        return self._thoughts.close() + CLOSE

    @staticmethod
    def _content(text: str) -> dict[str, str]:
        return {"content": text} if text else {}


@dataclass(frozen=True)
class Head:
    """What every chunk of an answer repeats."""

    id: str
    created: int
    model: str

    def chunk(self, index: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        """Return a chunk of a stream. Its content is never null."""
        choice = {"index": index, "delta": {"content": "", **delta}, "logprobs": None, "finish_reason": reason}
        return self._object("chat.completion.chunk", [choice])

    def event(self, index: int, delta: dict[str, str]) -> bytes:
        """Return ``data(self.chunk(index, delta))``, faster: only the delta differs from one to the next."""
        return sent(f'{self._before}{{"index":{index},"delta":{dump({"content": "", **delta})},{_BEHIND}')

    @cached_property
    def _before(self) -> str:
        return "data: " + dump(self._object("chat.completion.chunk", [])).removesuffix("]}")

    def usage_chunk(self, tellers: Sequence[Teller]) -> dict[str, Any]:
        """Return the chunk without a choice that tells the usage."""
        return self._object("chat.completion.chunk", []) | figures(tellers)

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return a whole answer."""
        listed = [choice.whole(index) for index, choice in enumerate(choices)]
        return self._object("chat.completion", listed) | figures([choice.teller for choice in choices])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class Choice:
    """One choice, from pieces to deltas; it keeps them when the answer is to be whole."""

    def __init__(self, asked: Asked, keep: bool) -> None:
        self._writer = Writer(asked.reasoning, asked.stop)
        self._kept: dict[str, list[str]] | None = {} if keep else None
        self.teller = Teller(opened=False)

    def feed(self, piece: Piece) -> dict[str, str]:
        """Return the delta of a piece."""
        return self._keep(self._writer.feed(piece))

    def close(self, teller: Teller) -> dict[str, str]:
        """Return the last delta; ``teller`` knows how it ended."""
        self.teller = teller
        return self._keep(self._writer.close())

    @property
    def finish_reason(self) -> str:
        """How it ended."""
        return "stop" if self._writer.stopped else self.teller.finish_reason

    def whole(self, index: int) -> dict[str, Any]:
        """Return the choice of a whole answer: the deltas, joined."""
        texts = {name: "".join(parts) for name, parts in (self._kept or {}).items()}
        message = {"role": "assistant", "content": "", "refusal": None, **texts}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self.finish_reason}

    def _keep(self, delta: dict[str, str]) -> dict[str, str]:
        if self._kept is not None:
            for name, text in delta.items():
                self._kept.setdefault(name, []).append(text)
        return delta


def figures(tellers: Sequence[Teller]) -> dict[str, Any]:
    """Return ``usage`` over all rounds of all choices, and the block ``inftythink``: one report a choice."""
    total = sum((teller.usage for teller in tellers), Usage())
    usage: dict[str, Any] = {
        "prompt_tokens": total.prompt,
        "completion_tokens": total.generated,
        "total_tokens": total.prompt + total.generated,
        "completion_tokens_details": {"reasoning_tokens": total.reasoning},
        "prompt_tokens_details": {"cached_tokens": total.cached or 0},
    }
    return {"usage": usage, "inftythink": report(tellers)}


def report(tellers: Sequence[Teller]) -> dict[str, Any]:
    """Return the block ``inftythink``: the report of the answer; of several choices their sums, and each report."""
    reports = [teller.report() for teller in tellers]
    if len(reports) == 1:
        return reports[0]
    return {
        "rounds": sum(each["rounds"] for each in reports),
        "peak_context": max((each["peak_context"] for each in reports), default=0),
        "choices": reports,
    }
