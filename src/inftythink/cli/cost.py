"""``inftythink cost``: what a depth of reasoning costs in one chain and in rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inftythink.cli import Command
from inftythink.config import REQUIRED, Count, option
from inftythink.errors import InputError, UsageError, missing

if TYPE_CHECKING:
    from inftythink.evals.cost import Cost, Setting

_GRID = (512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 65536)


@dataclass(frozen=True)
class CostConfig:
    """Settings of ``inftythink cost``."""

    model: str = option(REQUIRED, "a model's folder or config.json, a recipe's model, or a name on the hub")
    question: Count = option(300, "tokens of the question")
    tokens: Count = option(32768, "tokens of reasoning, the depth")
    eta: Count = option(4096, "tokens of reasoning in a round")
    gamma: Count = option(1024, "tokens of a summary")
    batch: Count = option(1, "sequences that the device works on at once")
    device: Literal["h100", "h200", "a100", "rtx4090"] = option("h100", "accelerator, from its data sheet")
    bandwidth: float | None = option(None, "GB a second that memory gives, instead of the device's")
    tflops: float | None = option(None, "10^12 operations a second, instead of the device's")
    memory: float | None = option(None, "GB of memory, instead of the device's")
    weight_bits: Count = option(16, "bits of a weight")
    kv_bits: Count = option(16, "bits of a cached number")
    by: Literal["device_seconds", "seconds", "flops"] = option(
        "device_seconds",
        "what counts as cheap: time of the device with its memory full, time of one trajectory, or operations",
    )
    json: bool = option(False, "print JSON instead of tables")


def run(config: CostConfig) -> None:
    """Print what one chain and rounds of several eta cost."""
    from inftythink.evals.cost import cheapest, cost, in_rounds, read_architecture, vanilla

    for name in ("tokens", "eta", "batch", "weight_bits", "kv_bits"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    model = read_architecture(_read(config.model))
    setting = _setting(config)
    chain = cost(model, vanilla(config.question, config.tokens), setting)
    best = {by: cheapest(model, config.question, config.tokens, config.gamma, setting, by)[0] for by in _BY}
    etas = sorted({eta for eta in _GRID if eta < config.tokens} | {config.eta, best[config.by]})
    rounds = {eta: cost(model, in_rounds(config.question, config.tokens, eta, config.gamma), setting) for eta in etas}
    if config.json:
        told = {"vanilla": _plain(chain), "rounds": {eta: _plain(each) for eta, each in rounds.items()}}
        print(json.dumps(told | {"cheapest": best}, indent=2))
    else:
        _show(config, setting, chain, rounds, best)


_BY = ("device_seconds", "seconds", "flops")


def _setting(config: CostConfig) -> Setting:
    from dataclasses import replace

    from inftythink.evals.cost import DEVICES, Setting

    own = {"bandwidth": (config.bandwidth, 1e9), "flops": (config.tflops, 1e12), "memory": (config.memory, 1e9)}
    given = {name: value * unit for name, (value, unit) in own.items() if value is not None}
    if any(value <= 0 for value in given.values()):
        raise UsageError("--bandwidth, --tflops and --memory must be above 0")
    device = replace(DEVICES[config.device], **given)  # type: ignore[arg-type]
    return Setting(device, config.batch, config.weight_bits / 8, config.kv_bits / 8)


def _read(name: str) -> Mapping[str, Any]:
    """Return a model's configuration: of a folder or file, else of the recipes, else from the hub."""
    path = Path(name)
    recipe = f"{path.name}.json"
    checkout = Path(__file__).parents[3] / "recipes/models" / recipe
    for file in (path / "config.json", path, Path("recipes/models") / recipe, checkout):
        if file.is_file():
            return _load(file)
    if path.exists():
        raise InputError(f"{path}: there is no config.json in this folder")
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise missing("transformers", "hf") from error
    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(name).to_dict()
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"{name}: no such file, no model of the recipes, and not to be had from the hub: {first}"
        ) from error
    return found


def _load(file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as a model's configuration ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{file}: cannot be read as a model's configuration (not a JSON object)")
    return values


def _plain(each: Cost) -> dict[str, Any]:
    from dataclasses import asdict

    found = asdict(each) | {"flops": each.flops, "seconds": each.seconds}
    return found if each.sequences else found | {"device_seconds": None}


def _show(config: CostConfig, setting: Setting, chain: Cost, rounds: dict[int, Cost], best: dict[str, int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from inftythink.cli._figures import wide_console

    device = setting.device
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    names = (
        "eta",
        "rounds",
        "tokens",
        "context",
        "KV GiB",
        "linear",
        "attention",
        "s",
        "ratio",
        "fit",
        "full, s",
        "ratio",
    )
    for name in names:
        table.add_column(name, justify="right")
    table.add_row(*_cells("vanilla", chain, chain), end_section=True)
    for eta, each in rounds.items():
        name = f"* {eta:,}" if eta == best[config.by] else f"{eta:,}"
        table.add_row(*_cells(name, each, chain), style="bold" if eta == config.eta else None)
    console = wide_console()
    console.print(
        f"{config.model}: {config.tokens:,} tokens of reasoning, question {config.question:,}, gamma {config.gamma:,}\n"
        f"{device.name} ({device.bandwidth / 1e9:,.0f} GB/s, {device.flops / 1e12:,.0f} TFLOPS, "
        f"{device.memory / 1e9:,.0f} GB), batch {config.batch}, {config.weight_bits}-bit weights, "
        f"{config.kv_bits}-bit cache",
        highlight=False,
    )
    console.print(table)
    console.print(
        "linear, attention: TFLOP. s: time of a trajectory. fit: how many memory holds at once; full, s: time of the "
        f"device for each of them then. Ratios are to vanilla.\n* cheapest in {config.by}: eta {best[config.by]:,} "
        f"({', '.join(f'{by}: {eta:,}' for by, eta in best.items() if by != config.by)})",
        highlight=False,
    )


def _cells(name: str, each: Cost, chain: Cost) -> list[str]:
    from inftythink.evals.cost import GIB

    return [
        name,
        f"{each.rounds:,}",
        f"{each.tokens:,}",
        f"{each.peak_context:,}",
        _short(each.kv_bytes / GIB),
        _short(each.linear_flops / 1e12),
        _short(each.attention_flops / 1e12),
        _short(each.seconds),
        f"{each.seconds / chain.seconds:.2f}",
        f"{each.sequences:,}",
        _short(each.device_seconds),
        f"{each.device_seconds / chain.device_seconds:.2f}" if chain.sequences else "",
    ]


def _short(value: float) -> str:
    """Return a number to three digits, or to whole ones when it is larger."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


COMMAND = Command(
    CostConfig,
    run,
    "tell what reasoning costs, in one chain and in rounds, and the eta that is cheapest",
    """
inftythink cost --model Qwen2.5-Math-7B --question 300 --tokens 32k --eta 4k --gamma 1k
inftythink cost --model runs/math/model --device a100 --batch 32 --by flops
""",
)
