"""The agent loop with verl's own classes: its outputs are the rows that training in this process has."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from inftythink.backends.connect import SHIPPED
from inftythink.errors import UsageError
from inftythink.protocol import Outcome, Trajectory
from inftythink.train.advantage import Advantage, advantages
from inftythink.train.rollout import rows_of
from tests.adapters.script import ETA, GAMMA, PHI, PROBLEMS, TASK, Script, solved

pytestmark = pytest.mark.adapter

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


class Servers:
    """Replies from a script; ``generate`` is called as verl's client is."""

    def __init__(self, script: Script, aborts: bool = False) -> None:
        self.script, self.aborts, self.requests = script, aborts, list[dict[str, Any]]()

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        image_data: Any = None,
        video_data: Any = None,
        audio_data: Any = None,
        mm_processor_kwargs: Any = None,
        **kwargs: Any,
    ) -> TokenOutput:
        self.requests.append({"request_id": request_id} | sampling_params | kwargs)
        if self.aborts:
            return TokenOutput(token_ids=[], stop_reason="aborted", extra_fields={"global_steps": 3})
        ids, logprobs = self.script.reply(prompt_ids)
        steps = {"global_steps": 3, "min_global_steps": 3, "max_global_steps": 3 + len(self.requests) // 3}
        return TokenOutput(
            token_ids=ids, log_probs=logprobs, stop_reason="completed", num_preempted=0, extra_fields=steps
        )


def config(response: int = ETA + GAMMA) -> Any:
    rollout = {"prompt_length": 400, "response_length": response, "calculate_log_probs": True, "max_model_len": None}
    return OmegaConf.create({"actor_rollout_ref": {"model": {"path": str(SHIPPED)}, "rollout": rollout}})


def loop(servers: Any, trainer: Any = None, **settings: Any) -> Any:
    """Make the agent loop as verl's worker makes it."""
    from transformers import AutoTokenizer

    told = {"rounds": {"phi": PHI, "on_cut": "stop"}, "task": TASK, "task_settings": PROBLEMS} | settings
    return hydra.utils.instantiate(
        config=OmegaConf.create({"name": "inftythink", "_target_": "inftythink.adapters.verl.RoundsAgentLoop"} | told),
        trainer_config=DictConfigWrap(config=trainer or config()),
        server_manager=servers,
        tokenizer=AutoTokenizer.from_pretrained(SHIPPED),
        processor=None,
        hf_model_type="llama",
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(OmegaConf.create({})),
        tools=ToolListWrap([]),
    )


def row(trajectory: Trajectory, **fields: Any) -> dict[str, Any]:
    """A row of verl's data set."""
    prompt = [{"role": "user", "content": trajectory.problem.question}]
    return {"raw_prompt": prompt, "extra_info": {"id": trajectory.problem.id}, "uid": "u", "index": 0} | fields


@pytest.fixture(scope="module")
def found() -> list[list[Trajectory]]:
    return solved("stop", ETA)


def run(trajectory: Trajectory, **settings: Any) -> tuple[list[AgentLoopOutput], Servers]:
    servers = Servers(Script(trajectory))
    outputs = asyncio.run(loop(servers, **settings).run(dict(SAMPLING), priority=np.int64(5), **row(trajectory)))
    return outputs, servers


def test_the_scripted_servers_are_called_as_verls_client_is() -> None:
    assert str(inspect.signature(Servers.generate)).count("prompt_ids") == 1
    real, mine = (list(inspect.signature(each.generate).parameters) for each in (LLMServerClient, Servers))
    assert real == mine


@pytest.mark.parametrize("on_cut", ["stop", "summarise"])
def test_outputs_are_the_rows_of_the_in_process_rollout(found: list[list[Trajectory]], on_cut: str) -> None:
    some = found if on_cut == "stop" else solved("summarise", 20, samples=1)
    eta, several = ETA if on_cut == "stop" else 20, 0
    for trajectory in (each for group in some for each in group):
        outputs, servers = run(trajectory, rounds={"phi": PHI, "on_cut": on_cut, "eta": eta, "gamma": GAMMA})
        for output, expected in zip(outputs, rows_of(trajectory, 0.0), strict=True):
            assert tuple(output.prompt_ids) == expected.prompt_ids
            assert tuple(output.response_ids) == expected.completion_ids
            assert tuple(map(bool, output.response_mask)) == expected.sampled
            assert output.response_logprobs == pytest.approx(expected.logprobs)
            assert output.reward_score == float(trajectory.grade is not None and trajectory.grade["correct"])
            assert output.extra_fields["reward_extra_info"]["outcome"] == trajectory.outcome.value
        assert servers.script.left == 0
        assert len({request["request_id"] for request in servers.requests}) == 1
        assert all(request["priority"] == 5 for request in servers.requests)
        assert servers.requests[0]["stop"] == ["</summary>"]
        assert servers.requests[0]["max_tokens"] == eta + GAMMA
        several += len(outputs) > 1
    assert several


def test_verl_gives_every_round_the_advantage_of_its_trajectory(found: list[list[Trajectory]]) -> None:
    """By its own functions: what the outputs hold becomes a batch, and the batch its advantages."""
    keys: list[str] = []
    uids: list[str] = []
    fields: list[dict[str, Any]] = []
    expected: list[float] = []
    for number, group in enumerate(found):
        mine = advantages([0.0, 1.0], [1, 1], Advantage())
        for session, trajectory in enumerate(group):
            outputs, _ = run(trajectory)
            for output in outputs:
                output.reward_score = float(session)
            keys += [f"q{number}_{session}_{index}" for index in range(len(outputs))]
            uids += [f"q{number}"] * len(outputs)
            fields += [output.as_dict() for output in outputs]
            expected += [mine[session] or 0.0] * len(outputs)
    padded = {
        name: torch.nn.utils.rnn.pad_sequence([each[name] for each in fields], batch_first=True)
        for name in ("response_mask", "rm_scores", "rollout_log_probs")
    }
    batch = DataProto.from_single_dict(
        padded | {"token_level_rewards": padded["rm_scores"], "uid": np.array(uids, object)}
    )
    done = compute_advantage_for_multi_trajectories(batch, keys, AdvantageEstimator.GRPO)
    assert len(set(expected)) > 1
    for told, mask, value in zip(done.batch["advantages"], padded["response_mask"], expected, strict=True):
        assert told[mask == 1].tolist() == pytest.approx([value] * int(mask.sum()), abs=1e-4)
        assert not told[mask == 0].any()


def test_verls_worker_takes_the_list_and_gives_every_round_the_reward(
    found: list[list[Trajectory]], monkeypatch: pytest.MonkeyPatch
) -> None:
    put: dict[str, Any] = {}

    async def keep(**told: Any) -> None:
        put.update(told)

    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", keep)
    worker = object.__new__(agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    worker.reward_loop_worker_handles = worker.processor = None
    worker.distillation_enabled = False
    trajectory = max((each for group in found for each in group), key=lambda each: len(each.rounds))
    outputs, _ = run(trajectory)
    told = row(trajectory, session_id=1, global_steps=3)
    asyncio.run(worker._agent_loop_postprocess(outputs, False, **told))
    assert put["keys"] == [f"u_1_{number}" for number in range(len(trajectory.rounds))]
    for number, output in enumerate(outputs):
        assert put["fields"]["rm_scores"][number][-1].item() == output.reward_score
        assert put["fields"]["responses"][number].tolist() == output.response_ids
        assert put["tags"][number]["min_global_steps"] == 3
    asyncio.run(worker._agent_loop_postprocess([], False, **told))  # what has no verdict


def test_what_has_no_verdict_has_no_outputs(found: list[list[Trajectory]]) -> None:
    servers = Servers(Script(found[0][0]), aborts=True)
    assert asyncio.run(loop(servers).run(dict(SAMPLING), **row(found[0][0]))) == []


def test_a_reward_of_verls_own_sees_the_last_round(found: list[list[Trajectory]]) -> None:
    outputs, _ = run(found[0][0], task=None)
    assert [output.reward_score for output in outputs] == [None] * len(outputs)
    if found[0][0].outcome is Outcome.ANSWERED:
        assert outputs[-1].extra_fields["reward_extra_info"]["outcome"] == "answered"
    assert "rm_scores" not in outputs[-1].as_dict()


def test_a_window_that_summaries_outgrew_ends_the_trajectory_as_at_inference(found: list[list[Trajectory]]) -> None:
    long = max((each for group in found for each in group), key=lambda each: len(each.rounds))
    first = long.rounds[0].calls[0]
    assert first.prompt_ids is not None
    trainer = config()
    trainer.actor_rollout_ref.rollout.max_model_len = len(first.prompt_ids) + ETA + GAMMA
    servers = Servers(Script(long))
    outputs = asyncio.run(loop(servers, trainer).run(dict(SAMPLING), **row(long)))
    assert len(servers.requests) == 1
    assert [output.extra_fields["reward_extra_info"]["outcome"] for output in outputs] == ["truncated"]
    assert outputs[0].reward_score == 0.0


def test_verls_registry_stays_as_it_is(found: list[list[Trajectory]]) -> None:
    """A loop that registers itself replaces the settings in verl's registry by none, after the first trajectory."""
    run(found[0][0])
    assert "inftythink" not in _agent_loop_registry


def test_settings_that_cannot_work_are_refused(found: list[list[Trajectory]]) -> None:
    servers, trajectory = Servers(Script(found[0][0])), found[0][0]
    for problem, match in (
        ({"trainer": config(response=50)}, "set rollout.response_length"),
        ({"rounds": {"etta": 1}}, "rounds: .*etta"),
        ({"task_settings": {"limits": 1}}, "settings of the task: .*limits"),
    ):
        with pytest.raises(Exception, match=match):  # hydra tells the cause in an error of its own
            loop(servers, **problem)
    with pytest.raises(UsageError, match="have no problem 'other'"):
        asyncio.run(loop(servers).run(dict(SAMPLING), **row(trajectory, extra_info={"id": "other"})))
