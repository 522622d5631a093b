"""Solving held-out problems with a small model, and what came of them: one record a problem."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from inftythink.backends.base import Backend, Capabilities, Delta, Request, Sampling
from inftythink.backends.transformers import Transformers
from inftythink.errors import BackendError
from inftythink.lab.problems import Sized
from inftythink.protocol import Completion, Outcome, Policy, Trajectory
from inftythink.protocol.types import Part, PartKind
from inftythink.reasoner import Reasoner, derive_seed, run_sync
from inftythink.render import Renderer
from inftythink.tasks.puzzle import grade

Tamper = Literal["empty", "shuffled"]
GREEDY = Sampling(0.0)


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one problem. ``windows`` is the length of its reasoning as one chain; tokens are those generated."""

    id: str
    family: str
    windows: float
    correct: bool
    outcome: str
    rounds: int
    tokens: int
    prompt_tokens: int
    peak_context: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return a line of a record file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is asked. ``window`` bounds prompt and completion of a call; ``phi`` the rounds."""

    carry: str = "summary"
    window: int = 128
    eta: int = 63
    gamma: int = 22
    phi: int = 400
    tamper: Tamper | None = None
    interval: tuple[int, int] | None = None
    """Tokens after which a round is summarised, drawn from this range; None lets the model decide."""


def solve(
    model: Path,
    problems: Sequence[Sized],
    setup: Setup,
    *,
    batch: int = 128,
    behind: Callable[[Backend], Backend] | None = None,
    sampling: Sampling = GREEDY,
) -> list[Trajectory]:
    """Solve problems; return their trajectories, graded, in the order of the problems.

    ``behind`` puts something between the model and who asks it.

    A round without end is stopped, not helped: what is measured is what the model does by itself. Raises
    ``BackendError`` when a trajectory FAILED: that is no answer of the model, and must not be counted as a wrong one.
    """
    renderer = Renderer.load(model)
    backend: Backend = Transformers(model, renderer, max_batch=batch, max_cache_tokens=batch * setup.window)
    if setup.tamper is not None:
        backend = Tampered(backend, setup.tamper)
    if behind is not None:
        backend = behind(backend)
    reasoner = Reasoner(backend, setup.carry, policy_of(setup, problems, renderer), sampling, slots=2 * batch)

    async def run() -> list[Trajectory]:
        async with reasoner:
            return await reasoner.solve_many(sized.problem for sized in problems)

    solved = run_sync(run())
    failed = [trajectory for trajectory in solved if trajectory.outcome is Outcome.FAILED]
    if failed:
        raise BackendError(
            f"{model}: {len(failed)} of {len(solved)} problems failed, the first is {failed[0].problem.id}: "
            f"{failed[0].reason}. Run the same command again."
        )
    return [_graded(trajectory) for trajectory in solved]


def policy_of(setup: Setup, problems: Iterable[Sized], renderer: Renderer) -> Policy:
    """Return the limits of a setup. One chain may fill what the longest prompt leaves of the window."""
    if setup.carry == "summary":
        return Policy(setup.eta, setup.gamma, setup.phi, interval=setup.interval, on_cut="stop", on_limit="stop")
    longest = max(renderer.count(sized.problem.question) for sized in problems) + 3
    room = setup.window - longest
    if setup.carry == "none":
        return Policy(room - setup.gamma, setup.gamma, 1, on_cut="stop", on_limit="stop")
    return Policy(setup.eta, setup.gamma, setup.phi, on_cut="stop", on_limit="stop")


def records(trajectories: Iterable[Trajectory], problems: Iterable[Sized]) -> list[Record]:
    """Return what came of each problem."""
    found = []
    for trajectory, sized in zip(trajectories, problems, strict=True):
        sums = trajectory.totals
        found.append(
            Record(
                id=sized.problem.id,
                family=sized.problem.id.split("-")[0],
                windows=round(sized.windows, 3),
                correct=bool(trajectory.grade and trajectory.grade["correct"]),
                outcome=trajectory.outcome.value,
                rounds=sums["rounds"],
                tokens=sums["completion_tokens"],
                prompt_tokens=sums["prompt_tokens"],
                peak_context=sums["peak_context"],
                seconds=sums["seconds"],
            )
        )
    return found


def _graded(trajectory: Trajectory) -> Trajectory:
    verdict = grade(trajectory.problem.question, trajectory.conclusion)
    return replace(trajectory, grade=verdict.to_json())


def write_records(path: Path, rows: Iterable[Record]) -> None:
    """Write records as JSON lines: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


def read_records(path: Path) -> list[Record]:
    """Read what ``write_records`` wrote."""
    return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def interval(right: int, number: int) -> tuple[float, float]:
    """Return the 95% Wilson interval of a share, as shares in [0, 1]; (0, 1) when nothing was counted."""
    if number == 0:
        return 0.0, 1.0
    z, share = 1.959964, right / number
    middle = share + z * z / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


class Behind:
    """A backend in front of another one; ``about`` says what it does, for messages."""

    def __init__(self, backend: Backend, about: str) -> None:
        self._backend = backend
        self.name = f"{backend.name} ({about})"

    @property
    def capabilities(self) -> Capabilities:
        """Those of the backend behind it."""
        return self._backend.capabilities

    async def start(self) -> None:
        """Start the backend behind it."""
        await self._backend.start()

    async def aclose(self) -> None:
        """Close the backend behind it."""
        await self._backend.aclose()


class Tampered(Behind):
    """A backend that shows the model another history than the one it wrote: the control of what summaries carry.

    ``empty`` leaves nothing of it; ``shuffled`` puts its characters in another order, the same for the same text.
    """

    def __init__(self, backend: Backend, how: Tamper) -> None:
        super().__init__(backend, f"{how} summaries")
        self._how = how

    async def complete(self, request: Request) -> Completion:
        """Generate behind another history."""
        return await self._backend.complete(self._changed(request))

    async def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Generate behind another history, piece by piece."""
        async for item in self._backend.stream(self._changed(request)):
            yield item

    def _changed(self, request: Request) -> Request:
        return replace(request, prompt=replace(request.prompt, prefill=tuple(map(self._part, request.prompt.prefill))))

    def _part(self, part: Part) -> Part:
        if part.kind is not PartKind.CONTENT or part.ids is not None:
            return part
        if self._how == "empty":
            return replace(part, text="")
        order = sorted(range(len(part.text)), key=lambda place: derive_seed(0, part.text, place))
        return replace(part, text="".join(part.text[place] for place in order))
