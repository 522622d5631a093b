"""A trajectory as training rows: one exchange a round, with the prompt that inference gave (or would give)."""

from __future__ import annotations

from collections.abc import Iterator

from inftythink.errors import ProtocolError
from inftythink.protocol.carry import Carry, Memory
from inftythink.protocol.format import Format, content, structure
from inftythink.protocol.types import Exchange, Part, PartKind, Purpose, Round, Stop, Target, Trajectory


def exchanges(trajectory: Trajectory, fmt: Format, carry: Carry) -> Iterator[Exchange]:
    """Yield a training row for each round of ``trajectory``.

    Where every call of a round brought its sampled token ids they are used word for word, with the scaffold of forced
    summaries and answers between them marked as not sampled. Otherwise the row is written from the texts, as a
    teacher's are; so a trajectory of ``two_call`` becomes rows of the ``summary`` format.

    Raises ``ProtocolError`` for the carry ``two_call``, which has no training format, and for ``tail`` without ids.
    """
    if carry.name == "two_call":
        raise ProtocolError("two_call has no training format; use the carry 'summary' for its trajectories")
    memory = Memory()
    for number, this in enumerate(trajectory.rounds, 1):
        ids = _sampled_ids(this)
        if carry.needs_token_ids and ids is None:
            raise ProtocolError(
                f"round {this.k} of {trajectory.problem.id!r} has no token ids; the carry 'tail' needs them"
            )
        prompt = carry.open(fmt, trajectory.problem, memory)
        conclusion = trajectory.conclusion if number == len(trajectory.rounds) else None
        targets = _from_text(this, conclusion, fmt) if ids is None else _from_ids(this)
        yield Exchange(this.k, prompt, targets, this.stop is Stop.STOP)
        memory = carry.remember(memory, this.summary, ids or ())


def _sampled_ids(this: Round) -> tuple[int, ...] | None:
    """Return the ids of the round's calls in a row; None when one lacks them or was a call of its own."""
    ids: list[int] = []
    for call in this.calls:
        if call.token_ids is None or call.purpose is Purpose.SUMMARISE:
            return None
        ids += call.token_ids
    return tuple(ids)


def _from_ids(this: Round) -> tuple[Target, ...]:
    targets: list[Target] = []
    for call in this.calls:
        targets += [Target(structure(call.scaffold), sampled=False)] if call.scaffold else []
        targets.append(Target(Part(PartKind.CONTENT, ids=call.token_ids)))
    return tuple(targets)


def _from_text(this: Round, conclusion: str | None, fmt: Format) -> tuple[Target, ...]:
    forced = any(call.scaffold for call in this.calls)
    if this.summary is not None and this.raw is None:
        return fmt.targets(this.thought, summary=this.summary, forced=forced)
    if conclusion is not None:
        return fmt.targets(this.thought, conclusion=conclusion, forced=forced)
    return (Target(content(this.thought if this.raw is None else this.raw)),)
