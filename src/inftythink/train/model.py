"""The model that is trained: loaded or made new, given tokens for the tags, and exported for inference."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from inftythink.errors import InputError, UsageError
from inftythink.protocol import Tags
from inftythink.render import Renderer
from inftythink.train.settings import Lora, ModelSource


def load_tokenizer(source: ModelSource) -> tuple[Any, list[int]]:
    """Return the tokenizer, and the ids of the tokens that were added for the tags, if that is asked for.

    Raises ``InputError`` when it cannot be loaded, ``UsageError`` when none is named.
    """
    from transformers import AutoTokenizer

    name = source.tokenizer or source.path or (source.config and str(_config_folder(source.config)))
    if name is None:
        raise UsageError("a new model needs a tokenizer: --tokenizer FOLDER_OR_HUB_NAME")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise InputError(f"cannot load a tokenizer from {name!r}: {error}") from error
    return tokenizer, add_tags(tokenizer) if source.special_tags else []


def add_tags(tokenizer: Any) -> list[int]:
    """Give the summary and history tags, where they are not, tokens of their own; return the ids of the new ones.

    They are ordinary added tokens, not "special" ones, which servers leave out of the text that they return.
    """
    from tokenizers import AddedToken

    tags = Tags()
    texts = [f"<{slash}{name}>" for name in (tags.summary, tags.history) for slash in ("", "/")]
    new = [text for text in texts if text not in tokenizer.get_vocab()]
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in new])
    return [int(tokenizer.convert_tokens_to_ids(text)) for text in new]


def load_model(source: ModelSource, *, dtype: str, attention: str, seed: int, vocabulary: int) -> Any:
    """Load the model, or make one with random weights and room for ``vocabulary`` tokens.

    Raises ``InputError`` when it cannot be loaded, ``UsageError`` when the settings make no model.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedConfig

    number = getattr(torch, dtype)
    if source.path is not None:
        try:
            values, _ = PreTrainedConfig.get_config_dict(source.path)
            config = _config(values | source.settings)
            return AutoModelForCausalLM.from_pretrained(
                source.path, config=config, dtype=number, attn_implementation=attention
            )
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load a model from {source.path!r}: {error}") from error
    config = make_config(source.config, source.settings, vocabulary)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=number, attn_implementation=attention)


def make_config(path: Path | None, settings: dict[str, Any], vocabulary: int = 0) -> Any:
    """Return the configuration of a model from a ``config.json`` (or its folder) and ``settings`` over it.

    Its ``vocab_size`` is at least ``vocabulary``; without a file, and when not set, it is that.
    """
    values: dict[str, Any] = {}
    if path is not None:
        file = _config_folder(path) / "config.json" if path.is_dir() else path
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read as a model's configuration ({error})") from error
    values |= settings
    if vocabulary:
        values["vocab_size"] = max(vocabulary, values.get("vocab_size", 0))
    return _config(values)


def _config(values: dict[str, Any]) -> Any:
    """Make a configuration of its values; a ``rope_theta`` of their own goes over that of ``rope_parameters``."""
    from transformers import AutoConfig

    if "rope_theta" in values and "rope_parameters" in values:
        values = values | {"rope_parameters": values["rope_parameters"] | {"rope_theta": values["rope_theta"]}}
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:
        raise UsageError(f"these settings make no model: {type(error).__name__}: {error}") from error


def _config_folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def give_rows(model: Any, tokenizer: Any, new_ids: Iterable[int]) -> None:
    """Make room for tokens that were added; each new row is the mean of the rows of the pieces that spelt its text."""
    import torch

    new = list(new_ids)
    if not new:
        return
    if len(tokenizer) > model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    codec = Renderer(tokenizer, template="plain")
    matrices = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m}
    with torch.no_grad(), _whole(list(matrices.values())):
        for token in new:
            pieces = codec.encode_content(tokenizer.convert_ids_to_tokens(token))
            for weight in matrices.values():
                weight[token] = weight[pieces].mean(dim=0)


def _whole(weights: list[Any]) -> AbstractContextManager[Any]:
    """Make weights whole that DeepSpeed loaded in shares (ZeRO-3), and divide them again afterwards."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(weights, modifier_rank=0)
    return context


def adapters(lora: Lora, model: Any, new_ids: list[int]) -> Any:
    """Return the ``peft`` configuration of the adapters; rows of new tokens are trained whole."""
    from peft import LoraConfig

    targets: Any = "all-linear" if lora.targets == ("all-linear",) else list(lora.targets)
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    rows = {"embed_tokens": new_ids} if tied else {"embed_tokens": new_ids, "lm_head": new_ids}
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        trainable_token_indices=rows if new_ids else None,
        task_type="CAUSAL_LM",
    )


def ends_of(name: str | None) -> tuple[int, ...]:
    """Return the tokens that end a text according to a model's ``generation_config.json``; none without one."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(name).eos_token_id if name else None
    except OSError:
        return ()
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
