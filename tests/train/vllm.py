"""A real HTTP server that has a model, and is given weights by the endpoints of vLLM. For tests only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from aiohttp import web
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from inftythink.backends.base import Request, Sampling
from inftythink.backends.transformers import Transformers
from inftythink.protocol import Trajectory
from inftythink.protocol.types import Part, PartKind, Prompt, Stop, Turn
from inftythink.render import Renderer


def odd(trajectory: Trajectory) -> float:
    """Return a reward that differs in every group, so that every update moves the weights."""
    return float(trajectory.sample % 2)


class Given:
    """A renderer of prompts that are token ids already."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    def ids(self, prompt: Prompt) -> list[int]:
        return list(prompt.turns[0].parts[0].ids or ())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)


class FakeVllm:
    """``with in_thread(FakeVllm(folder)) as server``: then ``server.url`` answers.

    ``calls`` are the paths that were asked for, ``models`` the names asked for; ``deaf`` answers as if it had loaded
    weights, but keeps its own; ``starts`` are those of its processes that answer, in turns; ``steered`` has the
    endpoints that weights need; ``busy`` cannot drop its cache. ``restart`` does what a restart does: its own weights
    again, and a later start.
    """

    def __init__(self, folder: Path, *, steered: bool = True, deaf: bool = False, busy: bool = False) -> None:
        self._folder, self._renderer = folder, Renderer.load(folder)
        self._steered, self._deaf, self._busy = steered, deaf, busy
        self.logprobs_mode, self.device = "raw_logprobs", "cuda"
        self.starts = [time.time_ns() - 10**9]  # before it answers: a date in a header has whole seconds
        self.calls: list[str] = []
        self.models: set[str] = set()
        self.url, self.port = "", 0

    async def __aenter__(self) -> FakeVllm:
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        if self._steered:
            app.router.add_get("/server_info", self._info)
            app.router.add_post("/collective_rpc", self._reload)
            app.router.add_post("/reset_prefix_cache", self._forget)
            app.router.add_post("/v1/load_lora_adapter", self._adapt)
        await self._serve(AutoModelForCausalLM.from_pretrained(self._folder))
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._backend.aclose()

    async def _serve(self, model: Any) -> None:
        self._model = model
        self._backend = Transformers(model.eval(), Given(self._renderer), max_batch=8)  # type: ignore[arg-type]
        await self._backend.start()

    def restart(self) -> None:
        self.starts = [time.time_ns()]
        self._model.load_state_dict(AutoModelForCausalLM.from_pretrained(self._folder).state_dict())

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append(request.path)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "policy", "owned_by": "vllm", "max_model_len": 512}]})

    async def _info(self, request: web.Request) -> web.Response:
        model = {"model": str(self._folder), "logprobs_mode": self.logprobs_mode}
        name = str(self.starts[self.calls.count(request.path) % len(self.starts)])
        told = {"model_config": model, "device_config": {"device": self.device}, "instance_id": name}
        return web.json_response({"vllm_config": told})

    async def _reload(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["method"] == "reload_weights"
        weights = load_file(Path(body["kwargs"]["weights_path"]) / "model.safetensors")
        if not self._deaf:
            self._model.load_state_dict(weights)
        return web.json_response({"results": [None]})

    async def _adapt(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["load_inplace"]
        await self._backend.aclose()
        base = AutoModelForCausalLM.from_pretrained(self._folder)
        await self._serve(PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload())
        return web.Response(text=f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    async def _forget(self, request: web.Request) -> web.Response:
        return web.json_response({"success": not self._busy})

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.models.add(body["model"])
        sampling = Sampling(body["temperature"], body["top_p"], body["top_k"], body.get("seed"), logprobs=True)
        turn = Turn("user", (Part(PartKind.CONTENT, ids=tuple(body["prompt"])),))
        asked = Request(Prompt((turn,)), body["max_tokens"], tuple(body.get("stop", ())), sampling)
        done = await self._backend.complete(asked)
        choice = {
            "index": 0,
            "text": done.text.removesuffix(done.stop_text or ""),
            "finish_reason": "length" if done.stop is Stop.LENGTH else "stop",
            "stop_reason": done.stop_text,
        }
        if body.get("return_token_ids"):
            choice |= {"token_ids": done.token_ids, "prompt_token_ids": body["prompt"]}
        if body.get("logprobs") is not None:
            choice["logprobs"] = {"token_logprobs": done.logprobs}
        usage = {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens}
        return web.json_response({"choices": [choice], "usage": usage})
