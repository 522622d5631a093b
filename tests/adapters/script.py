"""What the model that ships says, written down: engines that are given the same tokens must make the same rows."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

from inftythink.adapters.questions import grade, items_of
from inftythink.backends.base import Sampling
from inftythink.backends.connect import SHIPPED
from inftythink.protocol import Policy, Trajectory
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from inftythink.tasks.base import TaskSettings
from inftythink.train.rollout import sample
from inftythink.train.sampler import InTurns, ready

TASK, PROBLEMS = "automaton", {"problems": 3, "lines": [4, 7]}
ETA, GAMMA, PHI = 63, 22, 6

Drawn = tuple[tuple[int, ...], tuple[float, ...]]


def solved(on_cut: str, eta: int, samples: int = 2) -> list[list[Trajectory]]:
    """The graded trajectories of each question, sampled in this process as ``inftythink rl`` samples."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(SHIPPED)
    reasoner = Reasoner(
        InTurns(model, Renderer.load(SHIPPED), max_batch=4, max_cache_tokens=4096),
        policy=Policy(eta, GAMMA, PHI, on_cut=on_cut, on_limit="stop"),  # type: ignore[arg-type]
        sampling=Sampling(1.0, 1.0, 0, 7, logprobs=True),
    )
    items = list(items_of(TASK, TaskSettings(problems=3, lines=(4, 7))).values())

    async def work() -> list[list[Trajectory]]:
        async with reasoner:
            return await sample(reasoner, items, samples, grade)

    with ready(model):
        return asyncio.run(work())


class Script:
    """Replies of one trajectory at a time: what was drawn behind the ids of a prompt, in the order it was drawn."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._replies: defaultdict[tuple[int, ...], deque[Drawn]] = defaultdict(deque)
        for this in trajectory.rounds:
            for call in this.calls:
                assert call.prompt_ids is not None
                assert call.token_ids is not None
                assert call.logprobs is not None
                self._replies[call.prompt_ids].append((call.token_ids, call.logprobs))

    def reply(self, prompt_ids: list[int]) -> Drawn:
        """What was drawn. Raises ``IndexError`` for a prompt that inference never gave."""
        return self._replies[tuple(prompt_ids)].popleft()

    @property
    def left(self) -> int:
        """Replies that were not asked for."""
        return sum(map(len, self._replies.values()))
