"""The backend on vLLM's engine, as far as it needs none: settings, what the engine is told, and how its words are read.

With the engine: ``tests/engines/test_inside_vllm.py``.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from inftythink.backends._assemble import Assembler
from inftythink.backends.base import Request, Sampling
from inftythink.backends.connect import ModelSettings, connect, connect_model
from inftythink.backends.vllm import CPU_CACHE, Vllm, check_options, engine_arguments, read, sampling_arguments
from inftythink.config import resolve
from inftythink.errors import BackendError, MissingDependencyError, UsageError
from inftythink.protocol.types import Prompt, Stop
from tests.backends.test_connect import save_tokenizer

HELLO = Request(Prompt(()), 7, ("</think>", "", "Done"), Sampling(0.3, 0.9, 5, 11, logprobs=True))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inftythink.backends.connect.find_spec", lambda name: object())


# -- settings --


def test_without_vllm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inftythink.backends.connect.find_spec", lambda name: None if name == "vllm" else object())
    with pytest.raises(MissingDependencyError, match=r"pip install 'inftythink\[vllm\]'"):
        connect(ModelSettings(model="m", engine="vllm"), carry="two_call")


async def test_without_vllm_a_backend_says_so_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inftythink.backends.vllm.find_spec", lambda name: None)
    backend = Vllm("m")
    assert backend.context is None
    with pytest.raises(MissingDependencyError, match=r"pip install 'inftythink\[vllm\]'"):
        await backend.start()
    with pytest.raises(BackendError, match="not started"):
        await backend.complete(HELLO)
    await backend.aclose()


def test_the_command_lines_settings_reach_the_engine(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    class Seen(Vllm):
        def __init__(self, model: str, renderer: Any, **options: Any) -> None:
            super().__init__(model, renderer, **options)
            made.update(options, model=model)

    monkeypatch.setattr("inftythink.backends.vllm.Vllm", Seen)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    folder = str(save_tokenizer(tmp_path))
    flags = {"model": folder, "engine": "vllm", "tokenizer": folder, "dtype": "bfloat16", "max_batch": "64"}
    options = ["max_model_len=8192", "enforce_eager=true", "gpu_memory_utilization=0.8", 'hf_overrides={"a": [1]}']
    settings = resolve(ModelSettings, flags=flags | {"engine_option": options})
    assert connect(settings, carry="summary").name == f"vllm {folder}"
    assert made == {
        "model": folder,
        "dtype": "bfloat16",
        "options": {
            "tokenizer": folder,
            "max_num_seqs": 64,
            "max_model_len": 8192,
            "enforce_eager": True,
            "gpu_memory_utilization": 0.8,
            "hf_overrides": {"a": [1]},
        },
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"engine": "vllm", "base_url": "http://x"}, "--base-url"),
        ({"engine_options": {"max_model_len": 1}}, "--engine vllm"),
        ({"engine": "vllm", "device": "cuda:1"}, "--device is for transformers"),
        ({"engine": "vllm", "mode": "chat"}, "--mode and --extra are for servers"),
    ],
)
def test_settings_that_cannot_go_together(installed: None, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        connect_model("m", **changes)


def test_an_engine_option_that_is_not_json_is_named() -> None:
    with pytest.raises(UsageError, match="hf_overrides"):
        connect(ModelSettings(model="m", engine="vllm", engine_option={"hf_overrides": "{1"}), carry="two_call")


def test_the_engine_is_no_part_of_a_runs_identity() -> None:
    from inftythink.config import difference

    there = ModelSettings(model="m", engine="vllm", engine_option={"gpu_memory_utilization": "0.5"}, max_batch=3)
    assert difference(ModelSettings(model="m"), there) == []


# -- what the engine is told --


@pytest.mark.parametrize("name", ["model", "skip_tokenizer_init", "tokens_only"])
def test_options_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: it cannot be set"):
        check_options({name: 1}, ["model", "skip_tokenizer_init", "tokens_only"])


def test_an_unknown_option_gets_a_hint() -> None:
    check_options({"max_model_len": 1}, ["max_model_len"])
    with pytest.raises(UsageError, match="did you mean 'max_model_len'"):
        check_options({"max_model_length": 1}, ["max_model_len", "seed"])
    with pytest.raises(UsageError, match="see the arguments of vllm serve"):
        check_options({"zzz": 1}, ["max_model_len"])


def test_what_is_said_wins_over_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    gpu = engine_arguments("m", "auto", {"seed": 3}, cpu=False)
    assert (gpu["model"], gpu["dtype"], gpu["seed"]) == ("m", "auto", 3)
    assert "enable_chunked_prefill" not in gpu
    assert "kv_cache_memory_bytes" not in gpu
    cpu = engine_arguments("m", "auto", {}, cpu=True)
    assert (cpu["dtype"], cpu["kv_cache_memory_bytes"], cpu["enable_chunked_prefill"]) == ("float32", CPU_CACHE, False)
    assert engine_arguments("m", "bfloat16", {}, cpu=True)["dtype"] == "bfloat16"
    own = engine_arguments("m", "auto", {"gpu_memory_utilization": 0.2, "enable_chunked_prefill": True}, cpu=True)
    assert "kv_cache_memory_bytes" not in own
    assert own["enable_chunked_prefill"] is True
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert "kv_cache_memory_bytes" not in engine_arguments("m", "auto", {}, cpu=True)


def test_a_request_is_spelled_out() -> None:
    assert sampling_arguments(HELLO, {9, 2}) == {
        "max_tokens": 7,
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": 11,
        "stop": ["</think>", "Done"],
        "stop_token_ids": [2, 9],
        "skip_special_tokens": False,
        "logprobs": 0,
    }
    assert sampling_arguments(Request(Prompt(()), 1), ())["logprobs"] is None


# -- what the engine says --


@dataclass
class Logprob:
    logprob: float


@dataclass
class Said:
    """One of ``RequestOutput.outputs``."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass
class Output:
    """A ``RequestOutput``."""

    outputs: list[Said]
    prompt_token_ids: list[int] = field(default_factory=lambda: [1, 2, 3])
    num_cached_tokens: int = 2


class Letters:
    """A tokenizer whose ids are characters."""

    def ids(self, prompt: Prompt) -> list[int]:
        return [1, 2, 3]

    def text(self, prompt: Prompt) -> str:
        return ""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def joined(*said: Said) -> Any:
    """What comes of an answer that arrives in these pieces."""
    assembler = Assembler(Request(Prompt(()), 9, ("c",), Sampling(logprobs=True)), Letters(), streamed=True)
    for each in said:
        assembler.add(read(Output([each]), "vllm m"))
    return assembler.finish(0.0, 1.0)


def test_pieces_are_joined_and_the_stop_string_is_put_back() -> None:
    first = Said("a", [97], logprobs=[{97: Logprob(-0.5), 98: Logprob(-1.0)}])
    last = Said("b", [98, 99], "stop", "c", [{98: Logprob(-0.25)}, {99: Logprob(-2.0)}])
    completion = joined(first, last)
    assert (completion.text, completion.stop, completion.stop_text) == ("abc", Stop.STOP, "c")
    assert (completion.token_ids, completion.logprobs) == ((97, 98, 99), (-0.5, -0.25, -2.0))
    assert (completion.prompt_ids, completion.prompt_tokens, completion.cached_tokens) == ((1, 2, 3), 3, 2)
    assert completion.completion_tokens == 3


@pytest.mark.parametrize(
    ("reason", "told", "stop"), [("stop", 2, Stop.STOP), ("stop", None, Stop.STOP), ("length", None, Stop.LENGTH)]
)
def test_how_an_answer_ended(reason: str, told: int | None, stop: Stop) -> None:
    completion = joined(Said("a", [97], reason, told, [{97: Logprob(-0.5)}]))
    assert (completion.stop, completion.stop_text, completion.error) == (stop, None, None)


@pytest.mark.parametrize("reason", ["abort", "error", "something new"])
def test_what_did_not_end_by_itself_is_no_answer(reason: str) -> None:
    completion = joined(Said("a", [97], reason, None, [{97: Logprob(-0.5)}]))
    assert completion.stop is Stop.ABORT
    assert completion.error is not None
    assert reason in completion.error


def test_a_probability_that_is_no_number_is_an_error() -> None:
    with pytest.raises(BackendError, match="not finite"):
        read(Output([Said("a", [97], logprobs=[{97: Logprob(float("nan"))}])]), "vllm m")


def test_importing_it_loads_neither_vllm_nor_torch() -> None:
    code = (
        "import sys, inftythink.backends.vllm\n"
        "print([m for m in ('vllm', 'torch', 'transformers', 'tokenizers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
