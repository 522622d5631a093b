"""Rounds sampled by a server that is given the weights of every update: once, and those."""

import dataclasses
import json

import pytest
import torch

from inftythink.errors import BackendFatalError, UsageError
from inftythink.store import read_trajectories
from inftythink.tasks.base import TaskSettings
from inftythink.train.rl import train_rl
from inftythink.train.rl_settings import Examination, Group, Sampler
from inftythink.train.settings import Lora, Optimizer
from tests.servers import in_thread
from tests.train.vllm import FakeVllm


@pytest.fixture
def config(moving_config):
    """Return a run whose updates move the weights far enough for old ones to be noticed."""
    optimizer = Optimizer(rate=1e-3, schedule="constant", warmup=0.0)
    return dataclasses.replace(moving_config, group=Group(questions=2, samples=4), optimizer=optimizer, save_every=0)


def sampled_by(server, config, **changes):
    return dataclasses.replace(config, sampler=Sampler(kind="server", url=server.url, **changes))


@pytest.mark.timeout(600)
def test_a_server_samples_with_the_weights_of_every_update(config, noisy):
    examine = Examination(task="automaton", settings=TaskSettings(problems=2, lines=(4, 6), seed=5))
    with in_thread(FakeVllm(noisy)) as server:
        result = train_rl(sampled_by(server, dataclasses.replace(config, examine=examine)))
    steps = [entry for entry in result.history if "reward" in entry]
    assert all(entry["grad_norm"] > 0 for entry in steps)
    assert all(entry["sampler_kl"] < 1e-6 for entry in steps)
    loads = [path for path in server.calls if path == "/collective_rpc"]
    assert len(loads) == config.steps + 1  # before each step, and before the examination
    assert server.calls.count("/v1/completions") > 4 * len(loads)
    assert [entry["step"] for entry in result.history] == [1, 2, 3, 3]
    assert len(list(read_trajectories(config.output / "rollouts" / "000003"))) == 8


@pytest.mark.timeout(600)
def test_weights_that_did_not_arrive_show_in_the_curve(config, noisy):
    with in_thread(FakeVllm(noisy, deaf=True)) as server:
        result = train_rl(sampled_by(server, config))
    assert all(entry["sampler_kl"] > 1e-3 for entry in result.history[1:])


class Restarting(FakeVllm):
    """Is started anew, by whoever watches over it, in the middle of a step: before it answers one of its calls."""

    at = 0

    async def _complete(self, request):
        if self.calls.count("/v1/completions") == self.at:
            self.restart()
        return await super()._complete(request)


@pytest.mark.timeout(600)
def test_a_server_that_was_started_anew_in_a_step_has_sampled_nothing(config, noisy, tmp_path):
    config = dataclasses.replace(config, save_every=1, max_batch=1)
    with in_thread(Restarting(noisy)) as server:
        whole = train_rl(sampled_by(server, config))
        server.at = int(1.5 * server.calls.count("/v1/completions"))
        again = sampled_by(server, dataclasses.replace(config, output=tmp_path / "again"))
        with pytest.raises(BackendFatalError, match="started anew after it was given the weights"):
            train_rl(again)
        server.at = 0
        assert train_rl(again).history == whole.history


def test_a_server_of_several_processes_is_not_taken_for_one_that_was_started_anew(config, noisy):
    with in_thread(FakeVllm(noisy)) as server:
        server.starts = [server.starts[0] - second * 10**9 for second in range(3)]
        result = train_rl(sampled_by(server, dataclasses.replace(config, steps=2)))
    assert len(result.history) == 2


@pytest.mark.timeout(600)
def test_only_adapters_are_sent_where_only_adapters_are_trained(config, noisy, tmp_path):
    changed = dataclasses.replace(config, lora=Lora(rank=2), steps=2)
    with in_thread(FakeVllm(noisy)) as server:
        result = train_rl(sampled_by(server, changed, folder=tmp_path / "shared"))
    assert server.calls.count("/v1/load_lora_adapter") == 2
    assert "/collective_rpc" not in server.calls
    assert "inftythink" in server.models
    assert all(entry["sampler_kl"] < 1e-6 for entry in result.history)
    assert (tmp_path / "shared" / "adapter_model.safetensors").is_file()


