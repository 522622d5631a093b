"""SIGTERM and Ctrl-C end a command with a code and a word of advice; clocks that go back do no harm."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.conftest import SEED
from tests.faults.runs import Running, Whole, Work, at_a_moment, finish, same, start

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}


def is_told_to_end(work: Work, whole: Whole, how: signal.Signals, out: Path, seed: int, group: bool) -> None:
    """Tell a run to end at a moment of chance, to it alone or to all its processes; and run the same command again."""
    import os

    def strike(rng: random.Random, running: Running) -> bool:
        if not (out / "config.yaml").exists() and not (out / "work").exists():
            return False  # before there was anything to end
        children = running.children()
        os.killpg(running.process.pid, how) if group else running.process.send_signal(how)
        running.process.wait()
        _, left = psutil.wait_procs(children, timeout=60)
        assert not left, f"processes outlived the run: {left}"
        return True

    rng = random.Random(seed)
    for _ in range(10):
        running = start(work, out)
        if at_a_moment(rng, running, out, whole, strike):
            break
        running.wait()
        assert running.process.returncode == 0
        out = out.with_name(out.name + "x")
    code, said = running.wait()
    print(f"seed {seed}: {how.name}")
    assert "Traceback" not in said, said[-4000:]
    last = said.rstrip().splitlines()[-1]
    if code == -how:  # it was told too late: all was done, and the interpreter was ending
        assert "resume" not in last
    elif code != 0:
        assert (code, last) == (CODES[how], f"{WORDS[how]}, resume with the same command")
    for path in out.rglob("*.jsonl"):
        assert path.read_bytes().endswith(b"\n") or not path.read_bytes(), f"{path} is torn"
    finish(work, out)
    same(work.collect(out), whole.made)


@pytest.mark.parametrize("how", CODES)
def test_an_evaluation_is_told_to_end(evaluates, evaluated, tmp_path, how):
    is_told_to_end(evaluates, evaluated, how, tmp_path / "run", SEED, group=False)


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize(
    ("work", "whole", "group"),
    [
        ("evaluates", "evaluated", True),
        ("converts", "converted", False),
        ("converts", "converted", True),
        ("learns", "learnt", False),
    ],
)
def test_any_command_is_told_to_end(work, whole, group, how, request, tmp_path):
    """To it alone, as Slurm does to a batch script's step, or to it and its workers, as a terminal does."""
    work, whole = request.getfixturevalue(work), request.getfixturevalue(whole)
    is_told_to_end(work, whole, how, tmp_path / "run", SEED + 10, group)


def test_sigterm_ends_what_was_started_in_the_background(evaluates, tmp_path):
    """A shell without job control starts with & what then ignores Ctrl-C."""
    running = start(evaluates, tmp_path / "run", begin=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    while not (tmp_path / "run" / "journal.jsonl").exists():
        assert running.process.poll() is None
        time.sleep(0.005)
    running.process.terminate()
    code, said = running.wait()
    assert code == 143, said[-4000:]


BACK = """
import runpy, sys, time
now, calls = time.time, 0
def back():
    global calls
    calls += 1
    return now() - 3600.0 * calls  # an hour back with every look
time.time = back
time.time_ns = lambda: int(back() * 1e9)
sys.argv[:] = ["inftythink", *sys.argv[1:]]
runpy.run_module("inftythink", run_name="__main__")
"""


def test_a_clock_that_goes_back_changes_nothing(evaluates, evaluated, tmp_path):
    import subprocess

    from tests.faults.runs import ENVIRONMENT, ROOT

    out = tmp_path / "run"
    command = [sys.executable, "-c", BACK, *evaluates.command(out)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    same(evaluates.collect(out), evaluated.made)
    times = list(numbers([json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]))
    assert times
    assert all(0 <= each < 3600 for each in times)


def numbers(value: Any) -> Any:
    """All durations in a JSON value."""
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name.endswith("seconds"))
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from numbers(each)


def test_no_duration_is_taken_from_a_clock_that_can_be_set():
    """``time.time`` and ``datetime.now`` name a moment: only where one is written down, or told by a server."""
    source = Path(__file__).parent.parent.parent / "src" / "inftythink"
    allowed = {"serve/app.py": 3, "cli/export.py": 1, "backends/_retry.py": 1}
    found: dict[str, int] = {}
    for path in source.rglob("*.py"):
        text = path.read_text("utf-8")
        if count := text.count("time.time(") + text.count("datetime.now("):
            found[str(path.relative_to(source))] = count
    assert found == allowed
