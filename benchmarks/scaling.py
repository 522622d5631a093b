"""What large plans need, computed by the cost model from published speeds; writes the tables of docs/scaling.md.

    python benchmarks/scaling.py [--write]

Nothing is run. ``PUBLISHED`` has what others measured, with its address; ``ASSUMED`` what nobody told. The share of the
device's roofline (``inftythink.evals.cost``) that an engine gets is the mean over the published runs; the share of its
peak that training gets is published itself.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from inftythink.evals.cost import (
    DEVICES,
    Architecture,
    Call,
    Device,
    Plan,
    Setting,
    cost,
    in_rounds,
    read_architecture,
    training_flops,
    vanilla,
)

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/scaling.md"
HOURS = 3600.0
H100 = replace(DEVICES["h100"], memory=0.9 * 81559 * 2**20)
"""With the memory that vLLM takes by default, of the 81,559 MiB that the driver tells (from memory)."""

GPUSTACK = "https://github.com/gpustack/gpustack/blob/main/docs/performance-lab/qwen3-32b/h100.md"
TORCHTITAN = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
NEMO = "https://github.com/NVIDIA-NeMo/RL/blob/main/docs/about/performance-summary.md"
INFTYTHINK = "https://arxiv.org/abs/2503.06692"
PLUS = "https://arxiv.org/abs/2602.06960"

QWEN3_32B = {
    "model_type": "qwen3",
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
"""From memory, like ``recipes/models``."""


@dataclass(frozen=True)
class Served:
    """A published run of an engine: requests, tokens of each in and out, and the seconds of all."""

    name: str
    requests: int
    prompt: float
    generated: float
    seconds: float


SERVED = (
    Served("conversations", 1000, 217.4, 201.4, 178.01),
    Served("2k in, 100 out", 500, 1996.4, 100.0, 328.04),
    Served("4k in, 200 out", 500, 3995.9, 199.6, 976.29),
    Served("32k in, 77 out", 100, 32000.0, 76.8, 1157.25),
)
"""vLLM 0.11 with its defaults, Qwen3-32B in bfloat16 on an H100 (GPUSTACK)."""

TRAINED_TOKENS = 5762.0
"""Tokens a second and GPU: Llama-3.1-8B, 8 H100, FSDP2 without compiling, rows of 8,192 tokens (TORCHTITAN)."""
TRAINED_LENGTH = 8192

RL_STEP, RL_GPUS, RL_ROWS, RL_TOKENS = 393.0, 32, 2048, 3206
"""NeMo RL 0.4, Qwen3-32B, on policy, H100: seconds of a step, GPUs, trajectories, tokens of each (NEMO)."""

QUESTION = 300
ETA, GAMMA = 4096, 1024
ROUNDS = 333 / 94
"""Instances a trace: OpenR1-Math's 94k traces became 333k at eta 4k (INFTYTHINK)."""
TRACE = round((ROUNDS - 0.5) * ETA)
"""Assumed: all segments but the last are full, the last is half full."""
PACK = 16384
EPOCHS = 3
CHARACTERS = 3.19
"""Bytes a token, of 1,776 real traces (docs/performance.md)."""
COPIES = 3
"""Assumed: each stage keeps the text once (segments, summaries, instances), not compressed."""
RL_QUESTIONS, RL_SAMPLES, RL_STEPS = 128, 8, 1000
"""PLUS."""
RL_THOUGHT = 3 * 6144
"""Assumed: the three rounds that phi 5 realised (PLUS), each of them full."""
RL_ETA = 6144
USERS = 1000
DEPTH = 32768
STREAMED = 300 * 25
"""Tokens a second that one worker of the server passed on with a 99th percentile below 50 ms (docs/performance.md)."""


def architecture(name: str) -> Architecture:
    return read_architecture(json.loads((ROOT / f"recipes/models/{name}.json").read_text(encoding="utf-8")))


def joined(count: int, device: Device = H100) -> Device:
    """Return ``count`` devices as one: tensor parallelism without loss, which is too kind (assumed)."""
    return replace(
        device,
        name=f"{count} x {device.name}",
        bandwidth=count * device.bandwidth,
        flops=count * device.flops,
        memory=count * device.memory,
    )


