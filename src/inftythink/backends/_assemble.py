"""Pieces of an answer in, deltas and the completion out: where the contract on stop strings is kept. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inftythink.backends._wire import Piece, Renderer, garbage
from inftythink.backends.base import Delta, Request
from inftythink.protocol.types import Completion, Stop

_BROKEN = "\ufffd"


class StopCutter:
    """Finds the first stop string in a text that arrives in pieces; the text is kept up to and including it."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(dict.fromkeys(text for text in stop if text))
        self._reach = max(map(len, self._stop), default=1) - 1
        self._tail = ""
        self.matched: str | None = None

    def feed(self, piece: str) -> str:
        """Return what of ``piece`` belongs to the text: all of it, or up to the end of a stop string."""
        if self.matched is not None:
            return ""
        if not self._stop:
            return piece
        window = self._tail + piece
        # The one that is complete first; of two that end together the longer one.
        ends = [(at + len(text), -len(text), text) for text in self._stop if (at := window.find(text)) >= 0]
        if not ends:
            self._tail = window[max(0, len(window) - self._reach) :] if self._reach else ""
            return piece
        end, _, self.matched = min(ends)
        return window[len(self._tail) : end]


class Assembler:
    """Joins the pieces of one answer.

    ``streamed`` tells how tokens are counted when the server does not say: one per piece that carried text, or a
    quarter of the UTF-8 bytes of a whole answer.
    """

    def __init__(self, request: Request, renderer: Renderer | None, streamed: bool) -> None:
        self._request = request
        self._renderer = renderer
        self._streamed = streamed
        self._cutter = StopCutter(request.stop)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._held = ""
        self._ids: list[int] | None = None
        self._logprobs: list[float] = []
        self._last = Piece()
        self._told: dict[str, int | None] = {}
        self._prompt_ids: tuple[int, ...] | None = None
        self._pieces = 0
        self._inside_reasoning: str | None = None
        self._done = False

    @property
    def cut(self) -> bool:
        """Whether a stop string is complete: nothing that comes later belongs to the text."""
        return self._cutter.matched is not None

    @property
    def ended(self) -> bool:
        """Whether the server said how the text ended, or that its stream is over."""
        return self._done or self._last.stop is not None

    def add(self, piece: Piece) -> Delta | None:
        """Take the next piece in; return what it adds to what a reader has seen."""
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
            if getattr(piece, name) is not None:
                self._told[name] = getattr(piece, name)
        self._done = self._done or piece.done
        if piece.prompt_ids is not None:
            self._prompt_ids = piece.prompt_ids
        if piece.stop is not None:
            self._last = piece
        if self.cut:
            return None
        if piece.ids is not None:
            self._ids = [*(self._ids or ()), *piece.ids]
        self._logprobs += piece.logprobs or ()
        self._pieces += bool(piece.text or piece.reasoning)
        return self._read(piece)

    def _read(self, piece: Piece) -> Delta | None:
        """Cut the piece's text at a stop string, and put back one that the server took away."""
        text = self._whole_characters(self._without_end(piece), piece.stop is not None)
        kept = self._cutter.feed(text)
        if self.cut and len(kept) < len(text):
            self._cut_ids(len(piece.ids or ()))
        reasoning = piece.reasoning
        if piece.matched and not self.cut:
            if (reasoning or self._reasoning) and not kept and not any(self._text):
                # A chat server's reasoning parser was still inside the thought when the stop string came.
                reasoning, self._inside_reasoning = reasoning + piece.matched, piece.matched
            else:
                kept += self._cutter.feed(piece.matched)
        self._text.append(kept)
        self._reasoning.append(reasoning)
        return Delta(kept, reasoning) if kept or reasoning else None

    def _without_end(self, piece: Piece) -> str:
        """Take the text of the end-of-sequence token off."""
        if piece.end_id is None or self._renderer is None:
            return piece.text
        return piece.text.removesuffix(self._renderer.decode([piece.end_id]))

    def _whole_characters(self, text: str, last: bool) -> str:
        """Hold back replacement characters at the end: servers write them for a character that is not complete yet."""
        text, self._held = self._held + text, ""
        if text.endswith(_BROKEN):
            whole = text.rstrip(_BROKEN)
            text, self._held = whole, "" if last else text[len(whole) :]
        return text

    def _cut_ids(self, fresh: int) -> None:
        """Drop ids behind the one that completed the stop string; only the last ``fresh`` ones can be too many."""
        matched, kept = self._cutter.matched, len(self._ids or ())
        if self._ids is None or self._renderer is None or matched is None:
            return
        for _ in range(fresh - 1):
            if matched not in self._renderer.decode(self._ids[: kept - 1]):
                break
            kept -= 1
        del self._ids[kept:], self._logprobs[kept:]

    def finish(self, queue_seconds: float, seconds: float) -> Completion:
        """Return the completion. Raises ``GarbageError`` when log-probabilities and ids do not belong together."""
        matched = self._cutter.matched or self._inside_reasoning
        text, reasoning = "".join(self._text), "".join(self._reasoning)
        stop, error = self._last.stop or Stop.ABORT, self._last.error
        if matched is not None:
            stop, error = Stop.STOP, None
        elif self._last.stop is None:
            error = "the server ended its stream without a finish_reason"
        completion_tokens = self._count(text, reasoning)
        ids = tuple(self._ids) if self._ids is not None else None
        if ids is not None and len(ids) != completion_tokens:
            ids = None  # llama.cpp streams no id for a token that ends inside a character
        logprobs = tuple(self._logprobs) if self._request.sampling.logprobs else None
        if logprobs is not None and ids is not None and len(logprobs) != len(ids):
            raise garbage(f"the server told {len(logprobs)} log-probabilities for {len(ids)} tokens", text)
        return Completion(
            text=text,
            stop=stop,
            reasoning=reasoning or None,
            stop_text=matched,
            prompt_tokens=self._prompt_count(),
            completion_tokens=completion_tokens,
            cached_tokens=self._told.get("cached_tokens"),
            prompt_ids=self._prompt_ids,
            token_ids=ids,
            logprobs=logprobs,
            queue_seconds=queue_seconds,
            seconds=seconds,
            error=error,
        )

    def _count(self, text: str, reasoning: str) -> int:
        """Generated tokens: as told, unless this side cut the text, then what it saw."""
        told = self._told.get("completion_tokens")
        if self._ids is not None and (told is None or (self.cut and len(self._ids) < told)):
            return len(self._ids)
        if told is not None:
            return told
        return self._pieces if self._streamed else _guess(text + reasoning)

    def _prompt_count(self) -> int:
        """Prompt tokens: as told, else by the renderer, else guessed."""
        told = self._told.get("prompt_tokens")
        if told is not None:
            return told
        if self._prompt_ids is not None:
            return len(self._prompt_ids)
        prompt = self._request.prompt
        if self._renderer is not None:
            return len(self._renderer.ids(prompt))
        parts = (*(part for turn in prompt.turns for part in turn.parts), *prompt.prefill)
        return _guess("".join(part.text for part in parts))


def _guess(text: str) -> int:
    """Four bytes a token: a rule of thumb, used only where nobody counts."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 4)
