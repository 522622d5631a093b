"""Fuzz until a number of inputs, or of seconds, is over: ``python -m tests.fuzz --inputs 10000000`` (``make fuzz``).

Each block of a thousand inputs has a seed of its own, which is told when an input breaks something; the input itself
is written to ``build/fuzz/failures.jsonl``. To keep one for good, put it into ``tests/fuzz/corpus.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS

BLOCK = 1000
LONGEST = 20.0
"""Seconds of the processor that one input may take: more is a hang."""


class Fuzz:
    """The inputs so far, and what they broke."""

    def __init__(self, folder: Path) -> None:
        self.tried: Counter[str] = Counter()
        self.broken: dict[tuple[str, str], int] = {}
        self._folder = folder

    def block(self, seed: int, names: list[str]) -> None:
        """Try a block of inputs."""
        rng = random.Random(seed)
        chosen = rng.choices(names, [TARGETS[name].share for name in names], k=BLOCK)
        for name in chosen:
            drawn = TARGETS[name].draw(rng)
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
            try:
                TARGETS[name].check(**drawn)
            except Exception as error:
                self._keep(name, seed, drawn, error)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self.tried[name] += 1

    def _keep(self, name: str, seed: int, drawn: dict[str, Any], error: Exception) -> None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = (name, f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}")
        self.broken[kind] = self.broken.get(kind, 0) + 1
        if self.broken[kind] > 3:
            return
        print(f"BROKEN {kind[0]}: {kind[1]}: {str(error)[:200]} (seed {seed})", flush=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "failures.jsonl").open("a") as file:
            file.write(json.dumps({"target": name, "why": kind[1], "input": drawn}) + "\n")


def hung(*_: object) -> None:
    raise TimeoutError(f"one input took more than {LONGEST:g} s")


def main() -> int:
    """Fuzz; 1 when something broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0, help="of the first block")
    parser.add_argument("--only", nargs="+", default=[*TARGETS], choices=[*TARGETS])
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    chosen = parser.parse_args()
    signal.signal(signal.SIGVTALRM, hung)
    fuzz, began, cpu, told = Fuzz(chosen.output), time.monotonic(), os.times(), 0.0
    seed = chosen.seed
    while fuzz.tried.total() < chosen.inputs and time.monotonic() - began < chosen.seconds:
        fuzz.block(seed, chosen.only)
        seed += 1
        over = time.monotonic() - began >= chosen.seconds or fuzz.tried.total() >= chosen.inputs
        if over or time.monotonic() - told > 30:
            told, now = time.monotonic(), os.times()
            spent = now.user + now.system - cpu.user - cpu.system
            rate = fuzz.tried.total() / max(spent, 1e-9)
            counts = ", ".join(f"{name} {number:,}" for name, number in fuzz.tried.most_common())
            print(f"{fuzz.tried.total():,} inputs, {rate:,.0f} a CPU second, next seed {seed}: {counts}", flush=True)
    for (name, where), number in fuzz.broken.items():
        print(f"broke {number:,} times: {name}: {where}")
    return 1 if fuzz.broken else 0


if __name__ == "__main__":
    sys.exit(main())
