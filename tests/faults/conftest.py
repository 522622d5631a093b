"""Servers, inputs and unbroken runs, each made once."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conftest import FORBID_SKIPS
from tests.faults.runs import Whole, Work, conversion, evaluation, learning, measure
from tests.faults.server import ServerProcess

SEED = int(os.environ.get("INFTYTHINK_FAULT_SEED") or (0 if FORBID_SKIPS else random.randrange(10**6)))
"""Of all moments of chance; told by every test that draws some."""


@pytest.fixture(scope="session")
def server():
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="session")
def tokenizer(inputs) -> Path:
    from tests.tiny import tiny

    tiny("qwen25").save_pretrained(inputs / "tokenizer")
    return inputs / "tokenizer"


@pytest.fixture(scope="session")
def evaluates(inputs, server) -> Work:
    return evaluation(inputs / "problems.jsonl", server.url)


@pytest.fixture(scope="session")
def converts(inputs, tokenizer, server) -> Work:
    return conversion(inputs / "traces.jsonl", tokenizer, server.url)


@pytest.fixture(scope="session")
def learns(inputs) -> Work:
    from tests.tiny import hobble

    return learning(hobble(inputs / "model"), inputs / "rl.yaml")


@pytest.fixture(scope="session")
def evaluated(evaluates, tmp_path_factory) -> Whole:
    return measure(evaluates, tmp_path_factory.mktemp("evaluated") / "run")


@pytest.fixture(scope="session")
def converted(converts, tmp_path_factory) -> Whole:
    return measure(converts, tmp_path_factory.mktemp("converted") / "run")


@pytest.fixture(scope="session")
def learnt(learns, tmp_path_factory) -> Whole:
    return measure(learns, tmp_path_factory.mktemp("learnt") / "run")
