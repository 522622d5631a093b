from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inftythink.backends import Request, Sampling
from inftythink.backends.connect import ModelSettings, Trained, connect, connect_model, trained_for
from inftythink.backends.openai import OpenAI
from inftythink.errors import InputError, MissingDependencyError, UsageError
from inftythink.protocol import Problem
from inftythink.protocol.carry import Memory, make_carry
from inftythink.protocol.policy import Policy
from tests.servers import EOS, SPECIAL, FakeServer


def save_tokenizer(folder: Path) -> Path:
    """A folder as a training run leaves it, but for the weights; its token ids are those of ``FakeServer``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokenizer = Tokenizer(models.BPE(vocab={char: byte for byte, char in bytes_to_unicode().items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([SPECIAL[token] for token in sorted(SPECIAL)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[EOS])
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    fast.save_pretrained(folder)
    return folder


async def request_path(settings: ModelSettings, server: FakeServer, carry: str) -> str:
    """Which interface of the server a first round of ``carry`` arrives at."""
    backend = connect(settings, carry=carry)
    assert isinstance(backend, OpenAI)
    await backend.start()
    try:
        from inftythink.protocol import make_format

        prompt = make_carry(carry, Policy()).open(
            make_format(carry, prefill=backend.capabilities.prefill), Problem("0", "Hi"), Memory()
        )
        await backend.complete(Request(prompt, 5, sampling=Sampling(temperature=0.0)))
    finally:
        await backend.aclose()
    return server.paths[-1]


def test_neither_a_model_nor_a_server_shows_both_ways() -> None:
    with pytest.raises(UsageError) as caught:
        connect(ModelSettings(), carry="summary", command="inftythink solve 'What is 2 + 2?'")
    text = str(caught.value)
    assert "inftythink solve 'What is 2 + 2?' --base-url http://localhost:8000/v1" in text
    assert "inftythink solve 'What is 2 + 2?' --model path/to/model" in text


async def test_a_server_alone_is_talked_to_in_chat() -> None:
    async with FakeServer() as server:
        assert await request_path(ModelSettings(base_url=server.url), server, "two_call") == "/v1/chat/completions"


async def test_a_tokenizer_makes_it_completions_with_token_ids(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    async with FakeServer() as server:
        settings = ModelSettings(base_url=server.url, model="fake", tokenizer=str(tmp_path))
        assert await request_path(settings, server, "summary") == "/v1/completions"
        assert isinstance(server.requests[-1]["prompt"], list)
        chat = ModelSettings(base_url=server.url, model="fake", tokenizer=str(tmp_path), mode="chat")
        assert await request_path(chat, server, "two_call") == "/v1/chat/completions"


@pytest.mark.parametrize(("carry", "path"), [("summary", "/v1/completions"), ("two_call", "/v1/chat/completions")])
async def test_a_local_folder_brings_the_tokenizer_for_carries_that_begin_the_models_turn(
    tmp_path: Path, carry: str, path: str
) -> None:
    folder = str(save_tokenizer(tmp_path))
    async with FakeServer(models=(folder,)) as server:
        assert await request_path(ModelSettings(base_url=server.url, model=folder), server, carry) == path


def test_completions_without_a_tokenizer_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--tokenizer"):
        connect(ModelSettings(base_url="http://x", model="m", mode="completions"), carry="summary")


def test_settings_of_servers_are_refused_for_a_model_in_this_process() -> None:
    with pytest.raises(UsageError, match="--base-url"):
        connect(ModelSettings(model="m", extra={"a": "1"}), carry="summary")
    with pytest.raises(UsageError, match="neither"):
        connect_model()


async def test_key_and_fields_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeServer() as server:
        server.key = "s3cret"
        settings = ModelSettings(
            base_url=server.url, api_key_env="SOME_KEY", extra={"chat_template_kwargs": '{"enable_thinking": false}'}
        )
        with pytest.raises(UsageError, match="SOME_KEY"):
            connect(settings, carry="two_call")
        monkeypatch.setenv("SOME_KEY", "s3cret")
        await request_path(settings, server, "two_call")
        assert server.headers[-1]["Authorization"] == "Bearer s3cret"
        assert server.requests[-1]["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_field_that_is_not_json_is_named() -> None:
    with pytest.raises(UsageError, match="top_k=\\{1"):
        connect(ModelSettings(base_url="http://x", extra={"top_k": "{1"}), carry="two_call")


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        connect(ModelSettings(model=str(tmp_path / "nowhere")), carry="two_call")


def test_a_model_in_this_process_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inftythink.backends.connect.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'inftythink\[hf\]'"):
        connect(ModelSettings(model="m"), carry="two_call")
    with pytest.raises(MissingDependencyError, match=r"pip install 'inftythink\[hf\]'"):
        connect(ModelSettings(base_url="http://x", tokenizer="m"), carry="two_call")


def test_what_a_model_was_trained_for(tmp_path: Path) -> None:
    assert trained_for(None) is None
    assert trained_for(str(tmp_path)) is None
    file = tmp_path / "inftythink.json"
    file.write_text(json.dumps({"carry": "summary", "eta": 512}))
    assert trained_for(str(tmp_path)) == Trained("summary", 512, None)
    for wrong in ("{", "[]", "{}", '{"carry": "none of these"}', '{"carry": "summary", "eta": 0}'):
        file.write_text(wrong)
        with pytest.raises(InputError, match=r"inftythink\.json: expected"):
            trained_for(str(tmp_path))


def test_a_name_on_the_hub_that_cannot_be_looked_at_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert trained_for("someone/some-model-that-is-not-cached") is None
    assert trained_for("not a//name") is None


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, inftythink.backends.connect\n"
        "print([m for m in ('torch', 'transformers', 'aiohttp', 'tokenizers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