def test_a_server_that_cannot_be_given_weights_is_refused(config, noisy, tmp_path):
    with (
        in_thread(FakeVllm(noisy, steered=False)) as server,
        pytest.raises(UsageError, match="VLLM_SERVER_DEV_MODE=1"),
    ):
        train_rl(sampled_by(server, config))
    with in_thread(FakeVllm(noisy, busy=True)) as server, pytest.raises(BackendFatalError, match="keeps what old"):
        train_rl(sampled_by(server, config))
    warm = dataclasses.replace(config, group=dataclasses.replace(config.group, temperature=0.7), steps=1)
    with in_thread(FakeVllm(noisy)) as server:
        with pytest.raises(UsageError, match="--logprobs-mode processed_logprobs"):
            train_rl(sampled_by(server, dataclasses.replace(warm, output=tmp_path / "warm")))
        server.logprobs_mode, server.device = "processed_logprobs", "cpu"
        with pytest.raises(UsageError, match="a matrix of its own"):
            train_rl(sampled_by(server, dataclasses.replace(warm, output=tmp_path / "warm")))
        server.device = "cuda"
        told = train_rl(sampled_by(server, dataclasses.replace(warm, output=tmp_path / "warm")))
    assert told.history[0]["sampler_kl"] < 1e-6
    with pytest.raises(BackendFatalError, match="ClientConnectorError"):
        train_rl(sampled_by(server, dataclasses.replace(config, output=tmp_path / "gone")))


def test_settings_of_the_sampler_that_cannot_work_are_told(config):
    with pytest.raises(UsageError, match="--base-url URL"):
        dataclasses.replace(config, sampler=Sampler(kind="server"))
    with pytest.raises(UsageError, match="--base-url URL"):
        dataclasses.replace(config, sampler=Sampler(url="http://localhost:8000"))
    nccl = Sampler(kind="server", url="http://localhost:8000", weights="nccl")
    with pytest.raises(UsageError, match="over NCCL from a GPU"):
        train_rl(dataclasses.replace(config, sampler=nccl))


class Client:
    """Stands where TRL's client is, which needs vLLM's package and a GPU: the same calls, and what they brought."""

    def __init__(self, base_url, group_port, connection_timeout):
        self.base_url, self.sent, self.resets = base_url, [], 0

    def init_communicator(self, device):
        self.device = device

    def get_server_info(self):
        return {"model_config": {"logprobs_mode": "processed_logprobs"}}

    def update_named_params(self, metadata, named_params):
        self.sent.append({name: weight.clone() for name, weight in named_params})
        assert [name for name, _, _ in metadata] == list(self.sent[-1])

    def reset_prefix_cache(self):
        self.resets += 1


def test_trl_sends_the_weights_where_its_client_can(config, noisy, monkeypatch):
    from trl.generation import vllm_generation

    from inftythink.train import rl

    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "VLLMClient", Client)
    # What keeps this from a CPU, and is true on one: no NCCL.
    told = {"use_vllm": True, "vllm_mode": "server"}
    with in_thread(FakeVllm(noisy, deaf=True)) as server:
        arguments = told | {"vllm_server_base_url": server.url.removesuffix("/v1")}
        monkeypatch.setattr(rl, "nccl_arguments", lambda chosen, on_gpu: arguments)
        kept = []
        made = rl.make_sampler
        monkeypatch.setattr(rl, "make_sampler", lambda *args: kept.append(args[1]) or made(*args))
        train_rl(sampled_by(server, config, weights="nccl"))
    client = kept[0].vllm_generation.vllm_client
    assert client.base_url == server.url.removesuffix("/v1")
    assert len(client.sent) == client.resets == 3
    weights = dict(kept[0].model.named_parameters())
    assert set(client.sent[0]) == set(weights)
    changed = [name for name in weights if not torch.equal(client.sent[0][name], client.sent[-1][name])]
    assert changed
    assert json.loads((config.output / "metrics.json").read_text())["steps"] == 3
