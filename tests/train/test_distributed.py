"""Two processes (gloo, on the CPU) train as one does: the same steps, the same losses, the same weights."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from inftythink.config import dump
from inftythink.train.sft import train_sft


@pytest.mark.timeout(120)
def test_two_processes_train_as_one(config, tmp_path):
    alone = train_sft(config)
    saved = tmp_path / "config.yaml"
    dump(config, saved)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "inftythink"]
    command += ["sft", "--config", str(saved), "--output", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    history = [json.loads(line) for line in (tmp_path / "two" / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [entry["step"] for entry in alone.history]
    for two, one in zip(history, alone.history, strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    models = [AutoModelForCausalLM.from_pretrained(path / "model") for path in (config.output, tmp_path / "two")]
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, two, atol=1e-3)
    assert done.stdout.count("validation rows") == 1
