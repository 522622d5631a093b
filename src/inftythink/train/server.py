"""Rounds sampled by a vLLM server, which is given the weights of an update before it is sampled with.

Two ways lead there. ``folder``: the weights are written as safetensors to a folder that the server sees too, and it is
told to load them; with LoRA only the adapters are. That works on any machine, CPUs too. ``nccl``: TRL's client sends
them from GPU to GPU. Either way the server must be started with ``VLLM_SERVER_DEV_MODE=1``, whose endpoints these are.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from inftythink.backends._http import KEY_VARIABLES, split_url
from inftythink.backends.base import Backend
from inftythink.backends.openai import OpenAI
from inftythink.errors import BackendFatalError, UsageError
from inftythink.reasoner import run_sync
from inftythink.render import Renderer
from inftythink.train.colocated import Colocated
from inftythink.train.rl_settings import RlConfig
from inftythink.train.rl_settings import Sampler as SamplerSettings
from inftythink.train.sampler import InProcess, Sampler

if TYPE_CHECKING:
    from inftythink.train.rl_trainer import RoundsTrainer

ADAPTER = "inftythink"
"""The name of the adapters on the server."""

_TRIES = 10
"""How often the server is asked to drop its cache, while requests that are over still hold some of it."""

Push = Callable[[], "str | None"]
"""Gives the server the weights; called by all processes. Returns the model's name there, None for its only one."""


def make_sampler(config: RlConfig, trainer: RoundsTrainer, renderer: Renderer) -> Sampler:
    """Return the sampler that the settings name. Every process calls this.

    Raises:
        UsageError: The server was not started as it must be, or the weights are divided as no sampler can use them.
        BackendFatalError: There is no server.
    """
    chosen = config.sampler
    if chosen.kind == "colocated":
        on_cpu = trainer.accelerator.device.type == "cpu"
        if on_cpu and not config.lora.rank and _is_tied(Path(str(config.model.path))):
            raise UsageError(_TIED.format(model=config.model.path))
        return Colocated(config, trainer, renderer)
    if chosen.url is None:
        return InProcess(trainer, renderer, max_batch=config.max_batch, max_cache_tokens=config.cache_tokens)
    control = Control(chosen.url, chosen.timeout)
    if trainer.is_world_process_zero():
        control.check(config.group.temperature, not config.lora.rank)
    push = _Nccl(trainer) if chosen.weights == "nccl" else _Folder(config, trainer, control)
    return Served(push, control, chosen.url, renderer, connections=config.max_batch, timeout=chosen.timeout)


def nccl_arguments(chosen: SamplerSettings, on_gpu: bool) -> dict[str, Any]:
    """Return the arguments that make TRL connect to the server. Raises ``UsageError`` where its client cannot."""
    if chosen.url is None or chosen.weights != "nccl":
        return {}
    if not on_gpu or find_spec("vllm") is None:
        raise UsageError(
            "weights go over NCCL from a GPU, and TRL's client for it needs the package vllm in this environment; "
            "without either leave sampler.weights at 'folder'"
        )
    return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": split_url(chosen.url)[1]}


class Served:
    """Samples through the server at ``url``, to which ``push`` gives the weights; at most ``connections`` at once."""

    def __init__(
        self, push: Push, control: Control, url: str, renderer: Renderer, *, connections: int, timeout: float
    ) -> None:
        self._push, self._control, self._url, self._renderer = push, control, url, renderer
        self._connections, self._timeout = connections, timeout
        self._model: str | None = None
        self._given: float | None = None

    def update(self) -> None:
        """Give the server the weights as they are now."""
        _, self._given = self._control.clock()
        self._model = self._push()

    def close(self) -> None:
        """Do nothing: the server is another's."""

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """Return a backend that sends token ids, and gets ids and log-probabilities back.

        Raises ``BackendFatalError`` at the end when the server was started after it was given the weights: requests are
        tried again, and one that was started anew meanwhile has answered them with the weights it started with.
        """
        yield OpenAI(
            self._url,
            self._model,
            renderer=self._renderer,
            max_connections=self._connections,
            timeout=self._timeout,
        )
        started, _ = self._control.clock()
        if started is not None and self._given is not None and started > self._given:
            raise BackendFatalError(
                f"{self._url}: the server was started anew after it was given the weights, and may have sampled with "
                "others. Nothing was learnt from this step; run the same command again"
            )


