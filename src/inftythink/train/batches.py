"""Which rows go into which batch, for a whole run, before it begins: pure functions of lengths and a seed.

A *micro-batch* is a list of rows that one device takes at once; a *step* of the optimizer is some of them, over all
processes and their accumulation. Since the list is made beforehand, any number of processes sees the same steps, and a
run that is resumed goes on where it was.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count, islice

from inftythink.errors import UsageError

GROUP = 64
"""Rows of like length are sought among those of so many steps."""


@dataclass(frozen=True)
class Shape:
    """How a step is made. It has ``units``, which are divided among ``parts`` micro-batches.

    A unit is a row; with a ``capacity`` it is as many rows as have room in so many tokens: laid end to end when
    ``packed``, else padded to the longest. A row that is longer is a unit of its own. ``group`` puts rows of like
    length together.
    """

    units: int
    parts: int = 1
    capacity: int = 0
    packed: bool = False
    group: bool = True


def plan(
    lengths: Sequence[int],
    sets: Sequence[tuple[int, float]],
    shape: Shape,
    *,
    epochs: float = 1.0,
    steps: int = 0,
    seed: int = 0,
) -> list[list[int]]:
    """Return the micro-batches of a run; their number is a multiple of ``shape.parts``.

    Rows are shuffled anew for each epoch. The last step is filled up with rows of one more.

    Args:
        lengths: the tokens of each row.
        sets: for each data set its number of rows, which stand together, and how often each is used an epoch.
        shape: how a step is made.
        epochs: passes over the data.
        steps: steps instead of epochs, when not 0.
        seed: of every shuffle.

    Raises ``UsageError`` when an epoch has no rows.
    """
    if not _rows(sets, 0, seed):
        raise UsageError("there are no rows to train on; see the rejects, and the weights of the data")
    made = (_units(_rows(sets, epoch, seed), lengths, shape, seed + epoch) for epoch in count())
    units: list[list[int]] = []
    if not steps:
        units = list(chain.from_iterable(islice(made, int(epochs))))
        if epochs % 1:
            begun = next(made)
            units += begun[: math.ceil(epochs % 1 * len(begun))]
        steps = math.ceil(len(units) / shape.units)
    units += islice(chain.from_iterable(made), steps * shape.units - len(units))
    return [batch for step in _cut(units, shape.units) for batch in _share(step, lengths, shape)]


def in_order(lengths: Sequence[int], shape: Shape) -> list[list[int]]:
    """Return micro-batches that hold every row once, for an evaluation; their number is a multiple of ``parts``.

    What is missing to that is filled up with ``[-1]``: row 0, to be left out of the loss.
    """
    units = _units(list(range(len(lengths))), lengths, shape, seed=0)
    size = max(1, shape.units // shape.parts)
    batches = [list(chain.from_iterable(some)) for some in _cut(units, size)]
    return batches + [[-1]] * (-len(batches) % shape.parts)


def _rows(sets: Sequence[tuple[int, float]], epoch: int, seed: int) -> list[int]:
    """Return the rows of an epoch, shuffled: each as often as its set says; a fraction is drawn anew each time."""
    draw, rows = random.Random(f"{seed}/{epoch}"), list[int]()
    for first, (size, weight) in zip(accumulate((n for n, _ in sets), initial=0), sets, strict=False):
        whole = range(first, first + size)
        rows += [*whole] * int(weight)
        rows += draw.sample(whole, round(weight % 1 * size))
    draw.shuffle(rows)
    return rows


def _units(rows: list[int], lengths: Sequence[int], shape: Shape, seed: int) -> list[list[int]]:
    """Divide an epoch's rows into units, in the order in which they are trained on."""
    if shape.packed:
        units = best_fit(rows, lengths, shape.capacity)
        random.Random(seed).shuffle(units)
        return units
    if not shape.group:
        return [[row] for row in rows] if not shape.capacity else list(_padded(rows, lengths, shape.capacity))
    mean = max(1, sum(lengths[row] for row in rows) // max(1, len(rows)))
    near = GROUP * (shape.units if not shape.capacity else max(1, shape.units * shape.capacity // mean))
    grouped = [sorted(some, key=lambda row: -lengths[row]) for some in _cut(rows, near)]
    if shape.capacity:
        units = [unit for some in grouped for unit in _padded(some, lengths, shape.capacity)]
        random.Random(seed).shuffle(units)
        return units
    steps = [step for some in grouped for step in _cut(some, shape.units)]
    random.Random(seed).shuffle(steps)
    return [[row] for step in steps for row in step]


def _padded(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> Iterator[list[int]]:
    """Take rows as they come while they, padded to the longest, have room."""
    unit, longest = list[int](), 0
    for row in rows:
        longest = max(longest, lengths[row])
        if unit and longest * (len(unit) + 1) > capacity:
            yield unit
            unit, longest = [], lengths[row]
        unit.append(row)
    if unit:
        yield unit


def best_fit(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put rows, longest first, each into the pack where it leaves the least room (best-fit decreasing)."""
    packs: list[list[int]] = []
    room: dict[int, list[int]] = {}  # tokens left -> packs
    sizes: list[int] = []  # the keys of room, in order
    for row in sorted(rows, key=lambda row: -lengths[row]):
        at = bisect_left(sizes, lengths[row])
        if at == len(sizes):
            left, pack = capacity, len(packs)
            packs.append([])
        else:
            left = sizes[at]
            pack = room[left].pop()
            if not room[left]:
                del room[left], sizes[at]
        packs[pack].append(row)
        left -= lengths[row]
        if left not in room and left > 0:
            insort(sizes, left)
        if left > 0:
            room.setdefault(left, []).append(pack)
    return packs


def _share(step: list[list[int]], lengths: Sequence[int], shape: Shape) -> Iterator[list[int]]:
    """Divide a step's units among its micro-batches; rows that are padded stand by those of like length."""
    if not shape.capacity:
        step = sorted(step, key=lambda unit: -lengths[unit[0]])
    return (list(chain.from_iterable(some)) for some in _cut(step, len(step) // shape.parts))


def _cut(items: list[list[int]] | list[int], size: int) -> Iterator[list]:  # type: ignore[type-arg]
    return (items[start : start + size] for start in range(0, len(items), size))
