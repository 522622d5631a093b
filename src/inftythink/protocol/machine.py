"""The machine that drives one trajectory, and the table of all its transitions.

No I/O, no clock, no tokenizer: ``next`` says what to generate, ``receive`` takes what came back. Inference, RL
rollouts, serving, evaluation and data conversion (where a teacher's segments are the completions) all drive this one
machine, so that a training prompt is the inference prompt.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass

from inftythink.errors import ProtocolError
from inftythink.protocol import prompts
from inftythink.protocol.carry import Carry, Memory
from inftythink.protocol.format import Conclusion, Cut, Format, Interrupted, Malformed, Reading, Summary, structure
from inftythink.protocol.policy import Policy
from inftythink.protocol.stream import Place
from inftythink.protocol.types import (
    Call,
    Completion,
    Outcome,
    Part,
    PartKind,
    Problem,
    Prompt,
    Purpose,
    Round,
    Stop,
    Trajectory,
)


class State(enum.Enum):
    """What the machine waits for."""

    REASON = "a round"
    SUMMARY = "a forced or separate summary"
    ANSWER = "a forced answer"
    DONE = "nothing"


class Read(enum.Enum):
    """What came back, as the table knows it. How a text ended goes before what was read in it."""

    ABORT = "abort"
    SUMMARY = "summary"
    CONCLUSION = "conclusion"
    CUT = "cut before or in a summary"
    CUT_CONCLUSION = "cut in the conclusion"
    INTERRUPTED = "stop string inside content"
    MALFORMED = "neither readable"


class Action(enum.Enum):
    """What happens next."""

    NEXT_ROUND = "round k+1; without budget for it a forced answer, or TOKEN_LIMIT"
    GO_ON = "the same round goes on"
    CUT = "tail: round k+1; else a summary of this round, or TRUNCATED"
    SUMMARISE = "a summary of this round"
    FINISH = "the same round finishes it, or TRUNCATED"
    LIMIT = "a forced answer, or ROUND_LIMIT"
    LIMIT_CUT = "a forced answer, or TRUNCATED"
    CARRY_CUT = "round k+1 with what there is of the summary, or TRUNCATED"
    GIVE_UP = "the outcome of the limit that forced the answer"
    ANSWERED = "ANSWERED"
    TRUNCATED = "TRUNCATED"
    MALFORMED = "MALFORMED, text kept"
    FAILED = "FAILED"


TABLE: dict[State, dict[Read, tuple[Action, Action]]] = {
    State.REASON: {
        Read.ABORT: (Action.FAILED, Action.FAILED),
        Read.SUMMARY: (Action.NEXT_ROUND, Action.LIMIT),
        Read.CONCLUSION: (Action.ANSWERED, Action.ANSWERED),
        Read.CUT: (Action.CUT, Action.LIMIT_CUT),
        Read.CUT_CONCLUSION: (Action.FINISH, Action.FINISH),
        Read.INTERRUPTED: (Action.GO_ON, Action.GO_ON),
        Read.MALFORMED: (Action.MALFORMED, Action.MALFORMED),
    },
    State.SUMMARY: {  # only asked for while rounds are left
        Read.ABORT: (Action.FAILED, Action.FAILED),
        Read.SUMMARY: (Action.NEXT_ROUND, Action.LIMIT),
        Read.CUT: (Action.CARRY_CUT, Action.CARRY_CUT),
        Read.MALFORMED: (Action.MALFORMED, Action.MALFORMED),
    },
    State.ANSWER: {
        Read.ABORT: (Action.FAILED, Action.FAILED),
        Read.SUMMARY: (Action.GIVE_UP, Action.GIVE_UP),
        Read.CONCLUSION: (Action.ANSWERED, Action.ANSWERED),
        Read.CUT: (Action.TRUNCATED, Action.TRUNCATED),
        Read.CUT_CONCLUSION: (Action.TRUNCATED, Action.TRUNCATED),
        Read.MALFORMED: (Action.MALFORMED, Action.MALFORMED),
    },
}
"""``TABLE[state][read]`` is what happens at a round k < phi, and at k = phi. ``docs/protocol.md`` prints it."""

_ENDS = {
    Action.ANSWERED: Outcome.ANSWERED,
    Action.MALFORMED: Outcome.MALFORMED,
    Action.TRUNCATED: Outcome.TRUNCATED,
    Action.FAILED: Outcome.FAILED,
}


@dataclass(frozen=True, slots=True)
class Generate:
    """Ask a model for at most ``max_tokens`` tokens behind ``prompt``; it is call number ``call`` of the trajectory.

    ``scaffold`` ends the prompt when the protocol wrote it there for this call. ``alone`` marks a call whose text is
    read by itself, not as more of its round's.
    """

    prompt: Prompt
    stop: tuple[str, ...]
    max_tokens: int
    purpose: Purpose
    k: int
    call: int
    scaffold: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The trajectory is finished."""

    trajectory: Trajectory


