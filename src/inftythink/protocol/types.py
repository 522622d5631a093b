"""The values that the protocol speaks in: frozen, without behaviour beyond their JSON form.

Counts are tokens of the model's tokenizer, as told by the backend; times are seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Literal

VERSION = 1
"""Version of the JSON form of a trajectory."""

Role = Literal["system", "user", "assistant"]


class Stop(enum.Enum):
    """How a text ended. Never a bool, never inferred from a missing tag."""

    STOP = "stop"
    """The model ended by itself (end-of-sequence) or at a stop string that was asked for."""
    LENGTH = "length"
    """The limit of tokens was reached."""
    ABORT = "abort"
    """The backend failed or the request was cancelled; the text may be partial."""


class Outcome(enum.Enum):
    """How a trajectory ended. All but ``FAILED`` stay in every denominator; only ``ANSWERED`` can be correct."""

    ANSWERED = "answered"
    ROUND_LIMIT = "round_limit"
    TOKEN_LIMIT = "token_limit"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    FAILED = "failed"


class Purpose(enum.Enum):
    """What a call to the model is for. A driver may send ``SUMMARISE`` calls to another model."""

    REASON = "reason"
    SUMMARISE = "summarise"
    """The second call of ``two_call``: a plain request for a summary."""
    FORCED_SUMMARY = "forced_summary"
    """The same round goes on behind a closed thought and an opened summary."""
    FORCED_ANSWER = "forced_answer"
    """The model is made to conclude: a limit was reached."""


class PartKind(enum.Enum):
    """Whether a part was written by the protocol or came from outside."""

    STRUCTURE = "structure"
    """Written by the protocol: a renderer may turn it into special tokens."""
    CONTENT = "content"
    """A question, summary or thought: never yields a special token, whatever it contains."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt: text, or the token ids that a backend returned (``ids`` wins over ``text``)."""

    kind: PartKind
    text: str = ""
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The parts' text, joined; what a chat server is sent."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Finished turns, then the beginning of the assistant's turn that the model is to go on with."""

    turns: tuple[Turn, ...]
    prefill: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A piece of what the model wrote, or was made to write, after a prompt.

    ``sampled`` is False for the scaffold of a forced summary or answer: it was never drawn from the model, so no loss
    and no gradient may fall on it.
    """

    part: Part
    sampled: bool = True


