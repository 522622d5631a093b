"""What crosses a round boundary: the strategy seam, and its four strategies.

===========  ==========================================================================  =====================
carry        what the next round sees besides the question                               needs of a backend
===========  ==========================================================================  =====================
``summary``  the summary that the model wrote (InftyThink)                               prefill
``tail``     the first ``head`` and the last ``tail`` tokens of thought (Delethink)      prefill, token ids
``none``     nothing: one round (vanilla), the baseline                                  nothing
``two_call`` the summary that a second call wrote; for chat models without training      nothing
===========  ==========================================================================  =====================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from inftythink.errors import ProtocolError
from inftythink.protocol import prompts
from inftythink.protocol.format import Format
from inftythink.protocol.policy import Policy
from inftythink.protocol.types import Part, PartKind, Problem, Prompt

OnCut = Literal["carry", "summarise", "stop"]
"""What a round cut inside its thought leads to: the next round, a summary of this one, or the end."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What has been carried so far. ``head`` and ``tail`` are token ids of thought."""

    summary: str | None = None
    head: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()


class Carry(Protocol):
    """A strategy for the round boundary. Pure: everything it knows is in its arguments."""

    @property
    def name(self) -> str:
        """The word for it in settings."""
        ...

    @property
    def needs_prefill(self) -> bool:
        """Whether prompts begin the model's turn."""
        ...

    @property
    def needs_token_ids(self) -> bool:
        """Whether prompts hold ids that the model generated."""
        ...

    def stop(self, fmt: Format) -> tuple[str, ...]:
        """Return the strings that end a round besides the end-of-sequence token."""
        ...

    def open(self, fmt: Format, problem: Problem, memory: Memory) -> Prompt:
        """Return the prompt of a round."""
        ...

    def round_tokens(self, policy: Policy, identity: str, k: int, memory: Memory) -> int:
        """Return the most tokens that the reasoning call of round ``k`` may generate."""
        ...

    def rounds(self, policy: Policy) -> int:
        """Return the most rounds."""
        ...

    def on_cut(self, policy: Policy) -> OnCut:
        """Say what a thought that was cut leads to while rounds are left."""
        ...

    def remember(self, memory: Memory, summary: str | None, ids: tuple[int, ...]) -> Memory:
        """Return the memory after a round that wrote ``summary`` (or none) and generated ``ids``."""
        ...

    def summarise(self, fmt: Format, problem: Problem, memory: Memory, thought: str, gamma: int) -> Prompt | None:
        """Return the prompt of a summarising call of its own, or None when the same round goes on instead."""
        ...


@dataclass(frozen=True, slots=True)
class SummaryCarry:
    """InftyThink: the model itself writes what it needs to know."""

    name: str = "summary"
    needs_prefill: bool = True
    needs_token_ids: bool = False

    def stop(self, fmt: Format) -> tuple[str, ...]:
        """The end of the summary."""
        return fmt.stop

    def open(self, fmt: Format, problem: Problem, memory: Memory) -> Prompt:
        """Question, and the history behind it."""
        return fmt.open(problem, memory.summary)

    def round_tokens(self, policy: Policy, identity: str, k: int, memory: Memory) -> int:
        """Thought and summary share ``eta + gamma``, unless an interval cuts the thought."""
        return policy.round_tokens(identity, k)

    def rounds(self, policy: Policy) -> int:
        """As the policy says: ``phi``."""
        return policy.phi

    def on_cut(self, policy: Policy) -> OnCut:
        """As the policy says; an interval exists to cut, so that it always summarises."""
        return "summarise" if policy.interval is not None else policy.on_cut

    def remember(self, memory: Memory, summary: str | None, ids: tuple[int, ...]) -> Memory:
        """Keep the newest summary only: it was written from the one before."""
        return Memory(summary=summary)

    def summarise(self, fmt: Format, problem: Problem, memory: Memory, thought: str, gamma: int) -> Prompt | None:
        """The same round goes on."""
        return None