def roofline(model: Architecture, device: Device, plan: Plan) -> float:
    """Return the seconds of the device for each trajectory, when its memory is full of them."""
    return cost(model, plan, Setting(device)).device_seconds


def shares() -> dict[str, float]:
    """Return for each published run the share of the roofline that the engine got."""
    model = read_architecture(QWEN3_32B)
    found = {}
    for run in SERVED:
        plan = ((Call(round(run.prompt), round(run.generated)), 1),)
        found[run.name] = run.requests * roofline(model, H100, plan) / run.seconds
    return found


EFFICIENCY = statistics.geometric_mean(shares().values())
MFU = TRAINED_TOKENS * training_flops(architecture("Llama-3.1-8B"), TRAINED_LENGTH) / TRAINED_LENGTH / H100.flops


def generated(model: Architecture, gpus: int, plan: Plan) -> float:
    """Return the GPU seconds of a trajectory on an engine of ``gpus``."""
    return gpus * roofline(model, joined(gpus), plan) / EFFICIENCY


def trained(model: Architecture, tokens: float, length: int, passes: float = 1.0) -> float:
    """Return the GPU seconds of training on ``tokens`` in rows of ``length``; a pass forward is a third of one."""
    return passes * tokens * training_flops(model, length) / length / (MFU * H100.flops)


@dataclass(frozen=True)
class Model:
    """A model, and the fewest H100 that serve it well."""

    name: str
    file: str
    engine: int

    @property
    def sizes(self) -> Architecture:
        return architecture(self.file)


SUMMARISERS = (Model("Qwen3-4B", "Qwen3-4B-Base", 1), Model("Qwen2.5-32B", "Qwen2.5-32B", 2))
TRAINED = (Model("7B", "Qwen2.5-Math-7B", 1), Model("32B", "Qwen2.5-32B", 2))


def checks() -> str:
    """Return what the model says of published runs."""
    rows = [
        ["vLLM, Qwen3-32B, " + name, f"{share:.0%} of the roofline", f"[GPUStack]({GPUSTACK})"]
        for name, share in shares().items()
    ]
    rows.append(["mean, used below", f"**{EFFICIENCY:.0%}** of the roofline", ""])
    rows.append(
        ["FSDP2, Llama-3.1-8B", f"**{MFU:.0%}** of the peak (they say 33%)", f"[torchtitan]({TORCHTITAN})"],
    )
    told = rl_step(read_architecture(QWEN3_32B), 4, vanilla(QUESTION, RL_TOKENS - QUESTION), RL_ROWS, RL_TOKENS)
    rows.append(
        [
            "GRPO step, Qwen3-32B, 32 GPUs",
            f"{RL_STEP:.0f} s published, {sum(told) / RL_GPUS:.0f} s by the formulas here",
            f"[NeMo RL]({NEMO})",
        ]
    )
    return table(["published run", "share, or comparison", "source"], rows)


def rl_step(model: Architecture, engine: int, plan: Plan, rows: int, length: int) -> tuple[float, float]:
    """Return the GPU seconds of a step: sampling, and training with one pass forward before it (p_before)."""
    read = sum((call.prompt + call.generated) * count for call, count in plan)
    return rows * generated(model, engine, plan), trained(model, rows * read, length, 4 / 3)


def conversion() -> str:
    """Return the table of converting."""
    summaries = ROUNDS - 1
    prompt = QUESTION + GAMMA + ETA
    rows = []
    for traces in (1_000_000, 10_000_000):
        read, written = traces * summaries * prompt, traces * summaries * GAMMA
        text = traces * (TRACE + summaries * GAMMA) * CHARACTERS * COPIES
        for model in SUMMARISERS:
            hours = traces * summaries * generated(model.sizes, model.engine, ((Call(prompt, GAMMA), 1),)) / HOURS
            cells = [f"{traces // 10**6}M", model.name, billions(read), billions(written)]
            rows.append([*cells, f"{hours:,.0f}", *days(hours, model.engine), f"{text / 1e12:.2f}"])
    columns = [
        "traces",
        "summariser",
        "tokens read",
        "written",
        "GPU hours",
        "days on 1",
        "on 8",
        "on 64",
        "TB of text",
    ]
    return table(columns, rows)


