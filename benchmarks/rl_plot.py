"""Draw what ``benchmarks/rl.py`` found: accuracy and rounds by step, for each reward, one line a seed.

python benchmarks/rl_plot.py runs/rl-*/results.json --output docs/img/rl.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"task": "#1f6fb4", "task efficiency": "#d1701f"}
OVER = 5
"""Steps that a point of a sampled curve is the mean of."""


def main() -> None:
    """Read the results and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    labelled: set[str] = set()
    for path in asked.results:
        found = json.loads(path.read_text(encoding="utf-8"))
        reward = " ".join(found["reward"])
        label = None if reward in labelled else reward.replace(" ", " x ")
        labelled.add(reward)
        style = {"color": COLOURS[reward], "alpha": 0.8}
        for axis, name in zip(axes, ("accuracy", "eval_accuracy", "rounds"), strict=True):
            steps, values = curve(found["history"], name)
            axis.plot(steps, values, label=label, **style)
    titles = (
        f"accuracy at T = 1 (mean of {OVER} steps)",
        "accuracy, greedy, held out",
        f"rounds at T = 1 ({OVER} steps)",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(0, 1.02)
    axes[1].set_ylim(0, 1.02)
    axes[2].set_ylim(bottom=0)
    axes[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(asked.output, dpi=110)
    print(asked.output)


def curve(history: list[dict[str, Any]], name: str) -> tuple[list[int], Any]:
    """Return steps and values of a figure; those of sampled trajectories as moving means."""
    told = [(entry["step"], entry[name]) for entry in history if name in entry]
    steps, values = [step for step, _ in told], np.array([value for _, value in told])
    if name.startswith("eval_") or len(values) < OVER:
        return steps, values
    return steps[OVER - 1 :], np.convolve(values, np.ones(OVER) / OVER, "valid")


if __name__ == "__main__":
    main()
