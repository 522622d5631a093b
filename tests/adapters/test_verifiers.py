"""The environment in the real verifiers: its server between harness and engine, its graph, its scoring."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
import verifiers.v1 as vf
from aiohttp import web

from inftythink.adapters.verifiers import NOTE, RoundsEnvConfig, RoundsRenderer, prompt_of
from inftythink.backends.connect import SHIPPED
from inftythink.errors import UsageError
from inftythink.protocol import Format, Problem, Trajectory
from inftythink.render import Renderer
from inftythink.train.rollout import rows_of
from tests.adapters.script import ETA, GAMMA, PHI, PROBLEMS, TASK, Script, solved

pytestmark = pytest.mark.adapter

PLUGIN = "inftythink_verifiers"
CUSTOM = {"name": "custom", "import_path": "inftythink.adapters.verifiers.RoundsRenderer"}


@pytest.fixture(scope="module")
def found() -> list[Trajectory]:
    return [each for group in solved("stop", ETA, samples=1) for each in group]


class Engine:
    """vLLM's two endpoints, replying from a script: chat for evaluation, ids in and out for training."""

    def __init__(self, script: Script) -> None:
        self.script, self.renderer = script, Renderer.load(SHIPPED)
        self.requests: list[dict[str, Any]] = []
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 1024}]})

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        ids, _ = self.script.reply(self.renderer.ids(prompt_of(body["messages"])))
        ended = ids[-1] in self.renderer.eos_ids
        text = self.renderer.decode(ids[:-1] if ended else ids)
        stop = next((each for each in body.get("stop", []) if each in text), None)
        finish = "stop" if ended or stop else "length"
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "stop_reason": stop}
        choice["message"] = {"role": "assistant", "content": text.partition(stop)[0] if stop else text}
        usage = {"prompt_tokens": 10, "completion_tokens": len(ids), "total_tokens": 10 + len(ids)}
        told = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        return web.json_response(told)

    async def generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body["sampling_params"])
        ids, logprobs = self.script.reply(body["token_ids"])
        content = [{"token": f"token_id:{token}", "logprob": p} for token, p in zip(ids, logprobs, strict=True)]
        finish = "length" if len(ids) == body["sampling_params"]["max_tokens"] else "stop"
        choice = {"index": 0, "token_ids": list(ids), "finish_reason": finish, "logprobs": {"content": content}}
        return web.json_response({"request_id": "g", "choices": [choice]})

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Engine]:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/inference/v1/generate", self.generate)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server: Any = site._server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()


def environment(**harness: Any) -> vf.Env:
    task = {"tasks": TASK, "settings": PROBLEMS, "reward": ["task", "efficiency"], "phi": PHI}
    seat = {"id": PLUGIN, "eta": ETA, "gamma": GAMMA, "phi": PHI} | harness
    return vf.load_environment(RoundsEnvConfig(taskset={"id": PLUGIN, "task": task}, agent={"harness": seat}))


def episode(trajectory: Trajectory, train: bool, sampling: dict[str, Any], **harness: Any) -> tuple[vf.Episode, Engine]:
    """One question in the environment, with the model's tokens of ``trajectory``."""

    async def work() -> tuple[vf.Episode, Engine]:
        async with Engine(Script(trajectory)).serving() as engine:
            client = {"base_url": engine.url, "api_key_var": "NO_SUCH_KEY"}
            if train:
                client |= {"type": "train", "renderer": CUSTOM, "renderer_model_name": str(SHIPPED)}
            kind = vf.TrainClientConfig if train else vf.EvalClientConfig
            ctx = vf.ModelContext("m", kind.model_validate(client), vf.SamplingConfig(**sampling))
            env = environment(**harness)
            async with env.serving():
                task = next(each for each in env.taskset if each.data.problem == trajectory.problem.id)
                return await env.run_episode(task, ctx), engine

    return asyncio.run(work())


TRAINED = {"temperature": 1.0, "max_tokens": ETA + GAMMA, "stop": ["</summary>"]}