def instance_tokens() -> float:
    """Return the tokens of a trace's instances: thought and summaries, which are read once more, and questions."""
    return TRACE + 2 * (ROUNDS - 1) * GAMMA + ROUNDS * QUESTION


def fine_tuning() -> str:
    """Return the table of fine-tuning."""
    rows = []
    for traces in (94_000, 1_000_000, 10_000_000):
        tokens = EPOCHS * traces * instance_tokens()
        for model, fewest in zip(TRAINED, (8, 16), strict=True):
            hours = trained(model.sizes, tokens, PACK) / HOURS
            name = "94k" if traces < 10**6 else f"{traces // 10**6}M"
            rows.append([name, model.name, billions(tokens), f"{hours:,.0f}", *days(hours, fewest)[1:]])
    return table(["traces", "model", "tokens", "GPU hours", "days on 8", "on 64"], rows)


def learning() -> str:
    """Return the table of reinforcement learning."""
    rows = []
    plan = in_rounds(QUESTION, RL_THOUGHT, RL_ETA, GAMMA)
    chain = vanilla(QUESTION, RL_THOUGHT)
    rollouts = RL_QUESTIONS * RL_SAMPLES
    for model in TRAINED:
        for name, each, length in (("rounds", plan, 10_240), ("one chain", chain, RL_THOUGHT + QUESTION)):
            sampled, learned = rl_step(model.sizes, model.engine, each, rollouts, length)
            tokens = rollouts * sum(call.generated * count for call, count in each)
            hours = RL_STEPS * (sampled + learned) / HOURS
            cells = [model.name, name, f"{tokens / 1e6:.1f}M", f"{sampled / HOURS:.2f}", f"{learned / HOURS:.2f}"]
            step = [f"{2 * (sampled + learned) / gpus / 60:,.1f}" for gpus in (8, 64)]
            wall = f"{2 * hours / 64 / 24:,.1f}"
            rows.append([*cells, f"{hours:,.0f}", *(step if model.engine == 1 else ["-", step[1]]), wall])
    columns = ["model", "way", "tokens a step", "sampling, GPU h", "training, GPU h", "1,000 steps, GPU h"]
    return table([*columns, "minutes a step on 8", "on 64", "days on 64"], rows)


def serving() -> str:
    """Return the table of serving."""
    rows = []
    for model in TRAINED:
        for name, plan in (("rounds", in_rounds(QUESTION, DEPTH, ETA, GAMMA)), ("one chain", vanilla(QUESTION, DEPTH))):
            setting = Setting(joined(model.engine))
            told = cost(model.sizes, plan, setting)
            engines = -(-USERS // told.sequences)
            share = min(told.sequences, -(-USERS // engines))
            speed = told.tokens / (cost(model.sizes, plan, replace(setting, batch=share)).seconds / EFFICIENCY)
            cells = [model.name, name, f"{told.peak_context:,}", f"{told.kv_bytes / 1e9:.2f}", f"{told.sequences:,}"]
            rows.append([*cells, f"{engines * model.engine:,}", f"{speed:.0f}", f"{-(-USERS * speed // STREAMED):.0f}"])
    columns = ["model", "way", "largest context", "cache, GB", "fit an engine", "GPUs", "tokens/s a user"]
    return table([*columns, "workers of `inftythink serve`"], rows)


def days(hours: float, fewest: int) -> list[str]:
    """Return the days on 1, 8 and 64 GPUs, where so few will do."""
    return [f"{hours / gpus / 24:,.1f}" if gpus >= fewest else "-" for gpus in (1, 8, 64)]


def billions(tokens: float) -> str:
    return f"{tokens / 1e9:,.1f}B"


def table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> dict[str, str]:
    """Return the tables of the page by their names there."""
    made = {"checks": checks, "conversion": conversion, "fine-tuning": fine_tuning, "learning": learning}
    return {name: make() for name, make in (made | {"serving": serving}).items()}


def write(text: str, name: str, block: str) -> str:
    """Return the page with the block of this name replaced. Raises ``SystemExit`` when it has none."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{PAGE}: there is no block {name!r}")
    return pattern.sub(lambda found: found[1] + block + found[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    args = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8") if args.write else ""
    for name, block in tables().items():
        print(f"{name}\n{block}\n")
        text = write(text, name, block) if args.write else text
    if args.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
