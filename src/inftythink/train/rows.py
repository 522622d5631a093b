"""From converted data to token ids and labels: one way for every carry, and the ids are those of inference.

A record of ``instances/`` (or of ``segments/``) becomes exchanges of the protocol, and an exchange becomes a row in one
function, ``encode``. The loss falls on what the model itself has to write, and on nothing else.

===========  ================================================================================
carry        rows
===========  ================================================================================
``summary``  one a record: question and history -> thought and summary, or conclusion
``none``     one a trace: question -> whole thought and conclusion (the vanilla baseline)
``tail``     one a chunk of the whole thought: question, its head and its last tokens -> more
===========  ================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast

from inftythink.errors import InputError
from inftythink.protocol import (
    Call,
    Exchange,
    Format,
    Outcome,
    Policy,
    Problem,
    Purpose,
    Round,
    Stop,
    Trajectory,
    exchanges,
    make_carry,
    make_format,
)
from inftythink.protocol.carry import Memory, TailCarry
from inftythink.protocol.types import Role
from inftythink.render import Renderer

CarryName = Literal["summary", "tail", "none"]


@dataclass(frozen=True, slots=True)
class Row:
    """A training row. ``labels`` has the id where the loss falls and -100 elsewhere; both have one length."""

    id: str
    k: int
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record, or a row of it, that is not trained on, and why."""

    id: str
    k: int
    reason: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return a line of ``rejects.jsonl``."""
        return {"id": self.id, "round": self.k, "stage": "sft", "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Trace:
    """A problem with its whole thought: what the carries ``none`` and ``tail`` are made from."""

    problem: Problem
    thought: str
    conclusion: str


def encode(exchange: Exchange, renderer: Renderer, identity: str) -> Row:
    """Return an exchange as token ids and labels: the ids that inference sends, then those that it would return."""
    instance = renderer.instance(exchange)
    return Row(identity, exchange.k, instance.input_ids, instance.labels())


def rows_of(
    records: Iterable[dict[str, Any]],
    renderer: Renderer,
    carry: CarryName,
    *,
    eta: int,
    max_length: int,
    instruction: str = "",
) -> Iterator[Row | Rejected]:
    """Yield the rows of one shard's records, in their order; a trace's records stand together.

    ``eta`` is the length of a round of ``tail`` in tokens; ``instruction`` stands behind the questions of ``segments/``
    (those of ``instances/`` have theirs). Rows longer than ``max_length`` are rejected, never cut.
    """
    fmt = make_format(carry)
    if carry == "summary":
        found = (_encoded(record["id"], record["round"], _exchange(record, fmt), renderer) for record in records)
        yield from (_fitting(row, max_length) for row in found)
        return
    for trace in traces(records, fmt, instruction):
        if isinstance(trace, Rejected):
            yield trace
            continue
        try:
            for exchange in chunks(trace, renderer, fmt, eta if carry == "tail" else None):
                yield _fitting(encode(exchange, renderer, trace.problem.id), max_length)
        except InputError as error:
            yield Rejected(trace.problem.id, 0, "not_rendered", str(error))


def _encoded(identity: str, k: int, exchange: Exchange, renderer: Renderer) -> Row | Rejected:
    try:
        return encode(exchange, renderer, identity)
    except InputError as error:
        return Rejected(identity, k, "not_rendered", str(error))


def _fitting(row: Row | Rejected, max_length: int) -> Row | Rejected:
    if isinstance(row, Row) and len(row.input_ids) > max_length:
        detail = f"{len(row.input_ids)} tokens, the window has {max_length}"
        return Rejected(row.id, row.k, "too_long", detail)
    return row


def _exchange(record: dict[str, Any], fmt: Format) -> Exchange:
    """Return a record of ``instances/`` as the round that it was formed from."""
    prompt = make_carry("summary", Policy()).open(fmt, _problem(record, fmt), Memory(summary=record["history"]))
    target = fmt.targets(record["thought"], summary=record["summary"], conclusion=record["conclusion"] or "")
    return Exchange(record["round"], prompt, target, ended=True)


def _problem(record: dict[str, Any], fmt: Format) -> Problem:
    """Return the problem as the record asks it: with the turns before it, and the instruction behind it."""
    *before, question, _ = record["messages"]
    context = tuple((cast(Role, turn["role"]), fmt.tags.unescape(turn["content"])) for turn in before)
    return Problem(record["id"], fmt.tags.unescape(question["content"]), context=context)


def traces(records: Iterable[dict[str, Any]], fmt: Format, instruction: str = "") -> Iterator[Trace | Rejected]:
    """Join the rounds of each trace again (records of ``instances/``), or its segments (records of ``segments/``).

    Between the segments of instances stands one blank line: they were stripped. A trace of which rounds are missing is
    rejected.
    """
    for identity, group in groupby(records, key=lambda record: record["id"]):
        rounds = list(group)
        first = rounds[0]
        if "segments" in first:
            context = tuple((turn[0], turn[1]) for turn in json.loads(first["context"] or "[]"))
            question = f"{first['problem']}\n\n{instruction}" if instruction else first["problem"]
            problem = Problem(identity, question, context=context)
            yield Trace(problem, "".join(first["segments"]).strip(), first["conclusion"])
        elif [record["round"] for record in rounds] != list(range(1, first["rounds"] + 1)):
            yield Rejected(identity, 0, "incomplete", f"{len(rounds)} of {first['rounds']} rounds are here")
        else:
            thought = "\n\n".join(record["thought"] for record in rounds)
            yield Trace(_problem(first, fmt), thought, rounds[-1]["conclusion"])


def chunks(trace: Trace, renderer: Renderer, fmt: Format, eta: int | None) -> Iterator[Exchange]:
    """Yield a trace's rounds: one, or with ``eta`` the chunks of Delethink.

    A chunk ends where inference would cut it: at its limit of tokens, while the thought is open. So a conclusion stays
    in its chunk; the tag that closes the thought is not cut either, since no reader could put it together again.
    """
    targets = fmt.targets(trace.thought, conclusion=trace.conclusion)
    whole = Exchange(1, fmt.open(trace.problem), targets, ended=True)
    if eta is None:
        yield whole
        return
    carry, policy = make_carry("tail", Policy(eta=eta)), Policy(eta=eta)
    assert isinstance(carry, TailCarry)
    ids = tuple(renderer.instance(whole).completion_ids)
    thought = len(renderer.instance(Exchange(1, whole.prompt, targets[:1], ended=False)).completion_ids)
    rounds: list[Round] = []
    memory, start = Memory(), 0
    while True:
        size = carry.round_tokens(policy, trace.problem.id, len(rounds) + 1, memory)
        last = thought - start < size
        part = ids[start:] if last else ids[start : start + size]
        call = Call(Purpose.REASON, Stop.STOP if last else Stop.LENGTH, token_ids=part)
        rounds.append(Round(len(rounds) + 1, "", calls=(call,)))
        if last:
            break
        memory, start = carry.remember(memory, None, part), start + size
    yield from exchanges(Trajectory(trace.problem, Outcome.ANSWERED, tuple(rounds)), fmt, carry)
