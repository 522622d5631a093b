"""Reinforcement learning with a real vLLM server as the sampler: it draws with the weights of every update.

``INFTYTHINK_VLLM_PYTHON`` is an interpreter that has vLLM.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from inftythink.tasks.base import TaskSettings
from inftythink.train.rl import train_rl
from inftythink.train.rl_settings import Group, Questions, RlConfig, Rounds, Sampler
from inftythink.train.settings import Lora, ModelSource, Optimizer
from tests.engines.server import Server, free_port
from tests.tiny import hobble

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

WINDOW = 128


@contextmanager
def serving(model: Path, log: Path, *more: str) -> Iterator[Server]:
    """Serve a model, so that it can be given weights."""
    if "INFTYTHINK_VLLM_PYTHON" not in os.environ:
        pytest.fail("these tests start a server of their own model: set INFTYTHINK_VLLM_PYTHON")
    server, port = Server(str(model)), free_port()
    command = [os.environ["INFTYTHINK_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", server.model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(WINDOW), "--max-num-seqs", "16", "--enforce-eager"]
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "1024", *more]
    steered = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with server.started(command, port, log, {"VLLM_CPU_KVCACHE_SPACE": "1"} | steered):
        yield server


def untied(model: Path, folder: Path) -> Path:
    """Save a copy whose output matrix is its own: on a CPU vLLM never loads a tied one anew."""
    shutil.copytree(model, folder)
    copy = AutoModelForCausalLM.from_pretrained(model)
    copy.config.tie_word_embeddings = False
    copy.lm_head.weight = torch.nn.Parameter(copy.lm_head.weight.detach().clone())
    copy.save_pretrained(folder)
    return folder


def learn(sampler: Sampler, model: Path, output: Path, rank: int, rate: float) -> list[dict[str, float]]:
    """Train three steps, far enough apart for old weights to be noticed; return the curve."""
    config = RlConfig(
        output=output,
        model=ModelSource(path=str(model)),
        rounds=Rounds(phi=4),
        train=Questions(task="automaton", settings=TaskSettings(problems=8, lines=(4, 6))),
        group=Group(questions=2, samples=4),
        reward=("tests.train.vllm:odd",),
        sampler=sampler,
        optimizer=Optimizer(rate=rate, schedule="constant", warmup=0.0),
        lora=Lora(rank=rank),
        steps=3,
        micro_tokens=1024,
        checkpointing=False,
        save_every=0,
        device="cpu",
    )
    return train_rl(config).history


@pytest.mark.parametrize(
    ("path", "rank", "rate", "flags"),
    [("/collective_rpc", 0, 1e-3, ()), ("/v1/load_lora_adapter", 8, 1e-2, ("--enable-lora", "--max-lora-rank", "8"))],
    ids=["weights", "adapters"],
)
def test_the_server_draws_with_the_weights_of_every_update(
    tmp_path: Path, path: str, rank: int, rate: float, flags: tuple[str, ...]
) -> None:
    model, log = hobble(tmp_path / "model", 0.2), tmp_path / "server.log"
    with serving(model if rank else untied(model, tmp_path / "untied"), log, *flags) as server:
        curve = learn(Sampler(kind="server", url=server.url), model, tmp_path / "run", rank, rate)
    asked = log.read_text()
    print(json.dumps(curve, indent=1))
    assert [entry["step"] for entry in curve] == [1, 2, 3]
    assert all(entry["grad_norm"] > 0 for entry in curve)
    assert all(entry["sampler_kl"] < 1e-4 for entry in curve)
    assert all(entry["left_out"] == 0 for entry in curve)
    assert asked.count(f"POST {path}") == 3
    assert asked.count("POST /v1/completions") > 3 * 8