@dataclass(frozen=True, slots=True)
class TailCarry(SummaryCarry):
    """Delethink (The Markovian Thinker, section 3): fixed chunks, no summary.

    The first chunk has ``eta`` tokens; each later one is opened with ``head + tail`` tokens of the thought before it
    and adds ``eta - head - tail``, so that the context stays within question + ``eta``.
    """

    head: int = 100
    tail: int = 2048
    name: str = "tail"
    needs_prefill: bool = True
    needs_token_ids: bool = True

    def stop(self, fmt: Format) -> tuple[str, ...]:
        """No summary is waited for."""
        return ()

    def open(self, fmt: Format, problem: Problem, memory: Memory) -> Prompt:
        """Question, and an opened thought with what was carried."""
        kept = memory.head + memory.tail
        return fmt.open(problem, thought=(Part(PartKind.CONTENT, ids=kept),) if kept else ())

    def round_tokens(self, policy: Policy, identity: str, k: int, memory: Memory) -> int:
        """``eta`` less what was carried."""
        return policy.eta - len(memory.head) - len(memory.tail)

    def on_cut(self, policy: Policy) -> OnCut:
        """A full chunk is the normal case."""
        return "carry"

    def remember(self, memory: Memory, summary: str | None, ids: tuple[int, ...]) -> Memory:
        """Keep the first ``head`` tokens of the first chunk and the last ``tail`` of all since."""
        head = memory.head or ids[: self.head]
        rest = memory.tail + ids if memory.head or not self.head else ids[self.head :]
        return Memory(head=head, tail=rest[len(rest) - min(self.tail, len(rest)) :])


@dataclass(frozen=True, slots=True)
class NoCarry(SummaryCarry):
    """Vanilla reasoning: one round, the baseline of every comparison. ``eta`` is then the whole thought's limit."""

    name: str = "none"
    needs_prefill: bool = False

    def stop(self, fmt: Format) -> tuple[str, ...]:
        """No summary is waited for."""
        return ()

    def rounds(self, policy: Policy) -> int:
        """One."""
        return 1

    def remember(self, memory: Memory, summary: str | None, ids: tuple[int, ...]) -> Memory:
        """Nothing is carried."""
        return Memory()


@dataclass(frozen=True, slots=True)
class TwoCallCarry(SummaryCarry):
    """For chat models that never saw the format: a reasoning call, then a call that summarises it.

    The second call may go to another model (``Purpose.SUMMARISE`` tells). A reply that ended by itself is the
    conclusion; one that was cut is a thought.
    """

    name: str = "two_call"
    needs_prefill: bool = False

    def open(self, fmt: Format, problem: Problem, memory: Memory) -> Prompt:
        """Question, and notes of earlier rounds, in plain language."""
        return prompts.proceed(fmt.ask(problem, escape=False), memory.summary)

    def round_tokens(self, policy: Policy, identity: str, k: int, memory: Memory) -> int:
        """The summary is a call of its own, so that a round is its thought alone."""
        return policy.eta if policy.interval is None else policy.round_tokens(identity, k)

    def on_cut(self, policy: Policy) -> OnCut:
        """Being cut is the only way a chat model gets to a summary."""
        return "summarise"

    def summarise(self, fmt: Format, problem: Problem, memory: Memory, thought: str, gamma: int) -> Prompt | None:
        """Ask for the summary of this round's thought."""
        return prompts.summarise(fmt.ask(problem, escape=False), memory.summary, thought, gamma)


CARRIES = ("summary", "tail", "none", "two_call")


def make_carry(name: str, policy: Policy) -> Carry:
    """Return the carry called ``name``. ``tail`` keeps half of ``eta``, and up to 100 tokens of the beginning.

    Raises ``ProtocolError`` for another name.
    """
    if name == "tail":
        return TailCarry(head=min(100, policy.eta // 8), tail=policy.eta // 2)
    plain: dict[str, Carry] = {"summary": SummaryCarry(), "none": NoCarry(), "two_call": TwoCallCarry()}
    if name not in plain:
        raise ProtocolError(f"there is no carry {name!r}; there are {', '.join(CARRIES)}")
    return plain[name]


def make_format(carry: str, instruction: str = "", prefill: bool = True) -> Format:
    """Return the format that suits a carry by name: opened thoughts where the prompt may begin the model's turn."""
    opened = prefill and carry != "two_call"
    return Format(thought="opened" if opened else "written", instruction=instruction)
