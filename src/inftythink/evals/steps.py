"""How long the steps of an engine take that batches continuously: a curve of four numbers, computed or fitted.

A step makes one token of each running sequence, and reads the prompts of those that join. Its time is taken as a sum:

    fixed + sequence * sequences + key * tokens in their caches + prompt * prompt tokens read

``fixed`` is the reading of the weights and the engine's own work, ``key`` the reading of a token's keys and values. The
roofline of ``cost`` gives a curve for a device; ``fit`` one for a server that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inftythink.errors import UsageError
from inftythink.evals.architecture import Architecture
from inftythink.evals.cost import Call, Plan, Setting, kv_bytes


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine did: ``steps``, and summed over them the sequences, the tokens in their caches, prompt tokens."""

    steps: float
    sequences: float
    keys: float
    prompt: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return both one after the other."""
        return Work(
            self.steps + other.steps,
            self.sequences + other.sequences,
            self.keys + other.keys,
            self.prompt + other.prompt,
        )


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds of a step, of each sequence in it, of each token in a cache, and of each prompt token read."""

    fixed: float
    sequence: float
    key: float
    prompt: float

    def seconds(self, work: Work) -> float:
        """Return how long ``work`` takes."""
        return (
            self.fixed * work.steps + self.sequence * work.sequences + self.key * work.keys + self.prompt * work.prompt
        )


def work_of(plan: Plan, batch: int = 1) -> Work:
    """Return the work of ``batch`` trajectories side by side, all with the calls of ``plan``."""
    total = Work(0, 0, 0)
    for call, count in plan:
        total += _work(call, batch * count, count)
    return total


def curve(model: Architecture, setting: Setting, efficiency: float = 1.0) -> Steps:
    """Return the curve that the roofline gives: memory is read for steps, prompts are computed.

    ``setting.batch`` tells how many experts a step reads; ``efficiency`` is the share of the device's bandwidth and
    operations that an engine gets. Layers with a window count as if they had none.
    """
    device = setting.device
    return Steps(
        fixed=setting.weight_bytes * model.read(setting.batch) / (device.bandwidth * efficiency),
        sequence=2.0 * (model.active + model.head) / (device.flops * efficiency),
        key=kv_bytes(model, 1, setting.kv_bytes) / (device.bandwidth * efficiency),
        prompt=2.0 * model.active / (device.flops * efficiency),
    )


def fit(measured: Iterable[tuple[Work, float]]) -> Steps:
    """Return the curve that comes nearest to measured pairs of work and seconds, by the squares of relative errors.

    No number is below 0; what the measurements do not show is 0. Raises ``UsageError`` without measurements.
    """
    import numpy

    pairs = list(measured)
    if not pairs:
        raise UsageError("a curve cannot be fitted to nothing")
    rows = numpy.array([[w.steps, w.sequences, w.keys, w.prompt] for w, _ in pairs], dtype=float)
    rows /= numpy.array([[seconds] for _, seconds in pairs])
    free = [column for column in range(4) if rows[:, column].any()]
    while True:
        scale = rows[:, free].max(axis=0)
        found = numpy.linalg.lstsq(rows[:, free] / scale, numpy.ones(len(pairs)), rcond=None)[0] / scale
        if (found >= 0).all() or len(free) == 1:
            break
        free.remove(free[int(numpy.argmin(found * scale))])
    numbers = [0.0] * 4
    for column, value in zip(free, found, strict=True):
        numbers[column] = max(0.0, float(value))
    return Steps(*numbers)


def _work(call: Call, sequences: float, groups: float) -> Work:
    """Return the work of ``sequences`` calls that are alike, made in ``groups`` one after the other."""
    made = call.generated
    keys = made * call.prompt + made * (made - 1) / 2
    return Work(groups * made, sequences * made, sequences * keys, sequences * (call.prompt - call.cached))
