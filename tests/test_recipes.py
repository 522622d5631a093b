"""Recipes are complete: each parses, its model can be made, its memory is what is written, its launchers load."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from transformers import AutoModelForCausalLM

from inftythink.config import resolve
from inftythink.train.arguments import shape_of
from inftythink.train.memory import count, estimate
from inftythink.train.model import make_config
from inftythink.train.settings import Lora, SftConfig

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("recipes_memory", ROOT / "recipes" / "memory.py")
assert SPEC is not None
memory = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memory)

DOCS = (ROOT / "docs" / "train.md").read_text("utf-8")
PARAMETERS = {
    "SmolLM2-135M": 134_515_008,
    "Qwen2.5-Math-1.5B": 1_543_714_304,
    "DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "Qwen3-4B-Base": 4_022_468_096,
    "Qwen2.5-Math-7B": 7_615_616_512,
    "Llama-3.1-8B": 8_030_261_248,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
}
"""As published with the weights."""


@pytest.mark.parametrize("path", memory.recipes(), ids=lambda path: path.stem)
def test_a_recipe_parses_makes_its_model_and_tells_its_memory(path):
    run, config = memory.load(path)
    name = Path(run.model.path).name
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    text = path.read_text("utf-8")
    assert memory.block(path) in text
    for processes in (1, 8):
        assert shape_of(run.batch, run.data.max_length, True, processes).parts % processes == 0
    assert run.data.max_length <= config.max_position_embeddings
    assert f"--config recipes/sft/{path.name}" in text
    row, adapted = documented(run, config)
    (shown,) = [line for line in DOCS.splitlines() if line.startswith(f"| {path.stem} |")]
    assert shown.endswith(row)
    for told in re.findall(rf"([\d.]+)\s\({path.stem}\)", DOCS):
        assert told == adapted


def documented(run, config):
    """What docs/train.md is to say of a recipe: the end of its row, and the figure with LoRA."""
    alone, fsdp, zero, both = (
        f"{estimate(config, run, processes, sharding).total:.1f}" if run.batch.rows % processes == 0 else "-"
        for _, processes, sharding in memory.LAYOUTS
    )
    assert fsdp == zero
    adapted = estimate(config, dataclasses.replace(run, lora=Lora(rank=32))).total
    return f"| {alone} | {fsdp} | {both} |", f"{adapted:.1f}"


def test_every_published_model_has_a_recipe():
    named = {Path(memory.load(path)[0].model.path).name for path in memory.recipes()}
    assert named == set(PARAMETERS) == {path.stem for path in (ROOT / "recipes" / "models").glob("*.json")}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_launcher_loads(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    assert config.num_processes == {"1": 1, "8": 8, "2": 16}[path.stem[0]]
    named = re.findall(r"recipes/accelerate/\S+\.yaml", "".join(p.read_text("utf-8") for p in memory.recipes()))
    assert all((ROOT / name).is_file() for name in named)


def test_memory_counts_what_a_small_model_holds():
    """A Llama by hand: two layers of width 8, feed-forward 16, two heads, 100 tokens; one row of 10 tokens."""
    shape = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 100, "tie_word_embeddings": True}
    config = make_config(None, shape)
    sizes = count(config)
    layer = 8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 16 + 2 * 8
    assert (sizes.layer, sizes.embeddings, sizes.total) == (layer, 808, 2 * layer + 808)
    assert sizes.linear_sizes == 2 * (16 + 12 + 12 + 16 + 3 * 24)
    run = resolve(SftConfig, None, ["output=o", "data.folders=d", "model.path=m", "data.max_length=10"])
    alone = estimate(config, run)
    assert (alone.weights, alone.gradients, alone.optimizer) == (4 * sizes.total, 4 * sizes.total, 8 * sizes.total)
    inside = 2 * 4 * 8 + 2 * (2 * 8 + 2 * 8 + 2 * 4 + 4 * 16)
    assert alone.activations == 10 * (2 * 4 * 8 + 2 * inside)
    shared = estimate(config, run, 4, "fsdp")
    assert shared.weights + shared.gradients + shared.optimizer == 16 * sizes.total / 4
    zero = estimate(config, run, 4, "zero3")
    assert zero.weights + zero.gradients + zero.optimizer == 16 * sizes.total / 4
    adapted = estimate(config, dataclasses.replace(run, lora=Lora(rank=2)))
    assert adapted.weights == 2 * sizes.total + 4 * 2 * sizes.linear_sizes
    assert adapted.optimizer == 8 * 2 * sizes.linear_sizes
