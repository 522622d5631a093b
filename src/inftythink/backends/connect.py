"""From settings to a backend: a server by its address, or a model loaded into this process.

Every command that talks to a model inherits (or nests) ``ModelSettings``, so that the flags are the same everywhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from inftythink.backends._pace import Pace
from inftythink.backends.base import Backend
from inftythink.config import Count, option
from inftythink.errors import InputError, UsageError, missing
from inftythink.protocol import Policy, make_carry

if TYPE_CHECKING:
    from inftythink.render import Renderer

TRAINED_FILE = "inftythink.json"
"""Lies in the folder of a model trained on the format: ``{"carry": "summary", "eta": 4096, "gamma": 1024}``."""

SHIPPED = Path(__file__).parent.parent / "shipped" / "inftythink"
"""The small model that comes with the package: it solves the laboratory's puzzles, and nothing else."""

_NO_MODEL = """no model: say which one is to be used. A server that speaks the OpenAI API, or a folder (or Hub name):
  {example} --base-url http://localhost:8000/v1
  {example} --model path/to/model"""


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how to reach it. Commands inherit it (flags ``--model``, ...) or nest it."""

    model: str | None = option(None, "folder or Hub name of a model; with --base-url its name on the server")
    base_url: str | None = option(None, "address of a server that speaks the OpenAI API", metavar="URL", identity=False)
    api_key_env: str | None = option(
        None,
        "variable that holds the server's key (default: INFTYTHINK_API_KEY, then OPENAI_API_KEY)",
        metavar="NAME",
        identity=False,
    )
    tokenizer: str | None = option(
        None, "folder or Hub name of the tokenizer, when not the model's; on a server it allows completions"
    )
    mode: Literal["auto", "chat", "completions"] = option(
        "auto",
        "the server's interface; auto takes completions where prompts must be token ids and a tokenizer is known",
    )
    template: Literal["auto", "chat", "plain"] = option("auto", "prompt layout; plain is for base models")
    template_option: dict[str, str] = option({}, "option of the chat template (enable_thinking=false)")
    extra: dict[str, str] = option({}, "field of every request to the server, its value as JSON")
    engine: Literal["transformers", "vllm"] = option(
        "transformers", "what runs a model in this process", identity=False
    )
    engine_option: dict[str, str] = option(
        {}, "argument of vLLM's engine (max_model_len=8192), its value as JSON", identity=False
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "number type of a model in this process")
    device: str = option(
        "auto", "where transformers runs a model in this process: auto, cpu, cuda, cuda:1, mps", identity=False
    )
    max_batch: Count | None = option(
        None, "most sequences at once of a model in this process (default: 16; vLLM's own)", identity=False
    )
    timeout: float = option(600.0, "longest silence of the server in seconds", identity=False)
    retries: Count = option(5, "how often a request is tried again", identity=False)


def connect(
    settings: ModelSettings,
    *,
    carry: str,
    command: str = "inftythink solve 'What is 2 + 2?'",
    connections: int = 256,
    pace: Pace | None = None,
) -> Backend:
    """Return the backend that ``settings`` name; it is not started yet.

    ``carry`` decides what the backend must be able to do. ``command`` is the command line that an error shows with
    the flags that were missing; ``connections`` is the most requests at once that a server gets, ``pace`` how fast.

    Raises:
        UsageError: Neither a server nor a model is named, or the settings cannot work together.
        InputError: A tokenizer cannot be loaded.
        MissingDependencyError: A model in this process needs the extra ``hf``, on vLLM the extra ``vllm``.
    """
    if settings.model is None and settings.base_url is None:
        raise UsageError(_NO_MODEL.format(example=command))
    if settings.engine == "vllm":
        # A fork may hang, beside threads; a command's entry point may be run again, as vLLM's own command has it.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    return connect_model(
        settings.model,
        settings.base_url,
        prefill=make_carry(carry, Policy()).needs_prefill,
        api_key=_api_key(settings.api_key_env),
        tokenizer=settings.tokenizer,
        mode=settings.mode,
        template=settings.template,
        template_options={name: _value(name, text) for name, text in settings.template_option.items()},
        extra={name: _value(name, text) for name, text in settings.extra.items()},
        engine=settings.engine,
        engine_options={name: _value(name, text) for name, text in settings.engine_option.items()},
        dtype=settings.dtype,
        device=settings.device,
        max_batch=settings.max_batch,
        max_connections=connections,
        timeout=settings.timeout,
        retries=settings.retries,
        pace=pace,
    )


def connect_model(
    model: str | None = None,
    base_url: str | None = None,
    *,
    prefill: bool = False,
    api_key: str | None = None,
    tokenizer: str | None = None,
    mode: Literal["auto", "chat", "completions"] = "auto",
    template: Literal["auto", "chat", "plain"] = "auto",
    template_options: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    max_batch: int | None = None,
    max_connections: int = 256,
    timeout: float = 600.0,
    retries: int = 5,
    pace: Pace | None = None,
) -> Backend:
    """Return a backend for plain values: the server at ``base_url`` if there is one, else ``model`` in this process.

    Mode ``auto`` of a server is completions when a ``tokenizer`` is named, and when ``prefill`` is needed and
    ``model`` is a local folder that holds one; else chat. Raises as ``connect`` does.
    """
    if engine_options and engine != "vllm":
        raise UsageError("--engine-option is for --engine vllm; give that too, or leave it out")
    if base_url is not None:
        if engine != "transformers":
            raise UsageError(
                f"--engine {engine} runs a model in this process: leave it out, or --base-url (--upstream)"
            )
        from inftythink.backends.openai import OpenAI, Retry

        source = _server_tokenizer(model, tokenizer, mode, prefill)
        renderer = None if source is None else _renderer(source, template, template_options)
        return OpenAI(
            base_url,
            model,
            api_key,
            renderer=renderer,
            mode=mode,
            max_connections=max_connections,
            timeout=timeout,
            retry=Retry(attempts=retries + 1),
            extra=extra,
            pace=pace,
        )
    if model is None:
        raise UsageError("neither a model nor the address of a server is given")
    if mode != "auto" or extra:
        raise UsageError("--mode and --extra are for servers; give --base-url too, or leave them out")
    for package in ("vllm",) if engine == "vllm" else ("torch", "transformers"):
        if find_spec(package) is None:
            raise missing(package, "vllm" if engine == "vllm" else "hf")
    if engine == "vllm":
        if device != "auto":
            raise UsageError("--device is for transformers; vLLM runs on what it was built for (CUDA_VISIBLE_DEVICES)")
        from inftythink.backends.vllm import Vllm

        chosen = {"tokenizer": tokenizer, "max_num_seqs": max_batch}
        options = {name: value for name, value in chosen.items() if value is not None} | dict(engine_options or {})
        return Vllm(model, _renderer(tokenizer or model, template, template_options), dtype=dtype, options=options)
    renderer = _renderer(tokenizer or model, template, template_options)
    from inftythink.backends.transformers import Transformers

    backend: Backend = Transformers(
        model, renderer, dtype=dtype, device=device, max_batch=16 if max_batch is None else max_batch
    )
    return backend


@dataclass(frozen=True)
class Trained:
    """What a model was trained for: its carry, and the sizes it knows (None where not told).

    ``phi`` and ``temperature`` are what it is best asked with; ``puzzles`` says that it knows nothing but the
    laboratory's puzzles.
    """

    carry: str
    eta: int | None = None
    gamma: int | None = None
    phi: int | None = None
    temperature: float | None = None
    puzzles: bool = False


def trained_for(name_or_path: str | None) -> Trained | None:
    """Read ``inftythink.json`` of a model folder (or of a model on the Hub); None when there is none.

    Raises ``InputError`` when the file is not what it should be.
    """
    path = _trained_file(name_or_path) if name_or_path else None
    if path is None:
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        names = ("carry", "eta", "gamma", "phi", "temperature", "puzzles")
        trained = Trained(data["carry"], **{name: data[name] for name in names[1:] if data.get(name) is not None})
        make_carry(trained.carry, Policy(**{k: data[k] for k in ("eta", "gamma", "phi") if data.get(k) is not None}))
    except Exception as error:
        raise InputError(
            f'{path}: expected {{"carry": "summary", "eta": 4096, "gamma": 1024}} ({type(error).__name__}: {error})'
        ) from error
    return trained


def _trained_file(name_or_path: str) -> Path | None:
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / TRAINED_FILE
        return path if path.is_file() else None
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name_or_path, TRAINED_FILE))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None  # what is wrong with the name, or the connection, loading the model says


def _server_tokenizer(model: str | None, tokenizer: str | None, mode: str, prefill: bool) -> str | None:
    """Say where the tokenizer for a server's completions comes from; None when chat is used.

    Raises ``UsageError`` when completions are asked for and none is known.
    """
    if mode == "chat":
        return None
    if tokenizer is not None:
        return tokenizer
    local = model if model is not None and (Path(model) / "tokenizer.json").is_file() else None
    if mode == "completions" and local is None:
        raise UsageError("--mode completions writes the prompts itself: give --tokenizer FOLDER_OR_HUB_NAME")
    return local if mode == "completions" or prefill else None


def _renderer(source: str, template: Literal["auto", "chat", "plain"], options: Mapping[str, Any] | None) -> Renderer:
    for package in ("transformers", "jinja2"):
        if find_spec(package) is None:
            raise missing(package, "hf")
    from inftythink.render import Renderer

    return Renderer.load(source, template=template, **(options or {}))


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UsageError(f"--api-key-env {variable}: there is no such variable in the environment; set it first")
    return key


def _value(name: str, text: str) -> Any:
    """Read ``false``, ``3`` or ``{"a": 1}`` as what it says."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}={text}: the value is not JSON: {' '.join(str(error).split())}") from error
