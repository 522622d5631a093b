"""The pool of graders: what hangs, crashes or misbehaves costs its own grade, and no process outlives its use."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inftythink.errors import UsageError
from inftythink.grade.base import Ask, Grade
from inftythink.grade.pool import GradePool
from tests.grade import graders

ROOT = Path(__file__).parent.parent.parent


def alive(pid: int) -> bool:
    """Whether a process is there and is more than an entry that waits to be collected."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_exactly_what_hangs_times_out() -> None:
    hanging = {7, 100, 299}
    with GradePool(2, 0.5) as pool:
        asked = [Ask("", str(i % 2), "hang" if i in hanging else "1") for i in range(300)]
        grades = [future.result() for future in [pool.submit(graders.hang, ask) for ask in asked]]
    assert {i for i, grade in enumerate(grades) if grade.correct is None} == hanging
    assert {grades[i].reason for i in hanging} == {"timed out after 0.5 s"}
    assert all(grade.correct is (i % 2 == 1) for i, grade in enumerate(grades) if i not in hanging)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("raise", "grader failed: ValueError: no such thing"),
        ("interrupt", "grader failed: BaseException: not an Exception"),
        ("nothing", "grader failed: TypeError: it returned NoneType, not a Grade"),
        ("memory", "grader failed: MemoryError: "),
        ("kill", "grader crashed: its process ended with SIGKILL"),
        ("segfault", "grader crashed: its process ended with SIGSEGV"),
        ("exit", "grader crashed: its process ended with exit code 3"),
        ("complain", "grader crashed: its process ended with exit code 7: something broke"),
    ],
)
def test_trouble_is_a_failed_grade_and_the_next_one_is_fine(what: str, reason: str) -> None:
    with GradePool(1) as pool:
        troubled, fine = (pool.submit(graders.misbehave, Ask("", None, c)) for c in (what, "fine"))
        assert troubled.result() == Grade(None, None, reason)
        assert fine.result() == Grade(True, "fine")


def test_a_graders_own_time_wins_and_loading_takes_none() -> None:
    with GradePool(2, 0.5) as pool:
        own, slow = pool.submit(graders.impatient, Ask("", "", "")), pool.submit(graders.slow_to_load, Ask("", "", ""))
        assert own.result().reason == "timed out after 0.2 s"
        assert slow.result() == Grade(True)


def test_a_worker_is_used_again_and_replaced_when_killed() -> None:
    with GradePool(1) as pool:
        first, second = (pool.submit(graders.echo, Ask("", "1", "1")).result().extracted for _ in range(2))
        assert first is not None
        assert first == second
        os.kill(int(first), signal.SIGKILL)
        results = [pool.submit(graders.echo, Ask("", "1", "1")).result() for _ in range(2)]
        assert [each.correct for each in results] == [True, True]  # also what was asked of the dead one
        assert results[-1].extracted != first


def test_a_graders_child_ends_with_its_time(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with GradePool(1, 1.0) as pool:
        ask = Ask("", None, "child", {"file": str(file)})
        assert str(pool.submit(graders.misbehave, ask).result().reason).startswith("timed out")
        worker, child = map(int, file.read_text().split())
        assert eventually(lambda: not alive(worker) and not alive(child))


def test_closing_gives_up_what_is_not_graded() -> None:
    pool = GradePool(1, 60.0)
    worker = pool.submit(graders.echo, Ask("", "1", "1")).result().extracted
    futures = [pool.submit(graders.hang, Ask("", "1", "hang")) for _ in range(3)]
    assert eventually(futures[0].running)
    pool.close()
    pool.close()
    assert futures[0].result() == Grade(None, None, "grader stopped: the pool was closed")
    assert [future.cancelled() for future in futures[1:]] == [True, True]
    assert worker is not None
    assert not alive(int(worker))
    with pytest.raises(UsageError, match="closed"):
        pool.submit(graders.echo, Ask("", "1", "1"))


def test_an_error_of_the_caller_leaves_no_worker() -> None:
    workers: list[int] = []

    def use() -> None:
        with GradePool(1, 60.0) as pool:
            workers.append(int(str(pool.submit(graders.echo, Ask("", "1", "1")).result().extracted)))
            pool.submit(graders.hang, Ask("", "1", "hang"))
            raise KeyError("elsewhere")

    with pytest.raises(KeyError):
        use()
    assert not alive(workers[0])


async def test_it_can_be_awaited() -> None:
    with GradePool(2) as pool:
        futures = [asyncio.wrap_future(pool.submit(graders.echo, Ask("", str(i % 2), "1"))) for i in range(20)]
        grades = await asyncio.gather(*futures)
    assert [grade.correct for grade in grades] == [i % 2 == 1 for i in range(20)]


async def test_an_awaited_grade_can_be_cancelled() -> None:
    with GradePool(1, 60.0) as pool:
        hanging, waiting = (asyncio.wrap_future(pool.submit(graders.hang, Ask("", "1", "hang"))) for _ in range(2))
        waiting.cancel()
        hanging.cancel()
        await asyncio.gather(hanging, waiting, return_exceptions=True)


def test_what_cannot_be_sent_is_refused_or_failed() -> None:
    with GradePool(1) as pool:
        with pytest.raises(UsageError, match="cannot be sent"):
            pool.submit(lambda ask: Grade(True), Ask("", "1", "1"))
        grade = pool.submit(graders.echo, Ask("", "1", "1", {"it": lambda: None})).result()
        assert str(grade.reason).startswith("grader failed: ")
        assert pool.submit(graders.echo, Ask("", "1", "1")).result().correct is True


@pytest.mark.parametrize(("workers", "timeout"), [(0, 1.0), (1, 0.0)])
def test_settings_that_cannot_work_are_refused(workers: int, timeout: float) -> None:
    with pytest.raises(UsageError, match="at least one worker"):
        GradePool(workers, timeout)


USES_A_POOL = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin with it ignored
from inftythink.grade.base import Ask
from inftythink.grade.pool import GradePool
from tests.grade import graders
with GradePool(2, 600.0) as pool:
    idle = [pool.submit(graders.slow_echo, Ask("", "1", "1")) for _ in range(2)]
    print(*{future.result().extracted for future in idle}, flush=True)
    pool.submit(graders.hang, Ask("", "1", "hang")).result()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_process_that_uses_them(how: signal.Signals) -> None:
    """One worker is idle, and one hangs with the interpreter's lock held."""
    with subprocess.Popen(
        [sys.executable, "-c", USES_A_POOL], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        process.send_signal(how)
        try:
            assert process.wait(30) != 0
        finally:
            process.kill()
    assert eventually(lambda: not any(map(alive, workers)))
