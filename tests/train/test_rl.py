"""Training end to end with the small model that ships, made worse: curve, resume, adapters, export, refusals."""

import dataclasses
import json
import sys

import pytest

from inftythink.backends.connect import trained_for
from inftythink.config import dump, load_dumped
from inftythink.errors import UsageError
from inftythink.store import read_trajectories
from inftythink.tasks.base import TaskSettings
from inftythink.train.rl import train_rl
from inftythink.train.rl_settings import Examination, Group, Loss, RlConfig, Sampler
from inftythink.train.settings import Lora, ModelSource

if sys.version_info < (3, 11):
    pytest.skip("TRL needs 3.11", allow_module_level=True)


@pytest.fixture
def config(rl_config):
    return rl_config


class Stop(Exception):
    pass


def stop_at(update):
    def progress(now, updates, entry):
        if now >= update:
            raise Stop

    return progress


@pytest.mark.timeout(600)
def test_a_run_that_was_stopped_goes_on_with_the_same_curve(config):
    examine = Examination(task="automaton", settings=TaskSettings(problems=2, lines=(4, 6), seed=5), every=2)
    config = dataclasses.replace(config, examine=examine)
    straight = train_rl(config)
    again = dataclasses.replace(config, output=config.output.with_name("again"))
    with pytest.raises(Stop):
        train_rl(again, progress=stop_at(4))
    resumed = train_rl(again)
    for name in ("history.jsonl", "metrics.json", "model/model.safetensors"):
        assert (config.output / name).read_bytes() == (again.output / name).read_bytes(), name
    assert resumed.history == straight.history
    assert [entry["step"] for entry in straight.history] == [0, 1, 2, 2, 3, 3]
    steps = [entry for entry in straight.history if "reward" in entry]
    assert any(entry["grad_norm"] > 0 for entry in steps)
    assert all(entry["sampler_kl"] < 1e-6 for entry in steps if "sampler_kl" in entry)
    rollout = config.output / "rollouts" / "000001"
    assert len(list(read_trajectories(rollout))) == 8
    assert len((rollout / "rewards.jsonl").read_text().splitlines()) == 8
    assert len(list(read_trajectories(config.output / "examinations" / "000002"))) == 2
    assert train_rl(config) == straight
    with pytest.raises(UsageError, match="was made with steps=3, you asked steps=4"):
        train_rl(dataclasses.replace(config, steps=4))
    assert trained_for(str(straight.path)).eta == 63
    assert load_dumped(RlConfig, config.output / "config.yaml").rounds.gamma == 22


@pytest.mark.timeout(600)
def test_adapters_are_trained_near_the_model_they_began_at(config):
    from transformers import AutoModelForCausalLM

    changes = {"lora": Lora(rank=2), "loss": Loss(kl=0.1), "steps": 1, "checkpointing": True, "save_every": 0}
    group = Group(questions=1, samples=3, passes=2, resample=1)
    result = train_rl(dataclasses.replace(config, group=group, save_rows="parquet", **changes))
    assert (config.output / "adapter" / "adapter_config.json").is_file()
    assert (config.output / "rollouts" / "000001" / "rows.parquet").is_file()
    AutoModelForCausalLM.from_pretrained(result.path)
    (entry,) = result.history
    assert 0 <= entry["kl"] < 0.1
    assert entry["groups"] >= 1


@pytest.mark.timeout(600)
def test_the_command_trains(config, capsys):
    from inftythink.cli.rl import COMMAND

    COMMAND.run(dataclasses.replace(config, steps=1, save_every=0, group=Group(questions=1, samples=2)))
    shown = capsys.readouterr()
    assert f"model: {config.output / 'model'}" in shown.out
    assert "step 1 of 1" in shown.err
    assert json.loads((config.output / "metrics.json").read_text())["steps"] == 1


def test_what_cannot_work_is_told(config, tmp_path):
    with pytest.raises(UsageError, match="at least 2 trajectories"):
        dataclasses.replace(config, group=Group(samples=1))
    with pytest.raises(UsageError, match="updates at least 1 and at most questions"):
        dataclasses.replace(config, group=Group(questions=2, updates=3))
    with pytest.raises(UsageError, match="greedy trajectories do not differ"):
        dataclasses.replace(config, group=Group(temperature=0.0))
    with pytest.raises(UsageError, match="arguments of a colocated engine"):
        dataclasses.replace(config, sampler=Sampler(engine={"max_model_len": 128}))
    with pytest.raises(UsageError, match="from a folder"):
        dataclasses.replace(config, sampler=Sampler(kind="colocated", weights="nccl"))
    with pytest.raises(UsageError, match="say which model"):
        dataclasses.replace(config, model=ModelSource())
    with pytest.raises(UsageError, match=r"give rounds\.eta and rounds\.gamma"):
        train_rl(dataclasses.replace(config, model=ModelSource(path=str(tmp_path))))
    dump(config, tmp_path / "saved.yaml")
    assert load_dumped(RlConfig, tmp_path / "saved.yaml") == config