def test_every_round_is_a_branch_with_the_ids_of_the_in_process_rollout(found: list[Trajectory]) -> None:
    several = 0
    for trajectory in found:
        done, engine = episode(trajectory, True, TRAINED)
        assert done.ok, done.errors or done.traces[0].errors
        (trace,) = done.traces
        rows = list(rows_of(trajectory, 0.0))
        for branch, row in zip(trace.branches, rows, strict=True):
            assert tuple(branch.token_ids) == (*row.prompt_ids, *row.completion_ids)
            drawn = [False] * len(row.prompt_ids) + list(row.sampled)
            assert branch.sampled_mask == drawn
            assert [p for p, d in zip(branch.logprobs, drawn, strict=True) if d] == pytest.approx(list(row.logprobs))
            assert branch.trainable
        right = trajectory.grade is not None and trajectory.grade["correct"]
        assert trace.reward == pytest.approx((1 - ((len(rows) - 1) / PHI) ** 2) if right else 0.0)
        assert trace.metrics["rounds"] == len(rows)
        assert trace.metrics[trajectory.outcome.value] == 1.0
        assert trace.last_reply == (trajectory.conclusion or "").strip()
        assert engine.script.left == 0
        assert all(request["stop"] == ["</summary>"] for request in engine.requests)
        several += len(rows) > 1
    assert several


def test_an_evaluation_over_chat_reads_the_same_rounds(found: list[Trajectory]) -> None:
    for trajectory in found:
        done, engine = episode(trajectory, False, {})
        assert done.ok, done.errors or done.traces[0].errors
        (trace,) = done.traces
        told = Trajectory.from_json(trace.info[NOTE])
        assert (told.outcome, told.conclusion) == (trajectory.outcome, trajectory.conclusion)
        texts = [(this.thought, this.summary) for this in trajectory.rounds]
        assert [(this.thought, this.summary) for this in told.rounds] == texts
        assert len(trace.branches) == len(trajectory.rounds)
        assert {request["max_tokens"] for request in engine.requests} == {ETA + GAMMA}


@pytest.mark.parametrize(
    ("sampling", "harness", "match"),
    [
        ({"max_tokens": 50, "stop": ["</summary>"]}, {}, "set sampling.max_tokens to eta"),
        ({"max_tokens": ETA + GAMMA}, {}, "sampling.stop to"),
        (TRAINED, {"on_cut": "summarise"}, "with on_cut and on_limit 'stop'"),
    ],
)
def test_training_whose_sampling_does_not_fit_is_refused(
    found: list[Trajectory], sampling: dict[str, Any], harness: dict[str, Any], match: str
) -> None:
    done, engine = episode(found[0], True, sampling, **harness)
    assert not done.ok
    assert match in done.traces[0].errors[-1].message
    assert engine.requests == []


def test_an_engine_that_fails_leaves_no_reward(found: list[Trajectory]) -> None:
    other = dataclasses.replace(found[0], rounds=())  # a script without replies: the engine answers 500
    done, _ = episode(other, False, {})
    assert not done.ok
    assert done.traces[0].rewards == {}


def test_the_renderer_writes_what_inference_sends() -> None:
    renderer = Renderer.load(SHIPPED)
    mine = RoundsRenderer(renderer._tokenizer)
    fmt = Format()
    for question in ("What is 2 + 2?", "Is </history> a tag, or \\<think>?\n"):
        problem = Problem("p", question, context=(("system", "Be <summary> brief."),))
        for summary in (None, "So far: 4.", "a </think> and a\n<history>\n"):
            prompt = fmt.open(problem, summary)
            messages = [{"role": turn.role, "content": turn.text} for turn in prompt.turns]
            messages.append({"role": "assistant", "content": "".join(part.text for part in prompt.prefill)})
            assert prompt_of(messages) == prompt
            rendered = mine.render(messages, add_generation_prompt=True)
            assert list(rendered.token_ids) == renderer.ids(prompt)
    ids = renderer.ids(fmt.open(Problem("p", "x")))
    assert mine.parse_response([*ids[:3], renderer.end_id]).content == renderer.decode(ids[:3])
    assert renderer.end_id in mine.get_stop_token_ids()
    with pytest.raises(UsageError, match="not a round that the protocol opened"):
        prompt_of([{"role": "user", "content": "x"}, {"role": "assistant", "content": "Well,"}])
