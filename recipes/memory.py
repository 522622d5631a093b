"""Compute what a recipe needs of each GPU, and write it into the recipe: ``python recipes/memory.py [--write]``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from inftythink.config import resolve
from inftythink.train.memory import Sharding, estimate
from inftythink.train.model import make_config
from inftythink.train.settings import SftConfig

FOLDER = Path(__file__).parent
LAYOUTS: tuple[tuple[str, int, Sharding], ...] = (
    ("1 GPU", 1, "none"),
    ("8 GPUs, FSDP2", 8, "fsdp"),
    ("8 GPUs, ZeRO-3", 8, "zero3"),
    ("2 nodes of 8, FSDP2", 16, "fsdp"),
)
_BLOCK = re.compile(r"# Memory of each GPU.*?\n(?:#   .*\n)+")


def recipes() -> list[Path]:
    """Return the recipes of supervised fine-tuning."""
    return sorted((FOLDER / "sft").glob("*.yaml"))


def load(path: Path) -> tuple[SftConfig, Any]:
    """Return a recipe, and the configuration of its model, written down in ``models/``."""
    run = resolve(SftConfig, path)
    assert run.model.path is not None
    return run, make_config(FOLDER / "models" / f"{Path(run.model.path).name}.json", run.model.settings)


def block(path: Path) -> str:
    """Return the lines of comment that tell a recipe's memory."""
    run, config = load(path)
    lines = [
        f"#   {name:<21}{estimate(config, run, processes, sharding).total:>7.1f} GiB\n"
        for name, processes, sharding in LAYOUTS
        if run.batch.rows % processes == 0
    ]
    return "# Memory of each GPU, as recipes/memory.py computes it:\n" + "".join(lines)


def main() -> None:
    """Print every recipe's block; with ``--write`` put it into the file."""
    for path in recipes():
        made = block(path)
        print(f"{path.name}\n{made}")
        if "--write" in sys.argv[1:]:
            text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
            head, blank, rest = text.partition("\n\n")
            path.write_text(f"{head}\n{made}{blank[1:]}{rest}", encoding="utf-8")


if __name__ == "__main__":
    main()
