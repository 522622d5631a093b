"""A run that is killed with SIGKILL, at moments of chance, and started again gives what an unbroken run gives."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "inftythink", "eval", "--problems", "3", "--lines", "10", "30", "--samples", "2"]
TIMED = {"latency", "tokens_per_second"}


def start(run: Path) -> subprocess.Popen[bytes]:
    # One sequence at a time: in larger batches sums of floating-point numbers differ with the company.
    command = [*COMMAND, "--max-batch", "1", "--output", str(run)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(run: Path) -> dict[str, Any]:
    process = start(run)
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told.decode()
    figures: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return figures


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def without_times(figures: Any) -> Any:
    if not isinstance(figures, dict):
        return figures
    return {name: without_times(value) for name, value in figures.items() if name not in TIMED}


def texts(run: Path) -> list[tuple[str, int, str, Any, Any]]:
    found = [json.loads(line) for line in (run / "trajectories.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted(
        (t["id"], t["sample"], t["outcome"], [r["thought"] for r in t["rounds"]], t["grade"]["correct"]) for t in found
    )


def test_a_killed_run_goes_on_to_the_same_figures(tmp_path):
    whole = finish(tmp_path / "whole")
    draw, run, kills = random.Random(0), tmp_path / "killed", 0
    for _ in range(2):
        process = start(run)
        journal, until = run / "journal.jsonl", time.monotonic() + 60
        wanted = lines(journal) + draw.randint(3, 12)
        while process.poll() is None and lines(journal) < wanted and time.monotonic() < until:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills
    assert without_times(finish(run)) == without_times(whole)
    assert texts(run) == texts(tmp_path / "whole")
