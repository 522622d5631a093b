"""Two processes (gloo, on the CPU) learn as one does, and go on after a kill as if there had been none."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from inftythink.config import dump
from inftythink.train.rl import train_rl
from tests.servers import in_thread
from tests.train.test_server import sampled_by
from tests.train.vllm import FakeVllm

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
FSDP = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
FSDP += ["--fsdp_reshard_after_forward", "true", "--fsdp_state_dict_type", "FULL_STATE_DICT"]


def launch(config, *more, how=("--multi_gpu",)):
    """Start two processes that train; return the launcher, and the name that their reports begin with."""
    name = config.output.with_name(config.output.name + "-report")
    saved = config.output.with_suffix(".yaml")
    dump(config, saved)
    command = [*LAUNCH, *how, "-m", "tests.train.ranks", str(saved), str(name), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), name


def finished(config, *more, **settings):
    """Train in two processes; return what each reports."""
    process, name = launch(config, *more, **settings)
    told, _ = process.communicate()
    assert process.returncode == 0, told[-4000:]
    return [json.loads(name.with_name(f"{name.name}.{rank}.json").read_text()) for rank in range(2)]


def check_shares(reports, kind, divided):
    """Check gradients that two processes have each a share in: unequal numbers of rounds, or none."""
    shares = list(zip(*(report["gradients"] for report in reports), strict=True))
    assert [len(this["held"]) > 1 for this, _ in shares] == [True, True, False, False]
    for this, other in shares:
        assert max(this["off"], other["off"]) < 1e-6
        assert (this["kind"], this["divided"]) == (kind, divided)
        assert len(this["held"]) == len(other["held"])
        assert this["held"] != other["held"]
    assert sum(shares[0][0]["held"]) != sum(shares[0][1]["held"])
    assert shares[2][1]["held"] == [0]


def history(config):
    return [json.loads(line) for line in (config.output / "history.jsonl").read_text().splitlines()]


def weights(config):
    model = AutoModelForCausalLM.from_pretrained(config.output / "model")
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Return where the run of two processes is kept for all tests here."""
    return tmp_path_factory.mktemp("together") / "run"


@pytest.fixture
def two(moving_config, together):
    """Return the configuration of a run that two processes made without a break, and their reports."""
    config = dataclasses.replace(moving_config, output=together)
    name = together.with_name("run-report")
    if not (together / "metrics.json").exists():
        finished(config, "--gradients")
    return config, [json.loads(name.with_name(f"{name.name}.{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.timeout(600)
def test_gradients_of_unequal_shares_are_those_of_the_formula(two):
    check_shares(two[1], "DistributedDataParallel", divided=False)


@pytest.mark.timeout(600)
def test_two_processes_learn_as_one(two, moving_config):
    config, reports = two
    assert all(entry["grad_norm"] > 0 for entry in history(config))
    assert [report["processes"] for report in reports] == [2, 2]
    assert reports[0]["weights"] == reports[1]["weights"]
    train_rl(moving_config)
    assert len(history(moving_config)) == len(history(config)) == 3
    for one, both in zip(history(moving_config), history(config), strict=True):
        assert both == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert (weights(moving_config) - weights(config)).abs().max() < 1e-4  # one step's learning rate


@pytest.mark.timeout(600)
def test_processes_that_were_killed_go_on_to_the_same_weights(two, moving_config):
    config = dataclasses.replace(moving_config, output=moving_config.output.with_name("killed"))
    process, name = launch(config)
    while not list(config.output.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.05)
    for one in [psutil.Process(int(name.with_name(f"{name.name}.{rank}.pid").read_text())) for rank in range(2)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # the launcher ends the one when it finds the other dead
            one.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    assert not (config.output / "metrics.json").exists()
    reports = finished(config)
    assert [report["weights"] for report in reports] == [report["weights"] for report in two[1]]
    assert history(config) == history(two[0])


@pytest.mark.timeout(600)
def test_every_process_asks_the_server_and_the_first_gives_it_weights(moving_config, noisy):
    with in_thread(FakeVllm(noisy)) as server:
        config = sampled_by(server, dataclasses.replace(moving_config, save_every=0))
        reports = finished(config)
    assert reports[0]["weights"] == reports[1]["weights"]
    assert server.calls.count("/collective_rpc") == config.steps
    assert all(entry["sampler_kl"] < 1e-6 for entry in history(config))


@pytest.mark.timeout(600)
def test_divided_weights_learn_as_whole_ones(two, moving_config):
    config = dataclasses.replace(moving_config, output=moving_config.output.with_name("divided"), save_every=0)
    reports = finished(config, "--gradients", how=FSDP)
    check_shares(reports, "FSDPLlamaForCausalLM", divided=True)
    assert reports[0]["weights"] == reports[1]["weights"]
    for one, divided in zip(history(two[0]), history(config), strict=True):
        assert divided == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert (weights(two[0]) - weights(config)).abs().max() < 1e-4
