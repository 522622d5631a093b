"""A folder of converted data in the bytes' tokenizer, and settings of models that learn in seconds."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from inftythink.data.form import instances, teach
from inftythink.data.table import Shard
from inftythink.protocol import Format, Problem, Trajectory
from inftythink.render import Renderer
from inftythink.tasks.base import TaskSettings
from inftythink.train.rl_settings import Group, Questions, RlConfig, Rounds
from inftythink.train.settings import Batch, Data, ModelSource, Optimizer, SftConfig
from tests.tiny import bytes_tokenizer, hobble

if sys.version_info < (3, 11):  # TRL needs 3.11
    collect_ignore = ["test_sft.py", "test_distributed.py", "test_rl_distributed.py", "test_server.py"]

SHAPE: dict[str, int | float | bool | str] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}


def trace(number: int) -> Trajectory:
    """Return a trace of two rounds with its context."""
    problem = Problem(f"p{number}", f"What is {number} + {number}?", str(2 * number), (("system", "Be brief."),))
    segments = [f"Twice {number}.\n\n", f"That is {2 * number}."]
    done = teach(problem, segments, [f"It is twice {number}."], str(2 * number), Format())
    assert isinstance(done, Trajectory)
    return done


def write_folder(folder: Path, renderer: Renderer, numbers: dict[str, range]) -> Path:
    """Write ``instances/`` in two shards a split, and a manifest."""
    for split, some in numbers.items():
        for shard in range(2):
            with Shard(folder / "instances" / split / f"{shard:05d}.parquet", "instances") as out:
                for number in some[shard::2]:
                    for row in instances(trace(number), Format(), renderer):
                        out.write(row | {"source": "test", "eta": 64, "gamma": 32})
    (folder / "manifest.json").write_text(json.dumps({"eta": 64, "gamma": 32}))
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bytes_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    numbers = {"train": range(10, 26), "validation": range(26, 30)}
    return write_folder(tmp_path_factory.mktemp("data"), Renderer(bytes_tokenizer()), numbers)


@pytest.fixture
def config(tmp_path, data_folder, tokenizer_folder) -> SftConfig:
    return SftConfig(
        output=tmp_path / "run",
        model=ModelSource(settings=SHAPE, tokenizer=str(tokenizer_folder)),
        data=Data(folders=(str(data_folder),), max_length=400),
        batch=Batch(rows=8, micro=4),
        optimizer=Optimizer(rate=1e-2, warmup=0.1),
        steps=8,
        checkpointing=False,
        eval_every=4,
        save_every=4,
        log_every=1,
        device="cpu",
        workers=1,
    )


@pytest.fixture(scope="session")
def hobbled(tmp_path_factory) -> Path:
    return hobble(tmp_path_factory.mktemp("hobbled") / "model")


@pytest.fixture
def rl_config(tmp_path, hobbled) -> RlConfig:
    return RlConfig(
        output=tmp_path / "run",
        model=ModelSource(path=str(hobbled)),
        rounds=Rounds(phi=4),
        train=Questions(task="automaton", settings=TaskSettings(problems=8, lines=(4, 6))),
        group=Group(questions=2, samples=4, updates=2),
        optimizer=Optimizer(rate=1e-4, schedule="linear", warmup=0.0),
        steps=3,
        micro_tokens=512,
        checkpointing=False,
        save_every=1,
        device="cpu",
    )


@pytest.fixture(scope="session")
def noisy(tmp_path_factory) -> Path:
    """Return the model with so much noise that its trajectories differ, and none is right."""
    return hobble(tmp_path_factory.mktemp("noisy") / "model", 0.2)


@pytest.fixture
def moving_config(rl_config, noisy) -> RlConfig:
    """Return a run whose every update moves the weights."""
    return dataclasses.replace(rl_config, model=ModelSource(path=str(noisy)), reward=("tests.train.vllm:odd",))
