"""A run samples: questions to groups of graded trajectories, with the weights that are being trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from inftythink.backends.base import Sampling
from inftythink.errors import UsageError
from inftythink.protocol import Trajectory
from inftythink.reasoner import Reasoner, derive_seed, run_sync
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.registry import load_task
from inftythink.train.reward import make_reward
from inftythink.train.rl_settings import RlConfig, policy_of
from inftythink.train.rollout import (
    Grading,
    Group,
    Questions,
    figures,
    make_group,
    sample,
    save_groups,
    save_rows,
    save_trajectories,
)

if TYPE_CHECKING:
    from inftythink.render import Renderer
    from inftythink.train.rl_trainer import RoundsTrainer
    from inftythink.train.sampler import Sampler


def read_items(tasks: str, chosen: TaskSettings) -> list[Item]:
    """Return the problems of tasks, a comma between; their ids are ``TASK/PROBLEM``. Raises as ``Task.items`` does."""
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"tasks {tasks!r}: give each task once, a comma between")
    found = ((name, item) for name in names for item in load_task(name).items(chosen))
    return [_named(item, f"{name}/{item.problem.id}") for name, item in found]


def _named(item: Item, name: str) -> Item:
    return dataclasses.replace(item, problem=dataclasses.replace(item.problem, id=name))


class Run:
    """Samples for the trainer: questions to groups, with the weights that are being trained."""

    def __init__(self, config: RlConfig, items: Sequence[Item], examined: Sequence[Item], grading: Grading) -> None:
        self.config, self.grading = config, grading
        known = {item.problem.question for item in items}
        self.examined = [item for item in examined if item.problem.question not in known]
        self.questions = Questions(items, config.group.questions, config.seed)
        self.reward = make_reward(config.reward, config.rounds.phi, config.decay)
        self.policy = policy_of(config.rounds, config.seed)
        self.renderer: Renderer
        self.trainer: RoundsTrainer
        self.sampler: Sampler
        self._sampled_after: int | None = None

    def roll_out(self, step: int) -> tuple[list[Group], dict[str, float]]:
        """Return the groups of a step, of all processes; write them down."""
        began, config = monotonic(), self.config
        heat, number = config.group.temperature, config.group.samples
        asked = self.questions.of(step)
        groups = self._groups(asked, heat, number, (step, 0))
        sampled = [(item, group) for item, group in zip(asked, groups, strict=True)]
        for attempt in range(1, config.group.resample + 1):
            flat = [place for place, group in enumerate(groups) if not group.spread]
            others = self.questions.others(step, attempt, len(flat), (item for item, _ in sampled))
            new = self._groups(others, heat, number, (step, attempt))
            sampled += zip(others, new, strict=True)
            for place, group in zip(flat, new, strict=False):
                groups[place] = group
        if self.trainer.is_world_process_zero():
            self._write(step + 1, sampled, groups)
        every = [trajectory for _, group in sampled for trajectory in group.trajectories]
        known = [reward for _, group in sampled for reward in group.rewards if reward is not None]
        told = {"reward": sum(known) / max(1, len(known))} | figures(every)
        told |= {"groups_without_spread": sum(not group.spread for _, group in sampled), "groups": len(sampled)}
        return groups, told | {"time/sampling": monotonic() - began}

    def examine(self, step: int) -> dict[str, float]:
        """Return the figures of the examination after a step; write its trajectories down."""
        chosen = self.config.examine
        found = self._sample(self.examined, chosen.temperature, chosen.samples, ("examine",))
        every = [trajectory for some in found for trajectory in some]
        if self.trainer.is_world_process_zero():
            save_trajectories(self.config.output / "examinations" / f"{step:06d}", self.examined, every)
        return figures(every)

    def _write(self, step: int, sampled: Sequence[tuple[Item, Group]], groups: Sequence[Group]) -> None:
        folder = self.config.output / "rollouts" / f"{step:06d}"
        every = [group for _, group in sampled]
        save_trajectories(folder, (item for item, _ in sampled), (t for group in every for t in group.trajectories))
        save_groups(folder, every)
        if self.config.save_rows != "none":
            save_rows(folder / f"rows.{self.config.save_rows}", (row for group in groups for row in group.rows()))

    def _groups(self, items: Sequence[Item], heat: float, samples: int, names: tuple[object, ...]) -> list[Group]:
        found = self._sample(items, heat, samples, names)
        return [make_group(trajectories, self.reward, self.config.advantage) for trajectories in found]

    def _sample(
        self, items: Sequence[Item], heat: float, samples: int, names: tuple[object, ...]
    ) -> list[list[Trajectory]]:
        """Return the graded trajectories of each question; each process samples its share, and has those of all."""
        from accelerate.utils import gather_object

        there = self.trainer.accelerator
        mine = items[there.process_index :: there.num_processes]
        self._update()
        with self.sampler.backend() as backend:
            seed = derive_seed(self.config.seed, *names)
            reasoner = Reasoner(
                backend,
                self.config.rounds.carry,
                self.policy,
                Sampling(heat, 1.0, 0, seed, logprobs=True),
                self.config.rounds.instruction,
                slots=2 * self.config.max_batch,
            )
            found = run_sync(_with(reasoner, mine, samples, self.grading))
        every: list[list[list[Trajectory]]] = gather_object([found])
        return [every[i % there.num_processes][i // there.num_processes] for i in range(len(items))]

    def _update(self) -> None:
        """Let the sampler take over the weights if an update changed them since it last did."""
        updates = self.trainer.state.global_step
        if self._sampled_after != updates:
            self.sampler.update()
            self._sampled_after = updates


async def _with(reasoner: Reasoner, items: Sequence[Item], samples: int, grading: Grading) -> list[list[Trajectory]]:
    async with reasoner:
        return await sample(reasoner, items, samples, grading)