@dataclass(frozen=True, slots=True)
class Exchange:
    """Round ``k`` as a training row: its prompt, what followed, and whether an end-of-sequence token closes it."""

    k: int
    prompt: Prompt
    target: tuple[Target, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its identity; ``answer`` is the reference, never shown to the model.

    ``context`` holds the turns before the question: ``(role, text)`` pairs, a system prompt among them.
    """

    id: str
    question: str
    answer: str | None = None
    context: tuple[tuple[Role, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend returned for one call.

    ``text`` holds the generated text, a matched stop string included (``stop_text`` names it) and the
    end-of-sequence token not. ``reasoning`` is set when a chat server returned the thought in a field of its own;
    ``text`` is then what follows the thought. ``token_ids`` are the sampled ids (end-of-sequence included when it
    was sampled) and ``logprobs`` their natural-log probabilities under the sampler, of the same length.
    ``cached_tokens`` is the part of the prompt served from a cache, None when not told. ``error`` says why a
    completion is ``ABORT``.
    """

    text: str
    stop: Stop
    reasoning: str | None = None
    stop_text: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    queue_seconds: float = 0.0
    seconds: float = 0.0
    error: str | None = None

    def as_call(self, purpose: Purpose, scaffold: str) -> Call:
        """Return the bookkeeping of this completion."""
        return Call(
            purpose,
            self.stop,
            scaffold,
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.queue_seconds,
            self.seconds,
            self.prompt_ids,
            self.token_ids,
            self.logprobs,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; fields at their default are left out."""
        return _shorten(self) | {"stop": self.stop.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Completion:
        """Read what ``to_json`` wrote. Raises ``KeyError`` or ``ValueError`` on anything else."""
        return cls(**_tuples(data) | {"stop": Stop(data["stop"])})


@dataclass(frozen=True, slots=True)
class Call:
    """The bookkeeping of one completion inside a round; the text itself lives in the round.

    ``scaffold`` is what the protocol put between the completion before and this one: text that was never sampled.
    """

    purpose: Purpose
    stop: Stop
    scaffold: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    queue_seconds: float = 0.0
    seconds: float = 0.0
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; fields at their default are left out."""
        return _shorten(self) | {"purpose": self.purpose.value, "stop": self.stop.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Call:
        """Read what ``to_json`` wrote."""
        return cls(**_tuples(data) | {"purpose": Purpose(data["purpose"]), "stop": Stop(data["stop"])})


@dataclass(frozen=True, slots=True)
class Round:
    """One round: what was thought and what was carried on.

    ``summary`` is None when the round wrote none (the last round, and every round of ``tail`` and ``none``).
    ``raw`` keeps the text of a completion that could not be read in full, so that nothing is lost.
    """

    k: int
    thought: str
    summary: str | None = None
    calls: tuple[Call, ...] = ()
    raw: str | None = None

    @property
    def stop(self) -> Stop:
        """How the last call of the round ended."""
        return self.calls[-1].stop if self.calls else Stop.ABORT

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens over the calls of the round."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def completion_tokens(self) -> int:
        """Generated tokens over the calls of the round."""
        return sum(call.completion_tokens for call in self.calls)

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens served from a cache; None when no call told."""
        told = [call.cached_tokens for call in self.calls if call.cached_tokens is not None]
        return sum(told) if told else None

    @property
    def seconds(self) -> float:
        """Generation time over the calls of the round (queueing not counted)."""
        return sum(call.seconds for call in self.calls)

    @property
    def peak_context(self) -> int:
        """The largest prompt + completion of a call: what the key-value cache had to hold."""
        return max((call.prompt_tokens + call.completion_tokens for call in self.calls), default=0)

    @property
    def forced(self) -> Purpose | None:
        """``FORCED_SUMMARY`` or ``FORCED_ANSWER`` when the round needed it, else None."""
        forced = (Purpose.FORCED_SUMMARY, Purpose.FORCED_ANSWER)
        return next((call.purpose for call in self.calls if call.purpose in forced), None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of DESIGN: derived counts first for readers, the calls for exact return."""
        data: dict[str, Any] = {
            "k": self.k,
            "thought": self.thought,
            "summary": self.summary,
            "stop": self.stop.value,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "seconds": round(self.seconds, 6),
            "forced": self.forced.value if self.forced else None,
            "calls": [call.to_json() for call in self.calls],
        }
        return data if self.raw is None else data | {"raw": self.raw}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Round:
        """Read what ``to_json`` wrote; derived counts are computed again."""
        calls = tuple(Call.from_json(call) for call in data["calls"])
        return cls(data["k"], data["thought"], data["summary"], calls, data.get("raw"))


@dataclass(frozen=True, slots=True)
class Trajectory:
    """All rounds of one problem, and how they ended. ``reason`` explains every outcome but ``ANSWERED``.

    ``grade`` is the verdict once graded: ``{"correct": bool | None, "extracted": str | None, "reason": str | None}``.
    """

    problem: Problem
    outcome: Outcome
    rounds: tuple[Round, ...]
    conclusion: str | None = None
    sample: int = 0
    reason: str | None = None
    grade: dict[str, Any] | None = field(default=None)

    @property
    def totals(self) -> dict[str, Any]:
        """Sums over the rounds; ``peak_context`` is a maximum."""
        return {
            "rounds": len(self.rounds),
            "prompt_tokens": sum(r.prompt_tokens for r in self.rounds),
            "completion_tokens": sum(r.completion_tokens for r in self.rounds),
            "peak_context": max((r.peak_context for r in self.rounds), default=0),
            "seconds": round(sum(r.seconds for r in self.rounds), 6),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that run folders and ``solve --json`` hold, one a line."""
        data: dict[str, Any] = {
            "version": VERSION,
            "id": self.problem.id,
            "sample": self.sample,
            "problem": self.problem.question,
            "answer": self.problem.answer,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "conclusion": self.conclusion,
            "rounds": [r.to_json() for r in self.rounds],
            "totals": self.totals,
            "grade": self.grade,
        }
        return data | {"context": [list(turn) for turn in self.problem.context]} if self.problem.context else data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trajectory:
        """Read what ``to_json`` wrote. Raises ``ValueError`` for another version, naming both."""
        if data.get("version") != VERSION:
            raise ValueError(f"trajectory JSON has version {data.get('version')!r}; this package reads {VERSION}")
        context = tuple((role, text) for role, text in data.get("context", ()))
        return cls(
            problem=Problem(data["id"], data["problem"], data["answer"], context),
            outcome=Outcome(data["outcome"]),
            rounds=tuple(Round.from_json(r) for r in data["rounds"]),
            conclusion=data["conclusion"],
            sample=data["sample"],
            reason=data["reason"],
            grade=data["grade"],
        )


def _shorten(value: Completion | Call) -> dict[str, Any]:
    """Return the fields that differ from their default."""
    return {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON lists back into tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
