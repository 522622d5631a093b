"""An agent loop for verl (0.9): a trajectory becomes a list of outputs, one for each round (``docs/adapters.md``).

Read in verl 0.9.1: the V1 trainer (``trainer.use_v1``, its default) takes a list from an agent loop
(``trainer/ppo/v1/agent_loop_tq.py``), gives the last output's reward to all, and computes the advantages of GRPO from
the last outputs alone, shared by all outputs of a trajectory (``compute_advantage_for_multi_trajectories``).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from inftythink.adapters import questions
from inftythink.backends._assemble import StopCutter
from inftythink.backends.base import Capabilities, Delta, Request, Sampling
from inftythink.errors import BackendError, ContextTooLongError, UsageError, missing
from inftythink.protocol import Completion, Outcome, Problem, Stop, Trajectory
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from inftythink.tasks.base import Item
from inftythink.train.model import ends_of
from inftythink.train.reward import is_known, make_reward
from inftythink.train.rl_settings import policy_of
from inftythink.train.rollout import rows_of, sample

try:
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
except ImportError as error:
    raise missing("verl", "verl") from error


class Servers:
    """A backend: verl's ``LLMServerClient``, for one trajectory.

    Args:
        client: has ``generate(request_id, *, prompt_ids, sampling_params, priority)``.
        renderer: writes prompts, and reads what was drawn.
        sampling: what verl samples with; limits and stop strings of a call are put over it.
        context: tokens that fit the model's window.
        request_id: one for all rounds of a trajectory, so that they go to the same server.
        priority: of the requests.
    """

    def __init__(
        self,
        client: Any,
        renderer: Renderer,
        sampling: Mapping[str, Any],
        context: int,
        request_id: str,
        priority: int = 0,
    ) -> None:
        self._client, self._renderer, self._sampling = client, renderer, dict(sampling)
        self._context, self._request_id, self._priority = context, request_id, priority
        self.told: list[dict[str, Any]] = []
        """The ``extra_fields`` of every call, with ``num_preempted`` and ``seconds``."""

    @property
    def name(self) -> str:
        """For messages."""
        return "verl"

    @property
    def capabilities(self) -> Capabilities:
        """Ids in, ids out."""
        return Capabilities(prefill=True, token_ids=True, logprobs=bool(self._sampling.get("logprobs")))

    async def start(self) -> None:
        """Do nothing: verl runs the servers."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def complete(self, request: Request) -> Completion:
        """Generate once.

        Raises ``ContextTooLongError`` where verl would lower the limit in silence, ``BackendError`` for a call that
        came back without what was asked for.
        """
        ids = self._renderer.ids(request.prompt)
        if len(ids) + request.max_tokens > self._context:
            raise ContextTooLongError(
                f"{len(ids)} prompt tokens and {request.max_tokens} more do not fit the context of {self._context}: "
                "set rollout.prompt_length and rollout.response_length, or rollout.max_model_len, higher"
            )
        params = self._sampling | {"max_tokens": request.max_tokens}
        if request.stop:
            params["stop"] = list(request.stop)
        began = time.perf_counter()
        output = await self._client.generate(
            request_id=self._request_id, prompt_ids=list(ids), sampling_params=params, priority=self._priority
        )
        seconds = time.perf_counter() - began
        self.told.append({**output.extra_fields, "num_preempted": output.num_preempted, "seconds": seconds})
        return self._read(request, ids, output, seconds)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Generate once; verl's servers do not stream."""
        yield await self.complete(request)

    def _read(self, request: Request, ids: Sequence[int], output: Any, seconds: float) -> Completion:
        """Say how the text ended, which verl does not tell apart: by itself, at a stop string, or at its limit."""
        drawn, logprobs = list(output.token_ids), output.log_probs
        if logprobs is not None and len(logprobs) != len(drawn):
            raise BackendError(f"verl told {len(logprobs)} log-probabilities for {len(drawn)} tokens")
        ended = bool(drawn) and drawn[-1] in self._renderer.eos_ids
        cutter = StopCutter(request.stop)
        text = cutter.feed(self._renderer.decode(drawn[:-1] if ended else drawn))
        if cutter.matched is not None:
            while len(drawn) > 1 and cutter.matched in self._renderer.decode(drawn[:-1]):
                drawn.pop()
        aborted = output.stop_reason == "aborted"
        stop = Stop.ABORT if aborted else Stop.STOP if ended or cutter.matched is not None else Stop.LENGTH
        return Completion(
            text=text,
            stop=stop,
            stop_text=cutter.matched,
            prompt_tokens=len(ids),
            completion_tokens=len(drawn),
            cached_tokens=output.extra_fields.get("num_cached_tokens"),
            prompt_ids=tuple(ids),
            token_ids=tuple(drawn),
            logprobs=None if logprobs is None else tuple(map(float, logprobs[: len(drawn)])),
            seconds=seconds,
            error="verl aborted the request" if aborted else None,
        )


