"""Summaries for one segmented trace, through any backend, until each is whole, short enough and faithful.

``incremental`` (InftyThink+, section 4.1) asks for s_i from the question, s_(i-1) and r_i: what the model itself will
see, and an input that stays bounded. ``cumulative`` (InftyThink, section 3.2) asks from the question and r_1 .. r_i.
The last segment needs no summary: nothing follows it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from inftythink.backends.base import Backend, Request, Sampling
from inftythink.data.read import Reject
from inftythink.data.tokens import Counter
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, boundary
from inftythink.protocol import Completion, Format, Problem, Prompt, Tags, Turn, prompts
from inftythink.protocol.format import Conclusion, Cut, Malformed, Summary, content
from inftythink.reasoner import derive_seed

Strategy = Literal["incremental", "cumulative"]

JUDGE = """You check summaries of unfinished reasoning. The next step will see only the problem and the summary.

Problem:
{problem}

Summary before this piece of reasoning:
{previous}

The piece of reasoning:
{segment}

The new summary to check:
{summary}

How faithful is the new summary? 10: every intermediate result that is still needed is there with its value, and nothing
is claimed that the reasoning does not contain. 0: it invents results, or leaves out what the next step needs. On the
first line write "Score: " and a whole number from 0 to 10, then at most three sentences on what to mend."""

_SCORE = re.compile(r"score\W{0,10}(\d+)", re.IGNORECASE)
_WRITTEN = Format(thought="written")
_TAG = re.compile(r"</?(?:{think}|{summary}|{history})>".format(**{n: getattr(Tags(), n) for n in Tags.__slots__}))


@dataclass(frozen=True, slots=True)
class Settings:
    """How summaries are asked for; the defaults are those of InftyThink+ where it names them.

    ``attempts``: tries for each summary, each with a seed of its own. ``threshold``: least score of the judge, 0-10.
    """

    strategy: Strategy = "incremental"
    gamma: int = 1024
    attempts: int = 10
    temperature: float = 0.5
    top_p: float = 0.95
    threshold: int = 7
    seed: int = 0


@dataclass
class Usage:
    """Calls made and tokens used, the judge's apart."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    judge_calls: int = 0
    judge_prompt_tokens: int = 0
    judge_completion_tokens: int = 0

    def add(self, completion: Completion, judge: bool) -> None:
        """Count one completion."""
        prefix = "judge_" if judge else ""
        for name, value in (("calls", 1), ("prompt_tokens", completion.prompt_tokens)):
            setattr(self, prefix + name, getattr(self, prefix + name) + value)
        setattr(
            self,
            prefix + "completion_tokens",
            getattr(self, prefix + "completion_tokens") + completion.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Segmented:
    """What is to be summarised: a problem and its segments, in order."""

    problem: Problem
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summarised:
    """One summary for each segment but the last: texts, their tokens, and the tries that each took."""

    summaries: list[str]
    tokens: list[int]
    attempts: list[int]


Ask = Callable[[tuple[int, int, str], Backend, Request], Awaitable[Completion]]
"""Makes the call named ``(segment, attempt, "summary" or "judge")``, or returns what a journal has for it."""


@dataclass
class Summariser:
    """Writes the summaries of traces; one value serves many traces at once.

    ``ask`` makes the calls (a journal may stand behind it). ``usage`` counts every call that was made.
    """

    backend: Backend
    counter: Counter
    settings: Settings = field(default_factory=Settings)
    judge: Backend | None = None
    usage: Usage = field(default_factory=Usage)

    async def summarise(self, trace: Segmented, ask: Ask) -> Summarised | Reject:
        """Return the summaries of a trace, or a ``Reject`` that says what came of each attempt for the one that failed.

        Raises ``BackendFatalError`` when the backend refuses every request.
        """
        done = Summarised([], [], [])
        for number in range(len(trace.segments) - 1):
            faults: list[str] = []
            feedback: str | None = None
            for attempt in range(self.settings.attempts):
                text, fault, feedback = await self._attempt(trace, done, number, attempt, feedback, ask)
                if fault is None:
                    done.summaries.append(text)
                    done.tokens.append(self.counter.count(text))
                    done.attempts.append(attempt + 1)
                    break
                faults.append(fault)
                if fault.startswith("context"):
                    break
            else:
                attempt = self.settings.attempts
            if len(done.summaries) == number:
                detail = f"segment {number + 1} of {len(trace.segments)}: " + "; ".join(faults)
                return Reject(trace.problem.id, "summarise", "no_summary", detail)
        return done

    async def _attempt(
        self, trace: Segmented, done: Summarised, number: int, attempt: int, feedback: str | None, ask: Ask
    ) -> tuple[str, str | None, str | None]:
        """Try once; return the text, what is wrong with it (None: nothing), and feedback for the next try."""
        prompt = self.prompt(trace, done.summaries, number, feedback)
        # Another tokenizer may need more tokens for the same text; whether it is too long is counted, not cut.
        request = Request(prompt, 2 * self.settings.gamma, (), self._sampling(trace, number, attempt, "summary"))
        completion = await self._call((number, attempt, "summary"), self.backend, request, ask)
        if isinstance(completion, str):
            return "", completion, feedback
        text, fault = self._read(completion)
        if fault is not None or self.judge is None:
            return text, fault, feedback
        return text, *await self._score(trace, done.summaries, number, attempt, text, ask)

    def prompt(self, trace: Segmented, summaries: list[str], number: int, feedback: str | None = None) -> Prompt:
        """Return the request for summary ``number`` (from 0), as the strategy has it."""
        turns = prompts.question_only(trace.problem)
        if self.settings.strategy == "cumulative":
            so_far = "".join(trace.segments[: number + 1])
            return prompts.summarise(turns, None, so_far, self.settings.gamma, feedback)
        previous = summaries[number - 1] if number else None
        return prompts.summarise(turns, previous, trace.segments[number].strip(), self.settings.gamma, feedback)

    def _read(self, completion: Completion) -> tuple[str, str | None]:
        """Read a summary: what the model wrote, without a thought before it; say what is wrong with it."""
        match _WRITTEN.read([("", completion)]):
            case Summary(_, text) | Conclusion(_, text):
                if _TAG.search(text):
                    return "", "wrong form: it holds tags of the format"
                tokens = self.counter.count(text)
                over = f"over gamma: {tokens} tokens" if tokens > self.settings.gamma else None
                return text, over
            case Cut():
                return "", f"cut at {completion.completion_tokens} tokens"
            case Malformed(_, reason):
                return "", "empty" if reason.startswith("empty") else f"wrong form: {reason}"
            case other:
                return "", f"wrong form: {other}"

    async def _score(
        self, trace: Segmented, summaries: list[str], number: int, attempt: int, text: str, ask: Ask
    ) -> tuple[str | None, str | None]:
        """Have the judge score a summary; return what is wrong with it, and its feedback."""
        assert self.judge is not None
        question = JUDGE.format(
            problem=trace.problem.question,
            previous=summaries[number - 1] if number else "(none: this is the first piece)",
            segment=trace.segments[number].strip(),
            summary=text,
        )
        sampling = self._sampling(trace, number, attempt, "judge", temperature=0.0)
        request = Request(Prompt((Turn("user", (content(question),)),)), 512, (), sampling)
        completion = await self._call((number, attempt, "judge"), self.judge, request, ask)
        if isinstance(completion, str):
            return f"judge: {completion}", None
        verdict = getattr(_WRITTEN.read([("", completion)]), "text", "") or completion.text
        score = _SCORE.search(verdict)
        if score is None:
            return f"judge gave no score: {verdict[:80]!r}", None
        if int(score[1]) >= self.settings.threshold:
            return None, None
        feedback = verdict[score.end() :].lstrip("/10 .\n").strip()
        return f"judge: {score[1]} of 10: {feedback[:200]}", feedback[:1000] or None

    async def _call(self, key: tuple[int, int, str], backend: Backend, request: Request, ask: Ask) -> Completion | str:
        """Make a call and count it; return what failed as text."""
        try:
            with boundary(f"backend {backend.name}"):
                completion = await ask(key, backend, request)
        except BackendFatalError:
            raise
        except ContextTooLongError as error:
            return f"context too long: {error}"
        except BackendError as error:
            return f"failed: {error}"
        self.usage.add(completion, key[2] == "judge")
        return completion

    def _sampling(
        self, trace: Segmented, number: int, attempt: int, kind: str, temperature: float | None = None
    ) -> Sampling:
        heat = self.settings.temperature if temperature is None else temperature
        seed = derive_seed(self.settings.seed, trace.problem.id, number, attempt, kind)
        return Sampling(temperature=heat, top_p=self.settings.top_p, seed=seed)
