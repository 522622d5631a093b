"""Reinforcement learning with vLLM's engine in the process that trains: it draws with the weights of every update.

Runs with an interpreter that has vLLM and TRL beside this package.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from inftythink.train.rl_settings import Sampler
from tests.engines.test_vllm_rl import WINDOW, learn, untied
from tests.tiny import hobble

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ENGINE: dict[str, int | float | bool | str] = {
    "max_model_len": WINDOW,
    "max_num_seqs": 16,
    "kv_cache_memory_bytes": 2**28,
    "enforce_eager": True,  # to compile takes minutes on one core
}


@pytest.mark.parametrize(("rank", "rate"), [(0, 1e-3), (8, 1e-2)], ids=["weights", "adapters"])
def test_the_engine_draws_with_the_weights_of_every_update(tmp_path: Path, rank: int, rate: float) -> None:
    model = hobble(tmp_path / "model", 0.2)
    sampler = Sampler(kind="colocated", engine=ENGINE)
    curve = learn(sampler, model if rank else untied(model, tmp_path / "untied"), tmp_path / "run", rank, rate)
    print(json.dumps(curve, indent=1))
    assert [entry["step"] for entry in curve] == [1, 2, 3]
    assert all(entry["grad_norm"] > 0 for entry in curve)
    assert all(entry["sampler_kl"] < 1e-4 for entry in curve)
    assert all(entry["left_out"] == 0 for entry in curve)
    assert not [each for each in multiprocessing.active_children() if each.name.startswith("EngineCore")]
