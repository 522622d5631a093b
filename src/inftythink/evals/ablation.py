"""The restart ablation: does a model need what its summaries say?

A trajectory of n rounds is continued behind its round n // 2 once more, from its own summary, an empty one, a shuffled
one, or all that was thought until then. What answers differ shows what the summary carried (docs/metrics.md). A
restarted trajectory has a first round without thought, of which the history is the summary; it was not generated, so
tokens are those of the continuation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from inftythink.evals.restart import History, history
from inftythink.evals.run import Asked
from inftythink.protocol import Completion, Format, Outcome, Stop, Trajectory
from inftythink.store import RunFolder

NOTHING = "-"
"""Stands for an empty history: the protocol has no summary without text."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A trajectory to continue from a history; as a problem of the task ``TASK:HISTORY``."""

    asked: Asked
    sample: int
    history: str


def restarts(trajectories: Iterable[Trajectory], asked: Iterable[Asked], hows: Sequence[History]) -> Iterator[Restart]:
    """Yield the restarts of all trajectories that wrote a summary in the round where they are cut."""
    known = {one.id: one for one in asked}
    for trajectory in trajectories:
        middle = len(trajectory.rounds) // 2
        one = known.get(trajectory.problem.id)
        if one is None or not middle or trajectory.outcome is Outcome.FAILED:
            continue
        summary = trajectory.rounds[middle - 1].summary
        if summary is None:
            continue
        thoughts = [each.thought for each in trajectory.rounds[:middle]]
        for how in hows:
            text = history(how, summary, thoughts) or NOTHING
            yield Restart(dataclasses.replace(one, task=f"{one.task}:{how}"), trajectory.sample, text)


class Planted:
    """A journal that begins every trajectory with a planted round, and is ``folder`` for the rest."""

    def __init__(self, folder: RunFolder, planted: Iterable[Restart], fmt: Format, carry: str) -> None:
        self._folder, self._format, self._carry = folder, fmt, carry
        self._planted = {(one.asked.id, one.sample): one.history for one in planted}

    def is_done(self, problem_id: str, sample: int) -> bool:
        """Leave out what is done, and samples that there is nothing to continue of."""
        return (problem_id, sample) not in self._planted or self._folder.is_done(problem_id, sample)

    def replay(self, problem_id: str, sample: int) -> list[Completion]:
        """Return the calls on record; where there are none, the planted ones, which are put on record."""
        known = self._folder.replay(problem_id, sample)
        if known:
            return known
        made = self._round(self._planted[problem_id, sample])
        for call, completion in enumerate(made):
            self._folder.record(problem_id, sample, call, completion)
        return made

    def record(self, problem_id: str, sample: int, call: int, completion: Completion) -> None:
        """Put a completion on record."""
        self._folder.record(problem_id, sample, call, completion)

    def finish(self, trajectory: Trajectory) -> None:
        """Put a finished trajectory on record."""
        self._folder.finish(trajectory)

    def _round(self, history: str) -> list[Completion]:
        """Return a round that thought nothing and carries the history, as the carry's calls."""
        if self._carry == "two_call":
            return [Completion("", Stop.LENGTH), Completion(history, Stop.STOP)]
        return [Completion(self._format.write("", summary=history), Stop.STOP)]
