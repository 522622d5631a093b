"""An environment for verifiers (0.4): a round is a branch of the trace, so a training sample (``docs/adapters.md``).

Read in verifiers 0.4.0 (``verifiers.v1``) and renderers 0.1.12. A trace is a graph of messages; a path from a root to
a leaf is a branch (``Trace.branches``). Rounds have the question in common and nothing behind it: each is a branch. A
harness may run in the process of the environment, as long as all calls of the model go through the interception server
that it is given. In training that server writes the prompts (``TrainClient``) with a renderer, and samples with the
settings of the run, whatever a request says: hence ``RoundsRenderer``, and the check in ``RoundsHarness``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from inftythink.adapters.questions import grade, items_of, task_settings
from inftythink.backends.base import Sampling
from inftythink.backends.openai import OpenAI, Retry
from inftythink.errors import UsageError, missing
from inftythink.protocol import Format, Outcome, Policy, Problem, Prompt, Trajectory, make_format
from inftythink.protocol.types import Role
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from inftythink.train.reward import make_reward

try:
    import verifiers.v1 as vf
    from pydantic import Field
    from renderers import BaseRendererConfig, ParsedResponse, RenderedTokens
except ImportError as error:
    raise missing("verifiers", "verifiers") from error

NOTE = "inftythink"
"""Where a trace's ``info`` holds the trajectory."""


class RoundsHarnessConfig(vf.HarnessConfig):  # type: ignore[misc]
    """How a question is reasoned about. ``engine`` is what runs behind the endpoint of the run."""

    id: str = "inftythink_verifiers"
    eta: int = Field(4096, ge=1)
    """Most tokens of thought in a round."""
    gamma: int = Field(1024, ge=1)
    """Most tokens of a summary."""
    phi: int = Field(5, ge=1)
    """Most rounds."""
    carry: Literal["summary", "none", "two_call"] = "summary"
    on_cut: Literal["summarise", "stop"] = "stop"
    on_limit: Literal["answer", "stop"] = "stop"
    instruction: str = ""
    """Text behind every question."""
    engine: Literal["vllm", "sglang", "llamacpp", "other"] = "vllm"


class RoundsHarness(vf.Harness[RoundsHarnessConfig]):  # type: ignore[misc]
    """Drives the protocol's machine in the process of the environment."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Reason about the task's question; leave the trajectory on the trace.

        Raises ``UsageError`` for a training whose settings do not fit the rounds.
        """
        policy = self._policy(ctx)
        backend = OpenAI(
            endpoint, ctx.model, secret, mode="chat", engine=self.config.engine, retry=Retry(attempts=1), timeout=3600.0
        )
        told = ctx.sampling
        sampling = Sampling(1.0 if told.temperature is None else told.temperature, told.top_p or 1.0)
        reasoner = Reasoner(backend, self.config.carry, policy, sampling, self.config.instruction, slots=1)
        async with reasoner:
            trajectory = await reasoner.solve(_problem(data))
        trace.info[NOTE] = trajectory.to_json()
        trace.root_reply = trajectory.conclusion or ""
        failed = trajectory.outcome is Outcome.FAILED
        return vf.ProgramResult(int(failed), trajectory.conclusion or "", trajectory.reason or "")

    def _policy(self, ctx: vf.ModelContext) -> Policy:
        """Return the limits; check that the run's sampling keeps to them where it overrules a request's."""
        mine = self.config
        policy = Policy(mine.eta, mine.gamma, mine.phi, on_cut=mine.on_cut, on_limit=mine.on_limit)
        if not isinstance(ctx.client, vf.TrainClientConfig):
            return policy
        if mine.carry == "two_call" or (mine.on_cut, mine.on_limit) != ("stop", "stop"):
            raise UsageError("training takes the carries summary and none, with on_cut and on_limit 'stop'")
        told, most = ctx.sampling.model_dump(), mine.eta + mine.gamma
        stop = list(make_format(mine.carry).stop) if mine.carry == "summary" else []
        if told.get("max_tokens") != most or list(told.get("stop") or []) != stop:
            raise UsageError(
                "training samples with the run's settings, not with a request's: set sampling.max_tokens to "
                f"eta + gamma ({most}) and sampling.stop to {stop}"
            )
        return policy


