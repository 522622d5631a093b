"""From questions to what is learnt from: groups of graded trajectories, and a training row for every round.

A row is what the sampler saw and drew, id for id: nothing is rendered or tokenized again. The ids that the protocol put
between two calls of a round (the scaffold of a forced summary or answer) are in the row, but no loss falls on them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from inftythink.errors import BackendError, InputError, UsageError
from inftythink.grade.pool import GradePool
from inftythink.protocol import Outcome, Trajectory
from inftythink.reasoner import Reasoner
from inftythink.store import read_json_lines, read_trajectories
from inftythink.tasks.base import Item
from inftythink.train.advantage import Advantage, advantages, has_spread

Grading = Callable[[Item, "str | None"], "Future[dict[str, Any]]"]
"""Grades the conclusion to a question, maybe in another process; the result is the ``grade`` of a trajectory."""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A round as a training row.

    ``completion_ids``, ``sampled`` and ``logprobs`` have one length: the ids, whether each was drawn from the model,
    and its log-probability under the sampler (0 where it was not drawn). ``advantage`` is that of the trajectory.
    """

    id: str
    sample: int
    k: int
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    advantage: float

    @property
    def length(self) -> int:
        """All tokens."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def tokens(self) -> int:
        """Tokens that were drawn."""
        return sum(self.sampled)


@dataclass(frozen=True, slots=True)
class Group:
    """The trajectories of one question, with what they are worth (None: nothing is known, nothing is learnt)."""

    trajectories: tuple[Trajectory, ...]
    rewards: tuple[float | None, ...]
    advantages: tuple[float | None, ...]

    @property
    def spread(self) -> bool:
        """Whether the rewards differ, so that there is something to learn."""
        return has_spread(self.rewards)

    def rows(self) -> Iterator[RoundRow]:
        """Yield the rows of all rounds of all trajectories that have an advantage."""
        for trajectory, advantage in zip(self.trajectories, self.advantages, strict=True):
            if advantage is not None:
                yield from rows_of(trajectory, advantage)


def make_group(
    trajectories: Sequence[Trajectory], reward: Callable[[Trajectory], float | None], how: Advantage
) -> Group:
    """Return the group of one question's graded trajectories."""
    rewards = tuple(reward(trajectory) for trajectory in trajectories)
    found = advantages(rewards, [len(trajectory.rounds) for trajectory in trajectories], how)
    return Group(tuple(trajectories), rewards, tuple(found))


def rows_of(trajectory: Trajectory, advantage: float) -> Iterator[RoundRow]:
    """Yield a row for each round. A call whose prompt does not go on where the one before ended begins a row.

    Raises ``BackendError`` when the sampler did not tell ids and log-probabilities.
    """
    for this in trajectory.rounds:
        begun: list[_Begun] = []
        for call in this.calls:
            if not call.completion_tokens and call.token_ids is None:
                continue  # the window had no room for this call: nothing was drawn
            if call.prompt_ids is None or call.token_ids is None or call.logprobs is None:
                raise BackendError(
                    "the sampler told no token ids or log-probabilities, which training needs; use one that does"
                )
            seen = begun[-1].seen if begun else None
            if seen is None or call.prompt_ids[: len(seen)] != seen:
                begun.append(_Begun(call.prompt_ids))
                seen = call.prompt_ids
            begun[-1].add(call.prompt_ids[len(seen) :], call.token_ids, call.logprobs)
        for row in begun:
            if any(row.sampled):
                values = tuple(row.ids), tuple(row.sampled), tuple(row.logprobs)
                yield RoundRow(trajectory.problem.id, trajectory.sample, this.k, row.prompt, *values, advantage)


@dataclass
class _Begun:
    """A row that calls are still added to."""

    prompt: tuple[int, ...]
    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def seen(self) -> tuple[int, ...]:
        """All its ids."""
        return (*self.prompt, *self.ids)

    def add(self, scaffold: Sequence[int], drawn: Sequence[int], logprobs: Sequence[float]) -> None:
        """Go on with ids that were not drawn, then with those that were."""
        self.ids += [*scaffold, *drawn]
        self.sampled += [False] * len(scaffold) + [True] * len(drawn)
        self.logprobs += [0.0] * len(scaffold) + list(logprobs)


