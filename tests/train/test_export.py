"""Weights that leave training for an engine beside it."""

import os
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from inftythink.backends.connect import SHIPPED
from inftythink.train.colocated import _sees_only
from inftythink.train.export import save_all


def test_adapters_are_merged_into_what_is_written_and_not_into_the_model(tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(SHIPPED),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = SimpleNamespace(
        accelerator=Accelerator(cpu=True), model=model, model_wrapped=model, is_world_process_zero=lambda: True
    )
    save_all(trainer, tmp_path, torch.float32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    written, merged = load_file(tmp_path / "model.safetensors"), model.merge_and_unload().state_dict()
    assert written.keys() == merged.keys()
    for name, value in merged.items():
        torch.testing.assert_close(written[name], value)
    changed = [
        name for name in merged if not torch.equal(written[name], before.get(f"base_model.model.{name}", written[name]))
    ]
    assert not changed, "without adapters a weight is what it was"
    old = before["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"]
    assert not torch.allclose(written["model.layers.0.self_attn.q_proj.weight"], old)


def test_an_engine_sees_the_one_gpu_of_its_process(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with _sees_only(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with _sees_only(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    with _sees_only(None):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