class RoundsRendererConfig(BaseRendererConfig):  # type: ignore[misc]
    """The prompt's layout: the chat template's, or plain for base models."""

    template: Literal["auto", "chat", "plain"] = "auto"
    eos_ids: tuple[int, ...] = ()
    """Tokens that end a text besides those that the tokenizer and its template name."""

    _internal_fields = frozenset({"template", "eos_ids"})


class RoundsRenderer:
    """Writes prompts of rounds for training as this package's renderer does, id for id; reads nothing into answers.

    The last message may be a begun turn of the assistant (``<history>`` and ``<think>``), which is gone on with.
    ``renderer = {name = "custom", import_path = "inftythink.adapters.verifiers.RoundsRenderer"}``.
    """

    config_class = RoundsRendererConfig
    supports_tools = False
    is_prefix_stable = False

    def __init__(self, tokenizer: Any, config: RoundsRendererConfig | None = None) -> None:
        self.config = config or RoundsRendererConfig()
        self.renderer = Renderer(tokenizer, template=self.config.template, eos_ids=self.config.eos_ids)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, add_generation_prompt: bool = False
    ) -> RenderedTokens:
        """Return the ids of a prompt. No token is attributed to a message: a branch keeps them all on its answer."""
        ids = self.render_ids(messages)
        roles = [str(message["role"]) for message in messages]
        return RenderedTokens(
            token_ids=ids, message_indices=[-1] * len(ids), message_roles=roles, message_tool_names=[None] * len(roles)
        )

    def render_ids(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, add_generation_prompt: bool = False
    ) -> list[int]:
        """Return the ids of a prompt."""
        return self.renderer.ids(prompt_of(messages))

    def parse_response(self, token_ids: Sequence[int], *, tools: Any = None, prompt_ids: Any = None) -> ParsedResponse:
        """Return all that was drawn as content, but for the token that ends the text."""
        ended = bool(token_ids) and token_ids[-1] in self.renderer.eos_ids
        return ParsedResponse(content=self.renderer.decode(list(token_ids[:-1] if ended else token_ids)))

    def get_stop_token_ids(self) -> list[int]:
        """Return the ids that end a text."""
        return sorted(self.renderer.eos_ids)

    def bridge_to_next_turn(self, *args: Any, **kwargs: Any) -> None:
        """Return None: no round goes on where another ended."""