# Not registered with verl: that would take the place of what the file says, once the first loop was made.
class RoundsAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Reasons in rounds with verl's servers; ``run`` returns an output for each round.

    verl makes one for every trajectory. What is set stands beside ``_target_`` in the file that
    ``rollout.agent.agent_loop_config_path`` names:

    Args:
        *args: What verl gives to every agent loop.
        rounds: ``inftythink rl``'s settings of the same name (``rounds.eta``, ``rounds.carry``, …).
        task: Tasks whose graders reward (a comma between); a row's ``extra_info.id`` is the problem's. None leaves the
            reward to verl's own reward function, which sees the last round.
        task_settings: Which problems of the tasks.
        reward: Factors of the reward, as ``inftythink rl`` has them.
        decay: How ``efficiency`` falls with the rounds.
        **kwargs: What verl gives to every agent loop, by name.
    """

    def __init__(
        self,
        *args: Any,
        rounds: Mapping[str, Any] | None = None,
        task: str | None = None,
        task_settings: Mapping[str, Any] | None = None,
        reward: Sequence[str] = ("task",),
        decay: Any = "quadratic",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        model = self.config.actor_rollout_ref.get("model", {}).get("path")
        self._rounds = questions.rounds_of(_plain(rounds), model)
        self._policy = policy_of(self._rounds, seed=0)
        self._items = None if task is None else questions.items_of(task, questions.task_settings(_plain(task_settings)))
        self._reward = make_reward(tuple(reward), self._rounds.phi, decay)
        self._renderer = Renderer(
            self.tokenizer,
            template=self._rounds.template,
            template_options=self._rounds.template_option,
            eos_ids=ends_of(model),
        )
        there = self.rollout_config
        if not there.calculate_log_probs:
            raise UsageError("set rollout.calculate_log_probs=True: the rows hold what the sampler's tokens were worth")
        self._context = there.get("max_model_len") or there.prompt_length + there.response_length
        most = self._policy.eta + self._policy.gamma
        if most > there.response_length:
            raise UsageError(f"a round may take eta + gamma = {most} tokens: set rollout.response_length to that")

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **kwargs: Any) -> list[AgentLoopOutput]:
        """Return the outputs of a trajectory's rounds; none when it FAILED or its answer could not be graded.

        A trajectory without outputs has no part in its group.
        """
        fixed = getattr(self.rollout_config, "full_determinism", False)
        request_id = f"det-{int(priority)}" if fixed else uuid4().hex
        servers = Servers(
            self.server_manager, self._renderer, sampling_params, self._context, request_id, int(priority)
        )
        reasoner = Reasoner(
            servers,
            self._rounds.carry,
            self._policy,
            Sampling(logprobs=bool(sampling_params.get("logprobs"))),
            self._rounds.instruction,
            slots=1,
        )
        trajectory = await self._reason(reasoner, _problem(kwargs))
        if trajectory.outcome is Outcome.FAILED or (self._items is not None and not is_known(trajectory)):
            return []
        return self._outputs(trajectory, servers.told)

    async def _reason(self, reasoner: Reasoner, problem: Problem) -> Trajectory:
        """Reason; grade where the graders are this package's."""
        if self._items is None:
            return await reasoner.solve(problem)
        if problem.id not in self._items:
            raise UsageError(f"the tasks of the agent loop have no problem {problem.id!r} (extra_info.id of the row)")
        known = self._items[problem.id]
        [[trajectory]] = await sample(
            reasoner, [Item(problem, known.grader, known.data, known.group)], 1, questions.grade
        )
        return trajectory

    def _outputs(self, trajectory: Trajectory, told: Sequence[Mapping[str, Any]]) -> list[AgentLoopOutput]:
        """Return an output for each round. All have the same fields, which verl stacks."""
        reward = None if self._items is None else self._reward(trajectory)
        steps = [
            each[name]
            for each in told
            for name in ("min_global_steps", "max_global_steps")
            if each.get(name) is not None
        ]
        fields: dict[str, Any] = {
            "turn_scores": [],
            "tool_rewards": [],
            "min_global_steps": min(steps, default=None),
            "max_global_steps": max(steps, default=None),
            "reward_extra_info": {"outcome": trajectory.outcome.value, "rounds": len(trajectory.rounds)},
        }
        metrics = AgentLoopMetrics(
            generate_sequences=sum(each["seconds"] for each in told),
            num_preempted=sum(each["num_preempted"] or 0 for each in told),
        )
        return [
            AgentLoopOutput(
                prompt_ids=list(row.prompt_ids),
                response_ids=list(row.completion_ids),
                response_mask=[int(drawn) for drawn in row.sampled],
                response_logprobs=list(row.logprobs),
                reward_score=reward,
                num_turns=2 * len(trajectory.rounds),
                metrics=metrics,
                extra_fields=dict(fields),
            )
            for row in rows_of(trajectory, 0.0)
        ]


def _problem(row: Mapping[str, Any]) -> Problem:
    """Return the question of a row of verl's data set: the last of its messages, those before it the context."""
    *before, question = list(row["raw_prompt"])
    if question["role"] != "user":
        raise UsageError(f"the last message of a prompt is the user's question, not one of {question['role']!r}")
    told = row.get("extra_info") or {}
    context = tuple((turn["role"], turn["content"]) for turn in before)
    return Problem(str(told.get("id", row.get("uid", "0"))), question["content"], context=context)


def _plain(given: Any) -> dict[str, Any]:
    """Return what hydra made of a mapping as plain values."""
    found = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    return dict(found or {})
