"""What a reasoner tells while it works, as pieces that both interfaces can write: thoughts, summaries, the conclusion.

A piece that was handed out is never taken back, so a text is only ``CONCLUSION`` once it can be nothing else. That is
plain for a model whose thought has ended. A chat model without thoughts may turn out to have been thinking (its
reply was cut) until its call has ended: its reply is told live as a thought, and once more, whole, as the conclusion
if that is what it was.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from inftythink.protocol import Event, Kind, Outcome, Purpose, Round, Stop, Trajectory
from inftythink.reasoner import Began, Ended, StreamEvent


class What(enum.Enum):
    """What a piece belongs to."""

    THOUGHT = "thought"
    SUMMARY = "summary"
    CONCLUSION = "conclusion"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of round ``k``."""

    what: What
    k: int
    text: str


_SURE = {Kind.THOUGHT: What.THOUGHT, Kind.SUMMARY: What.SUMMARY}


class Teller:
    """Takes a reasoner's events, returns pieces. ``opened``: prompts open the thought, so its end is always seen."""

    def __init__(self, opened: bool) -> None:
        self._opened = opened
        self._k, self._purpose = 1, Purpose.REASON
        self._thought_seen = False
        self._draft: list[str] = []  # may be the conclusion, or a thought
        self._cut: list[str] = []  # the draft that has just turned out to be a thought
        self._was_cut = False  # ... because its call ended at the limit
        self._concluding = False
        self._afresh = False  # a second call says the conclusion from its beginning
        self._shares: list[tuple[int, int]] = []  # characters of each call: conclusion, and all
        self._call = [0, 0]
        self.trajectory: Trajectory | None = None

    def feed(self, event: StreamEvent) -> list[Piece]:
        """Take an event; return what is certain."""
        if isinstance(event, Event):
            return self._text(event)
        if isinstance(event, Began):
            self._begin(event)
            return []
        if isinstance(event, Ended):
            self._was_cut = bool(self._cut) and event.completion.stop is Stop.LENGTH
            self._shares.append((self._call[0], self._call[1]))
            self._call = [0, 0]
            return []
        return self._finish(event)

    def _begin(self, event: Began) -> None:
        alone = not self._opened or event.k != self._k
        if alone:
            self._thought_seen, self._was_cut, self._draft, self._cut = False, False, [], []
            self._afresh = self._concluding
        self._k, self._purpose = event.k, event.purpose

    def _text(self, event: Event) -> list[Piece]:
        self._call[1] += len(event.text)
        if event.kind is Kind.RECLASSIFY:
            self._cut, self._draft, self._thought_seen, self._call[0] = self._draft, [], True, 0
            return []
        if self._was_cut and event.kind is Kind.CONCLUSION:  # the rest of the draft, which had been held back
            self._cut.append(event.text)
            return [Piece(What.THOUGHT, self._k, event.text)]
        self._cut = []
        if event.kind is not Kind.CONCLUSION:
            self._thought_seen = self._thought_seen or event.kind is Kind.THOUGHT
            return [Piece(_SURE[event.kind], self._k, event.text)]
        self._call[0] += len(event.text)
        if self._opened or self._thought_seen:
            return [self._conclude(event.text)]
        self._draft.append(event.text)
        return [Piece(What.THOUGHT, self._k, event.text)]

    def _conclude(self, text: str) -> Piece:
        if self._afresh:
            text, self._afresh = "\n\n" + text, False
        self._concluding = True
        return Piece(What.CONCLUSION, self._k, text)

    def _finish(self, trajectory: Trajectory) -> list[Piece]:
        """Settle what the last call's text was."""
        self.trajectory = trajectory
        draft = self._draft
        if trajectory.outcome is Outcome.TRUNCATED and self._purpose is Purpose.FORCED_ANSWER:
            draft = draft or self._cut  # better a cut answer than none
        elif trajectory.outcome is not Outcome.ANSWERED:
            draft = []
        return [self._conclude("".join(draft))] if draft else []

    # -- figures, once the trajectory is there --

    @property
    def done(self) -> Trajectory:
        """The trajectory."""
        assert self.trajectory is not None
        return self.trajectory

    @property
    def finish_reason(self) -> str:
        """``length`` when a limit ended it, even if an answer was forced then; else ``stop``."""
        outcome, rounds = self.done.outcome, self.done.rounds
        if outcome is Outcome.ANSWERED:
            forced = bool(rounds) and rounds[-1].forced is Purpose.FORCED_ANSWER
            return "length" if forced else "stop"
        return "stop" if outcome is Outcome.MALFORMED else "length"

    @property
    def usage(self) -> Usage:
        """Tokens over all rounds."""
        calls = [call for each in self.done.rounds for call in each.calls]
        conclusion = 0
        if self._concluding:
            shares = zip(calls, self._shares, strict=False)
            conclusion = sum(round(call.completion_tokens * said / every) for call, (said, every) in shares if every)
        generated = sum(call.completion_tokens for call in calls)
        cached = [call.cached_tokens for call in calls if call.cached_tokens is not None]
        return Usage(
            sum(call.prompt_tokens for call in calls),
            generated,
            generated - conclusion,
            sum(cached) if cached else None,
        )

    def report(self) -> dict[str, Any]:
        """Return how the answer came about: outcome, rounds, context."""
        rounds = self.done.rounds
        return {
            "outcome": self.done.outcome.value,
            "reason": self.done.reason,
            "rounds": len(rounds),
            "peak_context": max((each.peak_context for each in rounds), default=0),
            "cached_tokens": self.usage.cached,
            "per_round": [_figures(each) for each in rounds],
        }


def _figures(this: Round) -> dict[str, Any]:
    return {
        "k": this.k,
        "prompt_tokens": this.prompt_tokens,
        "completion_tokens": this.completion_tokens,
        "cached_tokens": this.cached_tokens,
        "summarised": this.summary is not None,
        "forced": this.forced.value if this.forced else None,
        "cut": this.stop is Stop.LENGTH,
        "seconds": round(this.seconds, 3),
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: of prompts, generated, of the generated those that are no conclusion, and of the prompts' cached ones."""

    prompt: int = 0
    generated: int = 0
    reasoning: int = 0
    cached: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Sum up."""
        both = [each for each in (self.cached, other.cached) if each is not None]
        return Usage(
            self.prompt + other.prompt,
            self.generated + other.generated,
            self.reasoning + other.reasoning,
            sum(both) if both else None,
        )


class StopCut:
    """Cuts a text that comes in pieces before the stop string that is complete first; the same for any pieces."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop, self._held = stop, ""
        self.matched = False

    def feed(self, piece: str) -> str:
        """Return what is certain to stay."""
        if self.matched or not self._stop:
            return "" if self.matched else piece
        window = self._held + piece
        # Of two that are complete with the same character, the longer one began first.
        found = [(at + len(text), at) for text in self._stop if (at := window.find(text)) >= 0]
        if found:
            self.matched, self._held = True, ""
            return window[: min(found)[1]]
        keep = max(_overlap(window, text) for text in self._stop)
        self._held = window[len(window) - keep :]
        return window[: len(window) - keep]

    def close(self) -> str:
        """Return what was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held


def _overlap(window: str, text: str) -> int:
    """The longest end of ``window`` that ``text`` begins with (less than all of it)."""
    longest = min(len(text) - 1, len(window))
    return next((n for n in range(longest, 0, -1) if window.endswith(text[:n])), 0)