def prompt_of(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """Return the prompt that was sent as messages: the protocol opens the round again from what they say.

    Raises ``UsageError`` for a begun turn that the protocol did not write.
    """
    fmt, begun = Format(), None
    if messages[-1]["role"] == "assistant":
        *messages, last = messages
        begun = str(last["content"])
    *before, question = messages
    plain = fmt.tags.unescape if begun is not None else str
    context = tuple((cast(Role, turn["role"]), plain(_text(turn["content"]))) for turn in before)
    problem = Problem("", plain(_text(question["content"])), context=context)
    if begun is None:
        return Prompt(fmt.ask(problem, escape=False))
    found = _OPENED.fullmatch(begun)
    if found is None:
        raise UsageError(f"not a round that the protocol opened: {begun[:80]!r}")
    return fmt.open(problem, None if found[1] is None else fmt.tags.unescape(found[1]))


_OPENED = re.compile(r"(?:<history>\n(.*)\n</history>\n)?<think>\n", re.DOTALL)


def _text(content: Any) -> str:
    """Return the text of a message's content, whole or in parts."""
    return (
        content
        if isinstance(content, str)
        else "".join(part["text"] if isinstance(part, dict) else part.text for part in content)
    )


class RoundsData(vf.TaskData):  # type: ignore[misc]
    """A question; ``problem`` is its id, ``TASK/PROBLEM``."""

    problem: str
    answer: str | None = None


class RoundsTaskConfig(vf.TaskConfig):  # type: ignore[misc]
    """Which tasks of this package are asked, and what an answer is worth."""

    tasks: str = "collatz"
    """Names of tasks, a comma between."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Which problems of the tasks (``limit``, ``problems``, ``lines``, ``seed``, …)."""
    reward: list[str] = Field(default_factory=lambda: ["task"])
    """Factors of the reward: ``task``, ``efficiency``, ``MODULE:FUNCTION``."""
    decay: Literal["quadratic", "linear", "logarithmic"] = "quadratic"
    phi: int = 5
    """Most rounds, for ``efficiency``: the harness's."""


class RoundsTask(vf.Task[RoundsData, vf.State, RoundsTaskConfig]):  # type: ignore[misc]
    """A problem with its grader."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def worth(self, trace: vf.Trace) -> float:
        """Return the reward of the whole trajectory. Raises where its answer could not be graded: it is left out."""
        mine = self.config
        item = items_of(mine.tasks, task_settings(mine.settings))[self.data.problem]
        trajectory = Trajectory.from_json(trace.info[NOTE])
        verdict: dict[str, Any] = {"correct": False, "extracted": None, "reason": trajectory.outcome.value}
        if trajectory.outcome is Outcome.ANSWERED:
            verdict = await asyncio.wrap_future(grade(item, trajectory.conclusion))
        trajectory = dataclasses.replace(trajectory, grade=verdict)
        trace.info[NOTE] = trajectory.to_json()
        reward = make_reward(tuple(mine.reward), mine.phi, mine.decay)(trajectory)
        if reward is None:
            raise vf.TaskError(f"{self.data.problem}: no reward ({verdict['reason']})")
        return reward

    @vf.metric  # type: ignore[untyped-decorator]
    async def rounds(self, trace: vf.Trace) -> dict[str, float]:
        """Return the number of rounds, and which outcome it was."""
        outcome = trace.info[NOTE]["outcome"]
        return {"rounds": len(trace.info[NOTE]["rounds"])} | {
            each.value: float(each.value == outcome) for each in Outcome
        }


class RoundsTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """The taskset's settings: those of its tasks."""

    id: str = "inftythink_verifiers"
    task: RoundsTaskConfig = RoundsTaskConfig()


class RoundsTaskset(vf.Taskset[RoundsTask, RoundsTasksetConfig]):  # type: ignore[misc]
    """The problems of this package's tasks."""

    def load(self) -> Iterator[RoundsTask]:
        """Yield the tasks in their order."""
        mine = self.config.task
        for name, item in items_of(mine.tasks, task_settings(mine.settings)).items():
            problem = item.problem
            turns = [{"role": role, "content": text} for role, text in (*problem.context, ("user", problem.question))]
            prompt = turns if problem.context else problem.question
            yield RoundsTask(RoundsData(problem=name, name=name, prompt=prompt, answer=problem.answer), mine)


class RoundsEnvConfig(vf.SingleAgentEnvConfig):  # type: ignore[misc]
    """One agent, which runs in the process of the environment."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class RoundsEnv(vf.SingleAgentEnv, vf.Env[RoundsEnvConfig]):  # type: ignore[misc]
    """One question, one trajectory."""


def _problem(data: vf.TaskData) -> Problem:
    """Return the question of a task: the last of its messages, those before it the context."""
    asked = [vf.UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else list(data.prompt)
    told = [vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
    turns = [(str(turn.role), _text(turn.content)) for turn in (*told, *asked)]
    *before, (role, question) = turns
    if role != "user":
        raise UsageError(f"the last message of a prompt is the user's question, not one of {role!r}")
    return Problem(str(getattr(data, "problem", data.idx)), question, context=tuple(cast(Any, before)))
