"""What reasoning costs a decoder: operations, bytes of keys and values, and seconds, for one chain and for rounds.

Closed formulas, no measurement; docs/cost.md writes them down. An operation is a multiplication or an addition. Left
out are norms, rotations, softmax and sampling, and the conclusion, which both ways of reasoning write.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

from inftythink.evals.architecture import Architecture, read_architecture

__all__ = ["Architecture", "read_architecture"]

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Call:
    """One request: tokens of the prompt, tokens generated, and how many of the prompt's are in a cache already."""

    prompt: int
    generated: int
    cached: int = 0


Plan = tuple[tuple[Call, int], ...]
"""The calls of a trajectory, each with how often it is made."""


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator: bytes a second, operations a second (dense, bfloat16), bytes of memory."""

    name: str
    bandwidth: float
    flops: float
    memory: float


DEVICES = {
    "h100": Device("NVIDIA H100 SXM", 3.35e12, 989e12, 80e9),
    "h200": Device("NVIDIA H200", 4.8e12, 989e12, 141e9),
    "a100": Device("NVIDIA A100 80GB SXM", 2.039e12, 312e12, 80e9),
    "rtx4090": Device("NVIDIA RTX 4090", 1.008e12, 165.2e12, 24e9),
}
"""From NVIDIA's data sheets (of the last, the white paper of its architecture); tensor cores without sparsity."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a model runs: ``batch`` sequences of the same length at once; bytes of a weight and of a cached number."""

    device: Device = DEVICES["h100"]
    batch: int = 1
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a trajectory takes: operations, the largest context and its cache in bytes, seconds.

    ``sequences``: how many such trajectories the memory of the device holds beside the weights; ``device_seconds``: its
    time for each of them when it is as full as that (infinite when it holds none).
    """

    rounds: int
    tokens: int
    peak_context: int
    linear_flops: float
    attention_flops: float
    kv_bytes: float
    prefill_seconds: float
    decode_seconds: float
    sequences: int
    device_seconds: float

    @property
    def flops(self) -> float:
        """All operations."""
        return self.linear_flops + self.attention_flops

    @property
    def seconds(self) -> float:
        """Time from the question to the last token."""
        return self.prefill_seconds + self.decode_seconds


def vanilla(question: int, tokens: int) -> Plan:
    """Return the plan of one chain of ``tokens``."""
    return ((Call(question, tokens), 1),)


def in_rounds(question: int, tokens: int, eta: int, gamma: int) -> Plan:
    """Return the plan of the same reasoning in rounds of ``eta`` tokens, each but the last with a ``gamma`` summary."""
    rounds = max(1, math.ceil(tokens / eta))
    if rounds == 1:
        return vanilla(question, tokens)
    first, middle = Call(question, eta + gamma), Call(question + gamma, eta + gamma)
    last = Call(question + gamma, tokens - (rounds - 1) * eta)
    return tuple((call, count) for call, count in ((first, 1), (middle, rounds - 2), (last, 1)) if count)


def linear_flops(model: Architecture, call: Call) -> float:
    """Return the operations of a call in matrices of weights."""
    return sum(_linear(model, call))


def attention_flops(model: Architecture, call: Call) -> float:
    """Return the operations of a call between queries, keys and values; a query meets no key after it."""
    return sum(_attention(model, call))


def training_flops(model: Architecture, length: int) -> float:
    """Return the operations of training on a row of ``length`` tokens: forward, and twice that backward.

    Nothing is computed anew for checkpoints, as is usual where a share of the device's peak is told.
    """
    forward = (model.active + model.head) * length + model.query_dim * _pairs(model, 0, length)
    return 3 * 2.0 * forward


def kv_bytes(model: Architecture, context: int, number_bytes: float = 2.0) -> float:
    """Return the bytes of keys and values of ``context`` tokens; layers with a window keep no more than it."""
    return number_bytes * model.cached * _seen(model, context)


def cost(model: Architecture, plan: Plan, setting: Setting = Setting()) -> Cost:
    """Return what a plan costs in a setting."""
    peak = max(call.prompt + call.generated for call, _ in plan)
    cache = kv_bytes(model, peak, setting.kv_bytes)
    room = setting.device.memory - setting.weight_bytes * model.parameters
    sequences = max(0, int(room // cache)) if cache else 0
    prefill, decode = _times(model, plan, setting)
    full = sum(_times(model, plan, replace(setting, batch=sequences))) / sequences if sequences else math.inf
    return Cost(
        rounds=sum(count for _, count in plan),
        tokens=sum(call.generated * count for call, count in plan),
        peak_context=peak,
        linear_flops=sum(linear_flops(model, call) * count for call, count in plan),
        attention_flops=sum(attention_flops(model, call) * count for call, count in plan),
        kv_bytes=cache,
        prefill_seconds=prefill,
        decode_seconds=decode,
        sequences=sequences,
        device_seconds=full,
    )


def etas(tokens: int, least: int = 64) -> list[int]:
    """Return the shortest eta for each number of rounds in which ``tokens`` can be thought, down to ``least``."""
    return sorted({math.ceil(tokens / rounds) for rounds in range(1, max(1, tokens // least) + 1)})


def cheapest(
    model: Architecture, question: int, tokens: int, gamma: int, setting: Setting, by: str = "device_seconds"
) -> tuple[int, Cost]:
    """Return the eta whose rounds take least to think ``tokens``, and their cost.

    ``by`` is what counts: "seconds", "device_seconds" or "flops".
    """
    found = ((eta, cost(model, in_rounds(question, tokens, eta, gamma), setting)) for eta in etas(tokens))
    return min(found, key=lambda pair: (getattr(pair[1], by), pair[0]))


def _linear(model: Architecture, call: Call) -> tuple[float, float]:
    """Return the operations of reading the prompt and of the steps. The last token generated is never read."""
    read, steps = call.prompt - call.cached, max(0, call.generated - 1)
    first = min(1, call.generated)
    return 2.0 * (model.active * read + model.head * first), 2.0 * (model.active + model.head) * steps


def _attention(model: Architecture, call: Call) -> tuple[float, float]:
    steps = max(0, call.generated - 1)
    prompt = _pairs(model, call.cached, call.prompt)
    return 2.0 * model.query_dim * prompt, 2.0 * model.step_dim * _pairs(model, call.prompt, call.prompt + steps)


def _times(model: Architecture, plan: Plan, setting: Setting) -> tuple[float, float]:
    """Return the seconds of all prompts and of all steps of a plan."""
    times = [(_seconds(model, call, setting), count) for call, count in plan]
    return sum(prefill * count for (prefill, _), count in times), sum(decode * count for (_, decode), count in times)


def _seconds(model: Architecture, call: Call, setting: Setting) -> tuple[float, float]:
    """Return the time of the prompt and of the steps: each as long as computing or reading takes, whichever is more."""
    steps = max(0, call.generated - 1)
    flops = [
        linear + attention for linear, attention in zip(_linear(model, call), _attention(model, call), strict=True)
    ]
    weights = setting.weight_bytes * model.read(setting.batch)
    whole = setting.weight_bytes * model.read(setting.batch * max(1, call.prompt - call.cached))
    keys = setting.kv_bytes * model.cached * _pairs(model, call.prompt, call.prompt + steps)
    device = setting.device
    prefill = max(setting.batch * flops[0] / device.flops, whole / device.bandwidth)
    decode = max(setting.batch * flops[1] / device.flops, (weights * steps + setting.batch * keys) / device.bandwidth)
    return prefill, decode


def _pairs(model: Architecture, first: int, last: int) -> int:
    """Return the pairs of query and key, summed over the layers, of the tokens after ``first`` up to ``last``."""
    return sum(count * (_triangle(last, window) - _triangle(first, window)) for window, count in _layers(model))


def _seen(model: Architecture, context: int) -> int:
    """Return how many tokens are kept, summed over the layers."""
    return sum(count * (context if window is None else min(context, window)) for window, count in _layers(model))


def _layers(model: Architecture) -> list[tuple[int | None, int]]:
    return list(Counter(model.windows).items())


def _triangle(tokens: int, window: int | None) -> int:
    """Return the pairs of the first ``tokens``: each sees itself and what is before it, ``window`` tokens at most."""
    if window is None or tokens <= window:
        return tokens * (tokens + 1) // 2
    return window * (window + 1) // 2 + (tokens - window) * window