class Machine:
    """Drives one problem to its end: ``next`` and ``receive`` in turn, until ``next`` returns ``Done``.

    A model that breaks the format is an outcome; a driver that breaks the order, or a carry that cannot work with the
    format, raises ``ProtocolError``.
    """

    def __init__(self, problem: Problem, fmt: Format, carry: Carry, policy: Policy, sample: int = 0) -> None:
        needed = "written" if carry.name == "two_call" else "opened" if carry.needs_prefill else fmt.thought
        if fmt.thought != needed:
            raise ProtocolError(f"the carry {carry.name!r} cannot work with thoughts {fmt.thought!r}; see make_format")
        self.problem = problem
        self.spent = 0
        """Tokens generated so far."""
        self._fmt, self._carry, self._policy, self._sample = fmt, carry, policy, sample
        self._k = self._call = 0
        self._memory = Memory()
        self._rounds: list[Round] = []
        self._limit = (Outcome.ROUND_LIMIT, "")
        self._error: str | None = None
        tokens = self._round_tokens(1)
        if self._left() < tokens:
            raise ProtocolError(f"a budget of {policy.budget} tokens is less than one round of {tokens} (eta + gamma)")
        self._open()
        self._step: Generate | Done = self._reason(self._prompt, tokens)

    def next(self) -> Generate | Done:
        """Say what to do now. Asking twice gives the same answer."""
        return self._step

    def receive(self, completion: Completion) -> None:
        """Take what came back for the last ``Generate``."""
        if isinstance(self._step, Done):
            raise ProtocolError(f"problem {self.problem.id!r} is done; no completion was asked for")
        self.spent += completion.completion_tokens
        self._call += 1
        self._calls.append(completion.as_call(self._step.purpose, self._scaffold))
        self._texts.append((self._scaffold, completion))
        reading = self._reading()
        if completion.stop is Stop.ABORT:
            self._error = completion.error or "the backend aborted"
            self._look_up(Read.ABORT, reading)
        else:
            self._look_up(_classify(reading), reading)

    def _look_up(self, read: Read, reading: Reading) -> None:
        """Do what the table says in the present state and round."""
        last = self._k >= self._carry.rounds(self._policy)
        self._act(TABLE[self._state][read][last], reading)

    def _reading(self) -> Reading:
        """Read the round so far. What came of a call of its own is read by itself, and is what was asked for."""
        if not self._alone:
            return self._fmt.read(self._texts)
        summary, thought = self._state is State.SUMMARY, self._thought
        match _WRITTEN.read(self._texts[-1:]):
            case Summary(_, text) | Conclusion(_, text):
                return Summary(thought, text) if summary else Conclusion(thought, text)
            case Malformed(_, reason):
                return Malformed(thought, f"no {'summary' if summary else 'answer'}: {reason}")
            case unfinished:
                last = self._texts[-1][1]
                only_thought = last.reasoning is not None or last.text.lstrip().startswith(f"<{_WRITTEN.tags.think}>")
                text = getattr(unfinished, "text", "") or ("" if only_thought else unfinished.thought)
                return Cut(thought, text.strip(), Place.SUMMARY if summary else Place.CONCLUSION)

    def _act(self, action: Action, reading: Reading) -> None:
        """Do ``action``; which of its ways, the policy says."""
        answers = self._policy.on_limit == "answer"
        if action is Action.CUT:
            action = self._resolve_cut(reading)
        elif action is Action.CARRY_CUT:
            kept = self._policy.on_cut == "summarise" and isinstance(reading, Cut) and reading.text.strip()
            action = Action.NEXT_ROUND if kept else Action.TRUNCATED
        if action in _ENDS:
            self._end(_ENDS[action], reading, self._error or _explain(reading))
        elif action is Action.GIVE_UP or (action is Action.LIMIT and not answers):
            outcome, reason = self._limit if action is Action.GIVE_UP else (Outcome.ROUND_LIMIT, self._round_limit())
            self._end(outcome, reading, reason)
        elif action in (Action.FINISH, Action.LIMIT_CUT) and not answers:
            self._end(Outcome.TRUNCATED, reading, _explain(reading))
        elif isinstance(reading, Interrupted):
            self._go_on(reading)
        elif action is Action.SUMMARISE:
            self._summarise(reading)
        elif action is Action.NEXT_ROUND:
            self._close(reading)
            self._next_round()
        elif action is Action.LIMIT:
            self._close(reading)
            self._answer_afresh(Outcome.ROUND_LIMIT, self._round_limit())
        else:
            self._answer(reading)

    def _resolve_cut(self, reading: Reading) -> Action:
        """Turn a cut while rounds are left into what carry and policy make of it."""
        match self._carry.on_cut(self._policy):
            case "summarise":
                return Action.SUMMARISE
            case "carry":
                inside = isinstance(reading, Cut) and reading.place is Place.THOUGHT
                return Action.NEXT_ROUND if inside else Action.FINISH
            case _:
                return Action.TRUNCATED

    # -- rounds --

    def _open(self) -> None:
        """Begin round k+1 with what is remembered."""
        self._k += 1
        self._calls: list[Call] = []
        self._texts: list[tuple[str, Completion]] = []
        self._thought = ""
        self._prompt = self._carry.open(self._fmt, self.problem, self._memory)

    def _close(self, reading: Reading) -> None:
        """Put the round on record and remember what it carries on."""
        summary = reading.text if isinstance(reading, Summary | Cut) and reading.text else None
        raw = self._text() if isinstance(reading, Cut) and reading.place is not Place.THOUGHT else None
        self._rounds.append(Round(self._k, reading.thought, summary, tuple(self._calls), raw))
        ids: tuple[int, ...] = ()
        if self._carry.needs_token_ids:
            ids = self._token_ids()
        self._memory = self._carry.remember(self._memory, summary, ids)

    def _next_round(self) -> None:
        tokens, left = self._round_tokens(self._k + 1), self._left()
        reason = f"budget of {self._policy.budget} tokens: {left} left, a round may take {tokens}"
        if left >= tokens:
            self._open()
            self._step = self._reason(self._prompt, tokens)
        elif self._policy.on_limit == "answer":
            self._answer_afresh(Outcome.TOKEN_LIMIT, reason)
        else:
            self._finish(Outcome.TOKEN_LIMIT, None, reason)

    def _reason(self, prompt: Prompt, tokens: int) -> Generate:
        return self._generate(State.REASON, Purpose.REASON, prompt, tokens, self._carry.stop(self._fmt))

    def _generate(
        self,
        state: State,
        purpose: Purpose,
        prompt: Prompt,
        tokens: int,
        stop: tuple[str, ...] = (),
        scaffold: str = "",
    ) -> Generate:
        self._state = state
        self._scaffold = scaffold
        self._alone = state is not State.REASON and not prompt.prefill
        return Generate(prompt, stop, tokens, purpose, self._k, self._call, scaffold, self._alone)

    def _go_on(self, reading: Interrupted) -> None:
        """Let the model write on behind a stop string that was only content."""
        tokens = self._round_tokens(self._k) - sum(call.completion_tokens for call in self._calls)
        if tokens < 1:
            cut = Cut(reading.thought, reading.text, reading.place)
            self._look_up(_classify(cut), cut)
        else:
            self._step = self._reason(self._behind(""), tokens)

    def _summarise(self, reading: Reading) -> None:
        """Ask for this round's summary: in a call of its own, or by letting the same round go on."""
        gamma = self._policy.gamma
        self._thought = reading.thought
        prompt = self._carry.summarise(self._fmt, self.problem, self._memory, reading.thought, gamma)
        if prompt is not None:
            self._force(reading, State.SUMMARY, Purpose.SUMMARISE, prompt)
            return
        scaffold = self._fmt.scaffold(reading.place if isinstance(reading, Cut) else Place.THOUGHT, answer=False)
        self._force(reading, State.SUMMARY, Purpose.FORCED_SUMMARY, self._behind(scaffold), scaffold)

    def _answer(self, reading: Reading) -> None:
        """Make this round answer. Behind an unfinished summary, the answer has a round of its own."""
        place = reading.place if isinstance(reading, Cut) else Place.THOUGHT
        outcome = (Outcome.TRUNCATED, _explain(reading))
        if place is Place.SUMMARY:
            self._close(reading)
            self._answer_afresh(*outcome)
            return
        self._limit, self._thought = outcome, reading.thought
        if not self._prompt.prefill:
            text = reading.thought or getattr(reading, "text", "")
            self._force(reading, State.ANSWER, Purpose.FORCED_ANSWER, prompts.answer_now(self._prompt, text))
            return
        scaffold = self._fmt.scaffold(place, answer=True)
        self._force(reading, State.ANSWER, Purpose.FORCED_ANSWER, self._behind(scaffold), scaffold)

    def _answer_afresh(self, outcome: Outcome, reason: str) -> None:
        """Make the model answer from what is remembered, in one more round with an empty thought."""
        self._limit = (outcome, reason)
        self._open()
        nothing = Cut("", "", Place.THOUGHT)
        if not self._prompt.prefill:
            self._force(nothing, State.ANSWER, Purpose.FORCED_ANSWER, prompts.answer_now(self._prompt, ""))
            return
        scaffold = self._fmt.scaffold(Place.THOUGHT, answer=True)
        self._force(nothing, State.ANSWER, Purpose.FORCED_ANSWER, self._behind(scaffold), scaffold)

    def _force(self, reading: Reading, state: State, purpose: Purpose, prompt: Prompt, scaffold: str = "") -> None:
        """Ask for at most ``gamma`` tokens more, if the budget has any."""
        left = self._left()
        if left < 1:
            self._end(Outcome.TOKEN_LIMIT, reading, f"budget of {self._policy.budget} tokens is used up")
            return
        tokens = min(self._policy.gamma, left)
        self._step = self._generate(
            state, purpose, prompt, tokens, self._fmt.stop if state is State.SUMMARY else (), scaffold
        )

    def _behind(self, scaffold: str) -> Prompt:
        """Return the round's prompt with all that was written since, and ``scaffold`` behind it."""
        parts = list(self._prompt.prefill)
        for before, completion in self._texts:
            parts += [structure(before)] if before else []
            # Where a stop string ended the text, the last token may reach beyond it: then the text counts.
            ids = completion.token_ids if completion.stop is Stop.LENGTH else None
            parts.append(Part(PartKind.CONTENT, completion.text, ids))
        parts += [structure(scaffold)] if scaffold else []
        return Prompt(self._prompt.turns, tuple(parts))

    # -- ends --

    def _end(self, outcome: Outcome, reading: Reading, reason: str) -> None:
        """Put the last round on record and finish."""
        if self._calls:
            unread = outcome is Outcome.FAILED or not isinstance(reading, Summary | Conclusion)
            summary = reading.text if isinstance(reading, Summary) and not unread else None
            raw = self._text() if unread else None
            self._rounds.append(Round(self._k, reading.thought, summary, tuple(self._calls), raw))
        self._finish(outcome, reading.text if isinstance(reading, Conclusion) else None, reason)

    def _finish(self, outcome: Outcome, conclusion: str | None, reason: str) -> None:
        self._state = State.DONE
        answered = outcome is Outcome.ANSWERED
        self._step = Done(
            Trajectory(
                problem=self.problem,
                outcome=outcome,
                rounds=tuple(self._rounds),
                conclusion=conclusion if answered else None,
                sample=self._sample,
                reason=None if answered else reason,
            )
        )

    # -- small facts --

    def _left(self) -> int:
        return _NO_LIMIT if self._policy.budget is None else self._policy.budget - self.spent

    def _round_tokens(self, k: int) -> int:
        return self._carry.round_tokens(self._policy, f"{self.problem.id}/{self._sample}", k, self._memory)

    def _round_limit(self) -> str:
        return f"no conclusion within {self._carry.rounds(self._policy)} rounds"

    def _text(self) -> str:
        return "".join(scaffold + completion.text for scaffold, completion in self._texts)

    def _token_ids(self) -> tuple[int, ...]:
        ids: list[int] = []
        for _, completion in self._texts:
            if completion.token_ids is None:
                raise ProtocolError(f"the carry {self._carry.name!r} needs token ids, and the completion has none")
            ids += completion.token_ids
        return tuple(ids)


_WRITTEN = Format(thought="written")
_NO_LIMIT = sys.maxsize


def _classify(reading: Reading) -> Read:
    """Name a reading as the table does."""
    match reading:
        case Cut(_, _, place):
            return Read.CUT_CONCLUSION if place is Place.CONCLUSION else Read.CUT
        case Summary():
            return Read.SUMMARY
        case Conclusion():
            return Read.CONCLUSION
        case Interrupted():
            return Read.INTERRUPTED
        case _:
            return Read.MALFORMED


def _explain(reading: Reading) -> str:
    """Say why a trajectory ends with this reading; nothing for an answer."""
    match reading:
        case Cut(_, _, place):
            return f"cut in the {'thought' if place is Place.BETWEEN else place.value}"
        case Malformed(_, reason):
            return reason
        case _:
            return ""


def describe_table() -> str:
    """Return the transition table as Markdown."""
    lines = ["| waiting for | what came back | k < phi | k = phi |", "|---|---|---|---|"]
    for state, rows in TABLE.items():
        lines += [f"| {state.value} | {read.value} | {a.value} | {b.value} |" for read, (a, b) in rows.items()]
    return "\n".join(lines)
