"""What the OpenAI dialects of the engines look like: requests out, pieces of an answer in. No I/O.

The fields were read in the sources of vLLM 0.32, SGLang and llama.cpp (2026); only an engine's own fields are sent
to it, since cloud servers refuse fields that they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from inftythink.backends.base import Request
from inftythink.errors import BackendError, BackendFatalError
from inftythink.protocol.types import Prompt, Stop

Engine = Literal["vllm", "sglang", "llamacpp", "other"]
ENGINES: tuple[Engine, ...] = ("vllm", "sglang", "llamacpp", "other")


class Renderer(Protocol):
    """What the backend needs of a tokenizer: prompt to token ids or text, and ids back to text."""

    def ids(self, prompt: Prompt) -> list[int]:
        """The prompt's token ids."""
        ...

    def text(self, prompt: Prompt) -> str:
        """The prompt as one text, for servers that take no token ids."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens written out."""
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer, or all of it: a streamed chunk and a whole response are read into the same thing."""

    text: str = ""
    reasoning: str = ""
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    stop: Stop | None = None
    matched: str | None = None
    """The stop string that the server cut off."""
    end_id: int | None = None
    """The id of the end-of-sequence token whose text the server left at the end of ``text``."""
    error: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    done: bool = False
    """The stream was ended as it should be, with ``[DONE]``."""


class GarbageError(BackendError):
    """An answer with status 200 that is not what the endpoint promises."""


def garbage(what: str, shown: object) -> GarbageError:
    """Build the error for an unreadable answer; the first 200 characters are shown."""
    return GarbageError(f"{what}; the answer begins with: {str(shown)[:200]!r}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to speak to one server: its engine, and raw completions (``True``) or chat."""

    engine: Engine
    completions: bool

    @property
    def native(self) -> bool:
        """llama.cpp's own ``/completion``: its ``/v1/completions`` tells neither token ids nor the stop string."""
        return self.completions and self.engine == "llamacpp"

    @property
    def path(self) -> str:
        """Where requests go, relative to the base URL (``/completion`` to the server's root)."""
        if self.native:
            return "/completion"
        return "/completions" if self.completions else "/chat/completions"

    @property
    def tells_stop(self) -> bool:
        """Whether the server ends at stop strings and tells which one; else this side has to cut."""
        return self.engine in ("vllm", "sglang") or self.native

    def must_stream(self, request: Request) -> bool:
        """Whether only a stream gives what ``complete`` promises.

        A stop string has to be cut on this side; llama.cpp's chat puts a begun turn before its whole answer, but not
        before a streamed one, and while other requests are answered llama.cpp does not notice that nobody waits for a
        whole answer any more. (Its own endpoint tells all token ids only in a whole answer.)
        """
        return (bool(request.stop) and not self.tells_stop) or (self.engine == "llamacpp" and not self.native)

    @property
    def prefill(self) -> bool:
        """Whether a begun assistant turn is continued."""
        return self.completions or self.engine != "other"

    @property
    def takes_ids(self) -> bool:
        """Whether prompts are sent as token ids, and completions bring theirs."""
        return self.completions and self.engine != "other"

    @property
    def logprobs(self) -> bool:
        """Whether log-probabilities come for every sampled id (llama.cpp leaves some out, see docs/backends.md)."""
        return self.completions and self.engine in ("vllm", "sglang")

    def body(self, request: Request, model: str, prompt: str | list[int] | None, stream: bool) -> dict[str, Any]:
        """Build the request. ``prompt`` is None for chat, which sends the turns. Limits are called ``max_tokens``."""
        sampling = request.sampling
        body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens, "stream": stream}
        body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if prompt is None:
            body |= self._messages(request.prompt)
        else:
            body["prompt"] = prompt
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if request.stop and self.tells_stop:
            body["stop"] = [text for text in request.stop if text]
        if stream and not self.native:
            body["stream_options"] = {"include_usage": True}
        return body | self._own(request)

    def _messages(self, prompt: Prompt) -> dict[str, Any]:
        """Write the turns as messages; a begun assistant turn becomes the last one where the engine goes on with it."""
        if any(
            p.ids is not None and not p.text
            for part in (*(t.parts for t in prompt.turns), prompt.prefill)
            for p in part
        ):
            raise BackendFatalError(
                "chat servers take text, and this prompt holds token ids: use completions (a renderer)"
            )
        messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
        if not prompt.prefill:
            return {"messages": messages}
        if not self.prefill:
            raise BackendFatalError(
                "this chat server cannot go on with a begun assistant turn. Use a vLLM, SGLang or llama.cpp server, "
                "or a carry that needs no prefill (two_call)"
            )
        messages.append({"role": "assistant", "content": "".join(part.text for part in prompt.prefill)})
        if self.engine == "llamacpp":
            return {"messages": messages}
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}

    def _own(self, request: Request) -> dict[str, Any]:
        """The engine's own fields.

        The sampling is spelled out in full: vLLM and SGLang would else fill gaps from the model's
        ``generation_config.json`` (top-k, repetition penalty), llama.cpp from its own defaults (min-p 0.05, top-k 40).
        """
        sampling, own = request.sampling, dict[str, Any]()
        if self.engine == "vllm":
            own = {"top_k": sampling.top_k, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
        elif self.engine == "sglang":
            own = {"top_k": sampling.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
            # Untrimmed, because a stream may have handed out the beginning of a stop string before it was complete.
            # The end-of-sequence token then stays in the text too: ``Piece.end_id`` names it where it is not skipped.
            own |= {"no_stop_trim": True, "skip_special_tokens": not self.completions}
        elif self.engine == "llamacpp":
            own = {"top_k": sampling.top_k, "min_p": 0.0, "repeat_penalty": 1.0}
        elif sampling.top_k:
            own = {"top_k": sampling.top_k}
        if self.native:
            own |= {"n_predict": request.max_tokens, "return_tokens": True, "cache_prompt": True}
        elif self.takes_ids:
            own["return_token_ids"] = True
        if sampling.logprobs:
            if not self.logprobs:
                raise BackendFatalError("log-probabilities come only from completions (a renderer) on vLLM or SGLang")
            own["logprobs"] = 0 if self.engine == "vllm" else 1
        return own

    def read(self, data: object) -> Piece:
        """Read a response or a streamed chunk. Raises ``GarbageError`` when it is neither."""
        if not isinstance(data, Mapping):
            raise garbage("the server did not answer with a JSON object", data)
        try:
            return self._native(data) if self.native else self._choice(data)
        except (TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
            raise garbage(
                f"the server's answer cannot be read ({type(error).__name__}: {error})", dict(data)
            ) from error

    def _choice(self, data: Mapping[str, Any]) -> Piece:
        """Read the OpenAI layout; a last chunk with only ``usage`` has no choice."""
        counts = _counts(data)
        choices = data.get("choices")
        if not choices:
            if counts and isinstance(choices, list):
                return Piece(**counts)
            raise garbage("the server's answer has no choices", dict(data))
        choice = choices[0]
        part = (choice.get("message") or choice.get("delta") or {}) if not self.completions else choice
        text = part.get("text" if self.completions else "content")
        reasoning = part.get("reasoning") or part.get("reasoning_content")
        stop, error = _finish(choice.get("finish_reason"))
        told = choice.get("matched_stop" if self.engine == "sglang" else "stop_reason")
        logprobs = choice.get("logprobs") or {}
        return Piece(
            text=_text(text),
            reasoning=_text(reasoning),
            ids=_ints(choice.get("token_ids")),
            logprobs=_logprobs(logprobs.get("token_logprobs")),
            stop=stop,
            matched=told if isinstance(told, str) and self.engine == "vllm" else None,
            end_id=told if isinstance(told, int) and self.engine == "sglang" and self.completions else None,
            error=error,
            prompt_ids=_ints(choice.get("prompt_token_ids")),
            **counts,
        )

    def _native(self, data: Mapping[str, Any]) -> Piece:
        """Read llama.cpp's own layout, whole or streamed."""
        if "content" not in data:
            raise garbage("the server's answer has no content", dict(data))
        if not data.get("stop"):
            return Piece(text=_text(data["content"]), ids=_ints(data.get("tokens")))
        kind = str(data.get("stop_type"))
        return Piece(
            text=_text(data["content"]),
            ids=_ints(data.get("tokens")),
            stop={"eos": Stop.STOP, "word": Stop.STOP, "limit": Stop.LENGTH}.get(kind, Stop.ABORT),
            matched=_text(data.get("stopping_word")) or None,
            error=None if kind in ("eos", "word", "limit") else f"the server ended with stop_type {kind!r}",
            prompt_tokens=_count(data["tokens_evaluated"]),
            completion_tokens=_count(data["tokens_predicted"]),
            cached_tokens=_count((data.get("timings") or {}).get("cache_n")),
        )


def _finish(reason: object) -> tuple[Stop | None, str | None]:
    """Translate ``finish_reason``; None while the text goes on."""
    if reason is None:
        return None, None
    if reason in ("stop", "eos", "tool_calls", "function_call"):
        return Stop.STOP, None
    if reason == "length":
        return Stop.LENGTH, None
    return Stop.ABORT, f"the server ended with finish_reason {reason!r}"


def _counts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``usage``, and llama.cpp's ``timings`` for the cached tokens."""
    usage = data.get("usage")
    if not usage:
        return {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    if cached is None:
        cached = (data.get("timings") or {}).get("cache_n")
    return {
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "completion_tokens": _count(usage.get("completion_tokens")),
        "cached_tokens": _count(cached),
    }


def _count(value: object) -> int | None:
    """Return a number of tokens."""
    if value is not None and not isinstance(value, int):
        raise TypeError(f"a number of tokens expected, not {type(value).__name__}")
    return value


def _text(value: object) -> str:
    """Return a text field; null is empty."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"text expected, not {type(value).__name__}")
    return value or ""


def _logprobs(value: Iterable[float] | None) -> tuple[float, ...] | None:
    """Return log-probabilities, None when the server told none. One that is no number would spoil all weights."""
    found = tuple(map(float, value or ()))
    if any(math.isnan(each) for each in found):
        raise ValueError("a log-probability is not a number")
    return found or None


def _ints(value: Iterable[int] | None) -> tuple[int, ...] | None:
    """Return token ids, None when the server told none."""
    return None if value is None else tuple(int(item) for item in value)
