"""Batches are planned: each row as often as asked, within the size, and the same for any number of processes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.errors import UsageError
from inftythink.train.arguments import shape_of
from inftythink.train.batches import Shape, best_fit, in_order, plan
from inftythink.train.settings import Batch

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def flat(batches):
    return [row for batch in batches for row in batch]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, units=st.integers(1, 4), parts=st.integers(1, 2), group=st.booleans(), seed=st.integers(0, 3))
def test_every_row_is_seen_once_an_epoch(lengths, units, parts, group, seed):
    shape = Shape(units * parts, parts, group=group)
    batches = plan(lengths, [(len(lengths), 1.0)], shape, epochs=2, seed=seed)
    assert all(len(batch) == units for batch in batches)
    seen = Counter(flat(batches))
    assert len(batches) % parts == 0
    assert set(seen) == set(range(len(lengths)))
    filled = len(flat(batches)) - 2 * len(lengths)
    assert 0 <= filled < units * parts
    assert sum(seen.values()) - filled == 2 * len(lengths)
    assert min(seen.values()) >= 2


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, packed=st.booleans(), group=st.booleans())
def test_batches_by_tokens_stay_within_them_padding_included(lengths, packed, group):
    shape = Shape(2, 2, capacity=50, packed=packed, group=group)
    batches = plan(lengths, [(len(lengths), 1.0)], shape, epochs=1)
    for batch in batches:
        sizes = [lengths[row] for row in batch]
        assert (sum(sizes) if packed else max(sizes) * len(sizes)) <= 50
    assert set(flat(batches)) == set(range(len(lengths)))


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS)
def test_packing_puts_every_row_into_one_pack_and_leaves_little_room(lengths):
    packs = best_fit(range(len(lengths)), lengths, 40)
    assert sorted(flat(packs)) == list(range(len(lengths)))
    fill = [sum(lengths[row] for row in pack) for pack in packs]
    assert max(fill) <= 40
    assert sum(used <= 20 for used in fill) <= 1  # two half-empty packs would have been one


def test_packing_leaves_less_room_than_rows_in_their_order():
    lengths = [7, 3, 6, 4, 9, 1, 5, 5]
    assert len(best_fit(range(8), lengths, 10)) == 4


def test_order_depends_on_the_seed_and_the_epoch_only():
    lengths, sets = [5] * 30, [(30, 1.0)]
    one = plan(lengths, sets, Shape(5), epochs=2, seed=1)
    assert one == plan(lengths, sets, Shape(5), epochs=2, seed=1)
    assert one != plan(lengths, sets, Shape(5), epochs=2, seed=2)
    assert flat(one)[:30] != flat(one)[30:]


def test_steps_may_be_told_instead_of_epochs():
    assert len(plan([5] * 7, [(7, 1.0)], Shape(4, 2), steps=10)) == 20
    assert len(plan([5] * 8, [(8, 1.0)], Shape(4, 2), epochs=1.5)) == 6


def test_a_set_is_used_as_often_as_its_weight_says():
    seen = Counter(flat(plan([5] * 20, [(10, 2.0), (10, 0.5)], Shape(1), epochs=1)))
    assert [seen[row] for row in range(10)] == [2] * 10
    assert sorted(seen[row] for row in range(10, 20)) == [0] * 5 + [1] * 5


def test_no_rows_are_an_error_that_says_so():
    with pytest.raises(UsageError, match="no rows to train on"):
        plan([], [(0, 1.0)], Shape(1))


def test_rows_of_like_length_stand_together():
    lengths = [row % 50 + 1 for row in range(400)]
    wasted = {}
    for group in (True, False):
        batches = plan(lengths, [(400, 1.0)], Shape(8, group=group))
        wasted[group] = sum(max(lengths[r] for r in b) * len(b) - sum(lengths[r] for r in b) for b in batches)
    assert wasted[True] < wasted[False] / 5


def test_an_evaluation_sees_every_row_once_and_fills_up_with_rows_that_do_not_count():
    batches = in_order([3, 4, 5], Shape(2, 2))
    assert sorted(flat(batches)) == [-1, 0, 1, 2]
    assert len(batches) == 4
    assert in_order([], Shape(2, 2)) == []


@pytest.mark.parametrize(
    ("batch", "packed", "processes", "shape"),
    [
        (Batch(rows=32, micro=4), False, 2, Shape(32, 8)),
        (Batch(rows=8), True, 4, Shape(8, 8, 1000, True)),
        (Batch(tokens=1024), False, 1, Shape(1, 1, 1024)),
        (Batch(tokens=1024), False, 2, Shape(2, 2, 512)),
        (Batch(tokens=1024, micro_tokens=256), False, 2, Shape(4, 4, 256)),
    ],
)
def test_a_step_is_divided_among_processes(batch, packed, processes, shape):
    assert shape_of(batch, 1000, packed, processes) == shape


@pytest.mark.parametrize(
    "batch", [Batch(rows=6, micro=4), Batch(rows=2, micro=2), Batch(tokens=1000, micro_tokens=300)]
)
def test_a_step_that_cannot_be_divided_is_refused(batch):
    with pytest.raises(UsageError, match="cannot be divided among 2 processes"):
        shape_of(batch, 1000, False, 2)
