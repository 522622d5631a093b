"""Requests that begin at once take turns with what else the event loop does."""

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from inftythink.serve.turns import Turns


async def takers(number: int, gone: set[int]) -> list[tuple[int, int]]:
    """Let so many take a turn, some of whom leave before theirs; return who went on, at which turn of the loop."""
    turns, rounds, went_on = Turns(), 0, []

    async def other() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def one(name: int) -> None:
        await turns.take()
        went_on.append((name, rounds))

    beside = asyncio.create_task(other())
    tasks = [asyncio.create_task(one(name)) for name in range(number)]
    await asyncio.sleep(0)
    for name in gone:
        tasks[name].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    beside.cancel()
    return went_on


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n - 1) if n > 1 else st.nothing()))
    )
)
def test_one_goes_on_each_time_the_loop_comes_round_in_order_and_nobody_is_forgotten(case):
    number, gone = case
    went_on = asyncio.run(takers(number, gone))
    assert [name for name, _ in went_on] == [name for name in range(number) if name not in gone]
    rounds = [each for _, each in went_on]
    assert all(before < after for before, after in pairwise(rounds))


async def test_after_all_had_their_turn_the_next_one_waits_for_nobody():
    turns = Turns()
    for _ in range(3):
        await asyncio.gather(*(turns.take() for _ in range(3)))
        await asyncio.sleep(0)
    taken = asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    assert taken.done()