class Control:
    """The endpoints of a vLLM server that steer it; what they do was read in vLLM 0.32."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url, self._timeout = url, timeout

    def check(self, temperature: float, whole: bool) -> None:
        """Look whether the server can be steered, and given ``whole`` weights.

        Raises ``UsageError`` when it cannot, or when it tells other probabilities than it draws with.
        """
        told = self._call(_INFO)["vllm_config"]
        model, mode = told["model_config"]["model"], told["model_config"]["logprobs_mode"]
        if whole and told["device_config"]["device"] == "cpu" and _is_tied(Path(model)):
            raise UsageError(_TIED.format(model=model))
        if temperature != 1 and mode != "processed_logprobs":
            raise UsageError(
                f"{self._url}: the server tells probabilities before temperature, and group.temperature is "
                f"{temperature}: start it with --logprobs-mode processed_logprobs"
            )

    def clock(self) -> tuple[float | None, float | None]:
        """Return when the server was started and what time it is there, seconds since 1970; None if it does not say.

        Both are by its own clock. Where several of its processes answer (one for each replica), each has a start of its
        own, but none after the server began to answer: their names cannot be compared, their starts can.
        """
        told, headers = run_sync(self._ask(_INFO, None))
        name, date = str(told["vllm_config"].get("instance_id")), headers.get("Date", "")
        # vLLM 0.32 names each run by its start in nanoseconds; before, it was five random letters.
        started = int(name) / 1e9 if name.isdecimal() and len(name) > 15 else None
        try:
            return started, parsedate_to_datetime(date).timestamp()
        except ValueError:
            return started, None

    def load(self, folder: Path) -> None:
        """Make the server load whole weights from a folder, in the place of its own."""
        self._call("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
        self._forget()

    def load_adapter(self, folder: Path) -> None:
        """Make the server load adapters from a folder, in the place of those before."""
        body = {"lora_name": ADAPTER, "lora_path": str(folder), "load_inplace": True}
        self._call("/v1/load_lora_adapter", body)
        self._forget()

    def _forget(self) -> None:
        """Drop keys and values that were computed with the weights before, once nobody uses them."""
        for _ in range(_TRIES):
            told = self._call("/reset_prefix_cache", {})
            if not isinstance(told, dict) or told["success"]:  # vLLM before 0.26 says nothing
                return
            time.sleep(0.2)
        raise BackendFatalError(
            f"{self._url}: the server answers others too, and keeps what old weights computed: stop its other clients, "
            "and run the same command again"
        )

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return run_sync(self._ask(path, body))[0]

    async def _ask(self, path: str, body: dict[str, Any] | None) -> tuple[Any, Mapping[str, str]]:
        """Return what an endpoint says, and the headers."""
        url = split_url(self._url)[1] + path
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=self._timeout),
                    headers={"Authorization": f"Bearer {key}"} if key else {},
                    trust_env=urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"),
                ) as session,
                session.request("GET" if body is None else "POST", url, json=body) as response,
            ):
                text = await response.text()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise BackendFatalError(f"{url}: {type(error).__name__}: {error}") from error
        if response.status == 404:
            raise UsageError(_NOT_STEERED.format(url=url))
        if response.status != 200:
            raise BackendFatalError(f"{url}: HTTP {response.status}: {text[:500]}")
        return (json.loads(text) if response.content_type == "application/json" else text), response.headers


_INFO = "/server_info?config_format=json"

_NOT_STEERED = """{url}: the server has no such endpoint. Start it so that it can be given weights:
  VLLM_SERVER_DEV_MODE=1 vllm serve MODEL
and for adapters (--lora) also VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora --max-lora-rank RANK"""


_TIED = """{model}: on a CPU vLLM keeps a packed copy of an output matrix that is tied to the embeddings, and would
never load it anew: serve a copy of the model with a matrix of its own (docs/rl.md), or train adapters (--lora)"""


def _is_tied(folder: Path) -> bool:
    """Say whether a model's configuration, where it can be read here, ties its output matrix to the embeddings."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(config.get("tie_word_embeddings"))


class _Folder:
    """Writes weights, or adapters, to a folder and makes the server load them from there."""

    def __init__(self, config: RlConfig, trainer: RoundsTrainer, control: Control) -> None:
        from inftythink.train.export import number_type

        self._trainer, self._control = trainer, control
        self._adapters = bool(config.lora.rank)
        self._folder = (config.sampler.folder or config.output / "weights").resolve()
        self._dtype = number_type(trainer, config.model, config.lora)

    def __call__(self) -> str | None:
        """Give the server the weights."""
        from inftythink.train.export import save_all, save_weights

        (save_weights if self._adapters else save_all)(self._trainer, self._folder, self._dtype)
        if self._trainer.is_world_process_zero():
            (self._control.load_adapter if self._adapters else self._control.load)(self._folder)
        self._trainer.accelerator.wait_for_everyone()
        return ADAPTER if self._adapters else None


class _Nccl:
    """Lets TRL send the weights, whole or gathered from shares, adapters merged into them."""

    def __init__(self, trainer: RoundsTrainer) -> None:
        self._trainer = trainer

    def __call__(self) -> None:
        """Give the server the weights."""
        self._trainer.vllm_generation.sync_weights()
        self._trainer.accelerator.wait_for_everyone()
