"""What fuzzing once broke stays whole, and a few thousand inputs of the fuzzer's own; ``make fuzz`` tries millions."""

import json
import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus.jsonl").read_text("utf-8").splitlines()]
TRIED = {"prompt": 60, "journal": 150, "file": 300}


@pytest.mark.parametrize("kept", CORPUS, ids=[f"{kept['target']}: {kept['why']}" for kept in CORPUS])
def test_what_once_broke_something(kept):
    TARGETS[kept["target"]].check(**kept["input"])


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_chance(name):
    rng = random.Random(name)
    for _ in range(TRIED.get(name, 1500)):
        drawn = TARGETS[name].draw(rng)
        TARGETS[name].check(**drawn)
