r"""The one place that knows the delimiters: opens a round, reads what came back, writes what a teacher said.

A round as plain text (``docs/protocol.md`` has the whole picture)::

    [question's turn, and the template's opening of the assistant's turn]
    <history>            rounds after the first only
    s                    the summary carried
    </history>
    <think>              <- the prompt ends behind this line break
    r
    </think>

    <summary>            another round follows ...     | ... or the conclusion, and the model ends its turn
    s'
    </summary>

(InftyThink, section 3.1; InftyThink+ adds the tags as special tokens, which a renderer does by itself when the
tokenizer has them.) Whatever comes from outside is escaped (``Tags.escape``), so that it can be no tag.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from inftythink.protocol.stream import Event, Kind, Place, Reader, Tags
from inftythink.protocol.types import Completion, Part, PartKind, Problem, Prompt, Stop, Target, Turn


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The round concluded: the problem is answered."""

    thought: str
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The round wrote a summary: another round is asked for."""

    thought: str
    text: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The limit of tokens came first. ``place`` says in what; ``text`` is the unfinished summary or conclusion."""

    thought: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A stop string ended the text where it is only content: the same round has to go on. Fields as in ``Cut``."""

    thought: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Malformed:
    """The model ended by itself, and what it wrote is neither a summary nor a conclusion."""

    thought: str
    reason: str


Reading = Conclusion | Summary | Cut | Interrupted | Malformed

_UNFINISHED = {
    Place.OPEN: "empty completion",
    Place.THOUGHT: "thought not closed",
    Place.BETWEEN: "empty conclusion",
    Place.SUMMARY: "summary not closed",
}


def structure(text: str) -> Part:
    """Return a part that the protocol wrote."""
    return Part(PartKind.STRUCTURE, text)


def content(text: str) -> Part:
    """Return a part that came from outside, as it is."""
    return Part(PartKind.CONTENT, text)


@dataclass(frozen=True, slots=True)
class Format:
    """How rounds look. Immutable; one value serves every problem.

    ``thought`` is ``"opened"`` when the prompt ends inside an opened thought (trained models), ``"written"`` when the
    model opens it itself, or has none (chat models, and servers that split the thought off). ``instruction`` follows
    the question, a blank line between.
    """

    tags: Tags = field(default_factory=Tags)
    thought: Literal["opened", "written"] = "opened"
    instruction: str = ""

    @property
    def start(self) -> Place:
        """Where a round's text begins."""
        return Place.THOUGHT if self.thought == "opened" else Place.OPEN

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end a round besides the end-of-sequence token."""
        return (f"</{self.tags.summary}>",) if self.thought == "opened" else ()

    @property
    def close_thought(self) -> str:
        """What stands between a thought and what follows it."""
        return f"\n</{self.tags.think}>\n\n"

    @property
    def open_summary(self) -> str:
        """What stands between a closed thought and a summary."""
        return f"<{self.tags.summary}>\n"

    def content(self, text: str) -> Part:
        """Return a part that came from outside and can be no tag."""
        return content(self.tags.escape(text))

    def ask(self, problem: Problem, escape: bool = True) -> tuple[Turn, ...]:
        """Return the turns up to the question. Only prompts that hold tags need their content escaped."""
        part = self.content if escape else content
        question = f"{problem.question}\n\n{self.instruction}" if self.instruction else problem.question
        turns = tuple(Turn(role, (part(text),)) for role, text in problem.context)
        return (*turns, Turn("user", (part(question),)))

    def open(self, problem: Problem, summary: str | None = None, thought: tuple[Part, ...] = ()) -> Prompt:
        """Open a round behind ``summary``; ``thought`` is what of it stands already (the ``tail`` carry)."""
        if self.thought == "written":
            return Prompt(self.ask(problem, escape=False))
        think, history = f"<{self.tags.think}>\n", self.tags.history
        if summary is None:
            return Prompt(self.ask(problem), (structure(think), *thought))
        behind = structure(f"\n</{history}>\n{think}")
        return Prompt(self.ask(problem), (structure(f"<{history}>\n"), self.content(summary), behind, *thought))

    def read(self, completions: Iterable[tuple[str, Completion]]) -> Reading:
        """Read a round: for each call the scaffold that was put before it, and what came back.

        What a chat server split off as reasoning is the thought while there can be one. Behind a thought that is closed
        (a forced summary or answer) its parser has found no end of a thought, and it is what was asked for.

        Never raises on what a model wrote. An ``ABORT`` is not for here.
        """
        reader, texts, last = Reader(self.tags, self.start), dict.fromkeys(Kind, ""), None
        for scaffold, last in completions:
            events, text = reader.feed(scaffold), last.text
            if last.reasoning is not None and reader.thinking:
                events.append(Event(Kind.THOUGHT, last.reasoning))
                reader.place = Place.BETWEEN if text.strip() or last.stop is Stop.STOP else Place.THOUGHT
            elif last.reasoning is not None:
                text = last.reasoning + text
            for event in events + reader.feed(text):
                _add(texts, event.kind, event.text)
        for event in reader.close():
            _add(texts, event.kind, event.text)
        assert last is not None
        return _judge(reader.place, texts, last)

    def scaffold(self, place: Place, answer: bool) -> str:
        """Return what to put behind a text that was cut at ``place`` so that a summary, or the answer, comes next."""
        close = self.close_thought if place is Place.THOUGHT else ""
        opens = place in (Place.THOUGHT, Place.BETWEEN) and not answer
        return close + (self.open_summary if opens else "")

    def write(self, thought: str, *, summary: str | None = None, conclusion: str = "") -> str:
        """Return a round's text as a model would have written it, from what a teacher said (``open`` to the end)."""
        return "".join(target.part.text for target in self.targets(thought, summary=summary, conclusion=conclusion))

    def targets(
        self, thought: str, *, summary: str | None = None, conclusion: str = "", forced: bool = False
    ) -> tuple[Target, ...]:
        """Return a round's text in parts, for training. ``forced``: the scaffold was not the model's own."""
        head = () if self.thought == "opened" else (Target(structure(f"<{self.tags.think}>\n")),)
        thoughts = (*head, Target(self.content(thought)))
        if summary is None:
            return (*thoughts, Target(structure(self.close_thought), not forced), Target(self.content(conclusion)))
        opening = Target(structure(self.close_thought + self.open_summary), not forced)
        return (*thoughts, opening, Target(self.content(summary)), Target(structure(f"\n</{self.tags.summary}>")))


def _add(texts: dict[Kind, str], kind: Kind, text: str) -> None:
    """Add an event to the texts read so far."""
    if kind is Kind.RECLASSIFY:
        texts[Kind.THOUGHT], texts[Kind.CONCLUSION] = texts[Kind.THOUGHT] + texts[Kind.CONCLUSION], ""
    else:
        texts[kind] += text


def _judge(place: Place, texts: dict[Kind, str], last: Completion) -> Reading:
    """Decide what a round's text is, from where it stands and how it ended."""
    thought, summary, conclusion = texts[Kind.THOUGHT], texts[Kind.SUMMARY], texts[Kind.CONCLUSION]
    if place is Place.AFTER:
        return Summary(thought, summary) if summary else Malformed(thought, "empty summary")
    if last.stop is Stop.LENGTH:
        if place in (Place.PLAIN, Place.OPEN):  # no tag was seen: all of it is thinking
            return Cut(conclusion, "", Place.THOUGHT)
        return Cut(thought, summary or conclusion, place)
    if last.stop_text is not None:
        return Interrupted(thought, conclusion, place)
    if place in _UNFINISHED:
        return Malformed(thought, _UNFINISHED[place])
    return Conclusion(thought, conclusion)
