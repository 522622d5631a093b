"""The cost model against operations that torch counts in real (small) models, and against sums written out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from inftythink.cli.cost import COMMAND, CostConfig
from inftythink.config import resolve
from inftythink.errors import InputError, UsageError
from inftythink.evals.architecture import KNOWN, read_architecture
from inftythink.evals.cost import (
    DEVICES,
    Call,
    Setting,
    attention_flops,
    cheapest,
    cost,
    etas,
    in_rounds,
    kv_bytes,
    linear_flops,
    vanilla,
)

MODELS = Path(__file__).parents[2] / "recipes/models"
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 120,
    "max_position_embeddings": 512,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
LONG_HEADS = GROUPED | {"head_dim": 32}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
LATENT = {
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
}
CONFIGS = {
    "llama": SIZES | {"model_type": "llama"},
    "llama, heads in groups": GROUPED | {"model_type": "llama"},
    "llama, one layer wide": GROUPED | {"model_type": "llama", "num_hidden_layers": 1, "intermediate_size": 32},
    "qwen2": GROUPED | {"model_type": "qwen2"},
    "qwen3": LONG_HEADS | {"model_type": "qwen3"},
    "olmo2": GROUPED | {"model_type": "olmo2"},
    "smollm3": GROUPED | {"model_type": "smollm3", "pad_token_id": 0},
    "phi3": GROUPED | {"model_type": "phi3", "pad_token_id": 0},
    "gemma": LONG_HEADS | {"model_type": "gemma"},
    "mistral, window": GROUPED | {"model_type": "mistral", "sliding_window": 16},
    "qwen2, window above": GROUPED
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "gemma2, every second": LONG_HEADS | {"model_type": "gemma2", "sliding_window": 16},
    "gemma3, every sixth": LONG_HEADS
    | {"model_type": "gemma3_text", "sliding_window": 16, "num_hidden_layers": 6, "intermediate_size": 32},
    "mixtral": GROUPED | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": GROUPED | EXPERTS | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 40},
    "qwen3_moe": LONG_HEADS | EXPERTS | {"model_type": "qwen3_moe", "mlp_only_layers": [0]},
    "deepseek_v3": SIZES | LATENT | {"model_type": "deepseek_v3"},
}


def model_of(config):
    torch.manual_seed(0)
    kinds = {"attn_implementation": "eager"} | (
        {"experts_implementation": "eager"} if any("experts" in name for name in config) else {}
    )
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), **kinds).eval()


@torch.no_grad()
def counted(model, prompt, generated, at_once=True):
    """Operations that torch counts while ``model`` reads a prompt (at once or token by token) and generates."""
    cache, ids = None, torch.randint(1, 100, (1, prompt))
    pieces = [ids] if at_once else list(ids.split(1, dim=1))
    pieces += [torch.tensor([[5]])] * (generated - 1)
    total = 0
    for piece in pieces:
        with FlopCounterMode(display=False) as counter:
            out = model(piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, total = out.past_key_values, total + counter.get_total_flops()
    return total


def test_every_known_model_is_checked():
    assert {config["model_type"] for config in CONFIGS.values()} | {"deepseek_v2"} == KNOWN


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "deepseek_v3"])
def test_generation_takes_the_operations_that_torch_counts(name):
    """Token by token no key after a query is touched, which is what a causal kernel does with a prompt.

    DeepSeek is left out: transformers expands all keys anew in every step, engines do not.
    """
    config, prompt, generated = CONFIGS[name], 24, 40
    read = read_architecture(config)
    call = Call(prompt, generated)
    head = 2 * (prompt - 1) * read.head  # token by token, the counted run computes logits of each
    told = linear_flops(read, call) + attention_flops(read, call) + head
    assert told == pytest.approx(counted(model_of(config), prompt, generated, at_once=False), rel=0.02)


@pytest.mark.parametrize("name", ["llama", "llama, heads in groups", "qwen3", "deepseek_v3"])
def test_a_prompt_takes_the_operations_that_torch_counts(name):
    """At once, torch counts the whole square of queries and keys; half of it, and the diagonal, is what we tell."""
    config, prompt = CONFIGS[name], 200
    read = read_architecture(config)
    call = Call(prompt, 1)
    square = attention_flops(read, call) * 2 * prompt / (prompt + 1)
    assert linear_flops(read, call) + square == pytest.approx(counted(model_of(config), prompt, 1), rel=0.02)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_those_of_the_model(name):
    read = read_architecture(CONFIGS[name])
    model = model_of(CONFIGS[name])
    assert read.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.02)


@torch.no_grad()
def test_the_cache_is_that_of_the_model():
    for name in ("llama", "llama, heads in groups", "qwen3", "deepseek_v3"):
        model = model_of(CONFIGS[name])
        cache = model(torch.ones(1, 30, dtype=torch.long), use_cache=True).past_key_values
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert kv_bytes(read_architecture(CONFIGS[name]), 30, 4) == held


def test_configurations_as_transformers_writes_them_read_the_same():
    for config in CONFIGS.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = AutoConfig.for_model(**config).to_dict()
        assert read_architecture(written) == read_architecture(config)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([None, 1, 7, 200]))
def test_pairs_are_the_sum_over_tokens(cached, prompt, generated, window):
    read = read_architecture(CONFIGS["llama"] | {"model_type": "mistral", "sliding_window": window})
    call = Call(cached + prompt, generated, cached)
    places = range(cached + 1, cached + prompt + max(generated - 1, 0) + 1)
    pairs = sum(min(place, window or place) for place in places)
    assert attention_flops(read, call) == 2 * 2 * 64 * 2 * pairs


@given(st.integers(1, 400), st.integers(1, 90), st.integers(0, 30))
def test_rounds_think_all_tokens(tokens, eta, gamma):
    plan = in_rounds(20, tokens, eta, gamma)
    rounds = sum(count for _, count in plan)
    assert rounds == -(-tokens // eta)
    assert sum(call.generated * count for call, count in plan) == tokens + (rounds - 1) * gamma
    assert max(call.prompt + call.generated for call, _ in plan) <= 20 + 2 * gamma + max(eta, 1)


def test_the_cheapest_eta_is_the_least_of_all():
    read = read_architecture(json.loads((MODELS / "Qwen2.5-Math-1.5B.json").read_text()))
    for by in ("flops", "seconds", "device_seconds"):
        eta, least = cheapest(read, 300, 4096, 128, Setting(), by)
        tried = [getattr(cost(read, in_rounds(300, 4096, each, 128)), by) for each in range(64, 4097)]
        assert getattr(least, by) == min(tried)
        assert eta in etas(4096)


def test_steps_read_weights_and_keys():
    read = read_architecture(json.loads((MODELS / "Qwen2.5-Math-7B.json").read_text()))
    assert read.parameters == pytest.approx(7.615e9, rel=0.001)
    found = cost(read, vanilla(300, 32768))
    weights, keys = 2 * (read.parameters - read.head), 2 * 28 * 2 * 4 * 128
    total = 32767 * weights + keys * sum(range(301, 301 + 32767))
    assert found.decode_seconds == pytest.approx(total / 3.35e12)
    assert found.kv_bytes == keys * 33068
    assert found.sequences == int((80e9 - 2 * read.parameters) // found.kv_bytes)
    many = cost(read, vanilla(300, 32768), Setting(batch=4))
    assert found.seconds < many.seconds < 4 * found.seconds
    full = cost(read, vanilla(300, 32768), Setting(batch=found.sequences))
    assert found.device_seconds == many.device_seconds == pytest.approx(full.seconds / found.sequences)


def test_many_tokens_are_bound_by_operations():
    read = read_architecture(CONFIGS["llama"])
    found = cost(read, ((Call(10_000, 1), 1),), Setting(DEVICES["a100"]))
    assert found.decode_seconds == 0
    assert found.prefill_seconds == pytest.approx(found.flops / 312e12)


def test_a_batch_reads_more_experts():
    read = read_architecture(CONFIGS["mixtral"])
    assert read.read(1) == pytest.approx(read.active + read.head)
    assert read.read(1) < read.read(2) < read.read(50) <= read.dense + 4 * read.expert + read.head


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["model_type"]),
        ({"model_type": "mamba"}, ["mamba", "known are", "llama"]),
        ({"model_type": "llama", "hidden_size": 8}, ["num_hidden_layers", "num_attention_heads", "vocab_size"]),
        (GROUPED | {"model_type": "qwen3"}, ["head_dim"]),
        (SIZES | {"model_type": "deepseek_v3"}, ["kv_lora_rank", "v_head_dim"]),
        (EXPERTS | GROUPED | {"model_type": "qwen2_moe"}, ["shared_expert_intermediate_size"]),
        (LONG_HEADS | EXPERTS | {"model_type": "qwen3_moe", "use_sliding_window": True}, ["layer_types"]),
        (SIZES | {"model_type": "llama", "layer_types": ["linear_attention", "full_attention"]}, ["linear_attention"]),
        (SIZES | {"model_type": "llama", "layer_types": ["full_attention"]}, ["1 layer_types for 2 layers"]),
    ],
)
def test_what_is_not_known_is_refused_by_name(config, words):
    with pytest.raises(UsageError) as error:
        read_architecture(config)
    assert all(word in str(error.value) for word in words)


def test_the_text_part_of_a_model_is_read():
    text = CONFIGS["gemma3, every sixth"]
    assert read_architecture({"model_type": "gemma3", "text_config": text}) == read_architecture(text)


def shown(capsys, **given):
    COMMAND.run(resolve(CostConfig, flags=given))
    return capsys.readouterr().out


def test_the_command_shows_one_chain_and_rounds(capsys):
    out = shown(capsys, model="Qwen/Qwen2.5-Math-7B", tokens="32k", eta="5k", gamma="1k")
    assert "NVIDIA H100" in out
    cells = {line.strip(" *").split()[0]: line.strip(" *").split()[1:] for line in out.splitlines() if line.strip(" *")}
    assert cells["vanilla"][:3] == ["1", "32,768", "33,068"]
    assert cells["5,120"][:3] == ["7", "38,912", "7,468"]
    assert "cheapest in device_seconds" in out


def test_the_command_prints_json_that_follows_the_settings(capsys):
    given = {"model": str(MODELS / "Llama-3.1-8B.json"), "json": True, "by": "flops"}
    first = json.loads(shown(capsys, **given))
    assert first["vanilla"]["tokens"] == 32768
    assert str(first["cheapest"]["flops"]) in first["rounds"]
    tiny = json.loads(shown(capsys, **given, memory="1"))["vanilla"]
    assert (tiny["sequences"], tiny["device_seconds"]) == (0, None)
    slow = json.loads(shown(capsys, **given, bandwidth="335", tflops="98.9"))
    assert slow["vanilla"]["seconds"] == pytest.approx(10 * first["vanilla"]["seconds"])
    small = json.loads(shown(capsys, **given, **{"weight_bits": "8", "kv_bits": "8"}))
    assert small["vanilla"]["kv_bytes"] == first["vanilla"]["kv_bytes"] / 2


def test_the_command_reads_a_folder(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["qwen3"]))
    assert json.loads(shown(capsys, model=str(tmp_path), tokens="2k", json=True))["vanilla"]["rounds"] == 1


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, capsys):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        shown(capsys, model=str(tmp_path))


def test_a_folder_without_configuration_is_named(tmp_path, capsys):
    with pytest.raises(InputError, match=r"no config\.json"):
        shown(capsys, model=str(tmp_path))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"eta": "0"}, "--eta"), ({"weight_bits": "0"}, "--weight-bits"), ({"tflops": "-1"}, "--tflops")],
)
def test_settings_that_make_no_sense_are_named(given, words, capsys):
    with pytest.raises(UsageError, match=words):
        shown(capsys, model=str(MODELS / "Llama-3.1-8B.json"), **given)