class Questions:
    """Which questions a step asks: a function of the seed and the step alone, so that a resumed run asks the same.

    An epoch is a new order of all questions; what is left at its end for less than a step is left out. Raises
    ``UsageError`` when there are fewer questions than a step asks.
    """

    def __init__(self, items: Sequence[Item], number: int, seed: int) -> None:
        if len(items) < number:
            raise UsageError(f"a step asks {number} questions, but there are {len(items)}: set group.questions lower")
        self._items, self._number, self._seed = items, number, seed

    def of(self, step: int) -> list[Item]:
        """Return the questions of a step, counted from 0."""
        epoch, place = divmod(step, len(self._items) // self._number)
        order = random.Random(f"{self._seed}/{epoch}").sample(range(len(self._items)), len(self._items))
        return [self._items[i] for i in order[place * self._number :][: self._number]]

    def others(self, step: int, attempt: int, number: int, asked: Iterable[Item]) -> list[Item]:
        """Return questions to ask instead of ``number`` others: as many as are left of those not ``asked`` yet."""
        known = {item.problem.id for item in asked}
        left = [item for item in self._items if item.problem.id not in known]
        return random.Random(f"{self._seed}/{step}/{attempt}").sample(left, min(number, len(left)))


async def sample(reasoner: Reasoner, items: Sequence[Item], samples: int, grading: Grading) -> list[list[Trajectory]]:
    """Return the graded trajectories of each question, in order. The reasoner is started already.

    No trajectory waits for another; grading goes on beside.
    """
    known = {item.problem.id: item for item in items}
    done: list[tuple[Trajectory, Future[dict[str, Any]]]] = []
    runs = reasoner.run((item.problem for item in items), samples)
    async with aclosing(cast(Any, runs)) as found:
        async for trajectory in found:
            if trajectory.outcome is Outcome.ANSWERED:
                done.append((trajectory, grading(known[trajectory.problem.id], trajectory.conclusion)))
            else:
                done.append((trajectory, _verdict(trajectory)))
    graded: dict[tuple[str, int], Trajectory] = {}
    for trajectory, future in done:
        grade = await asyncio.wrap_future(future)
        graded[trajectory.problem.id, trajectory.sample] = dataclasses.replace(trajectory, grade=grade)
    return [[graded[item.problem.id, number] for number in range(samples)] for item in items]


def grade_here(item: Item, conclusion: str | None) -> Future[dict[str, Any]]:
    """Grade in this process: a grader that hangs is not stopped."""
    future: Future[dict[str, Any]] = Future()
    future.set_result(item.grader(item.ask(conclusion)).to_json())
    return future


def grade_in(pool: GradePool) -> Grading:
    """Return a way to grade in processes that are stopped when they hang."""

    def grade(item: Item, conclusion: str | None) -> Future[dict[str, Any]]:
        told: Future[dict[str, Any]] = Future()
        verdict = pool.submit(item.grader, item.ask(conclusion))
        verdict.add_done_callback(lambda done: told.set_result(done.result().to_json()))
        return told

    return grade


def _verdict(trajectory: Trajectory) -> Future[dict[str, Any]]:
    """Return the grade of what is no answer: wrong, and of a failed trajectory none."""
    failed = trajectory.outcome is Outcome.FAILED
    reason = f"failed: {trajectory.reason}" if failed else trajectory.outcome.value
    future: Future[dict[str, Any]] = Future()
    future.set_result({"correct": None if failed else False, "extracted": None, "reason": reason})
    return future


def figures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return accuracy, rounds, tokens and the shares of outcomes; FAILED and what has no verdict are counted beside."""
    known = [t for t in trajectories if t.grade is not None and t.grade["correct"] is not None]
    outcomes = Counter(t.outcome for t in known)
    number = max(1, len(known))
    sums = [t.totals for t in known]
    return {
        "accuracy": sum(bool(t.grade and t.grade["correct"]) for t in known) / number,
        "rounds": sum(each["rounds"] for each in sums) / number,
        "tokens": sum(each["completion_tokens"] for each in sums) / number,
        **{
            f"share_{outcome.value}": outcomes[outcome] / number for outcome in Outcome if outcome is not Outcome.FAILED
        },
        "left_out": float(len(trajectories) - len(known)),
    }


def save_trajectories(folder: Path, items: Iterable[Item], trajectories: Iterable[Trajectory]) -> None:
    """Write ``problems.jsonl`` and ``trajectories.jsonl``: the folder is one that ``inftythink report`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = (
        {"id": p.id, "task": p.id.partition("/")[0], "group": item.group, "problem": p.question, "answer": p.answer}
        for item in items
        for p in [item.problem]
    )
    _write_lines(folder / "problems.jsonl", problems)
    _write_lines(folder / "trajectories.jsonl", (trajectory.to_json() for trajectory in trajectories))


def save_groups(folder: Path, groups: Iterable[Group]) -> None:
    """Write ``rewards.jsonl``: what each trajectory was worth."""
    rows = (
        {"id": t.problem.id, "sample": t.sample, "reward": reward, "advantage": advantage}
        for group in groups
        for t, reward, advantage in zip(group.trajectories, group.rewards, group.advantages, strict=True)
    )
    _write_lines(folder / "rewards.jsonl", rows)


def read_rows(run: Path) -> Iterator[RoundRow]:
    """Yield the rows of a folder that ``save_trajectories`` and ``save_groups`` wrote: those of every advantage.

    Raises ``InputError`` for a run that nobody rewarded, ``BackendError`` as ``rows_of`` does.
    """
    if not (run / "rewards.jsonl").is_file():
        raise InputError(
            f"{run}: there is no rewards.jsonl. Rows come from what 'inftythink rl' sampled (its rollouts/…); "
            "an evaluation has no rewards of groups, and does not ask for log-probabilities"
        )
    worth = {(line["id"], line["sample"]): line["advantage"] for line in read_json_lines(run / "rewards.jsonl")}
    for trajectory in read_trajectories(run):
        advantage = worth.get((trajectory.problem.id, trajectory.sample))
        if advantage is not None:
            yield from rows_of(trajectory, advantage)


def save_rows(path: Path, rows: Iterable[RoundRow]) -> None:
    """Write training rows for another trainer, as JSON lines or, by the name of the file, as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [{each.name: getattr(row, each.name) for each in dataclasses.fields(row)} for row in rows]
    if path.suffix == ".jsonl":
        _write_lines(path, data)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("sample", pa.int32()),
            ("k", pa.int32()),
            ("prompt_ids", pa.list_(pa.int32())),
            ("completion_ids", pa.list_(pa.int32())),
            ("sampled", pa.list_(pa.bool_())),
            ("logprobs", pa.list_(pa.float32())),
            ("advantage", pa.float64()),
        ]
    )
    part = path.with_name(path.name + ".part")
    pq.write_table(pa.Table.from_pylist(data, schema), part)
    part.replace(path)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.replace(path)
