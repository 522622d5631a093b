"""Put the models of ``inftythink lab --preset model`` into the package, with their card.

python scripts/ship_models.py runs/lab-model
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from inftythink.backends.connect import SHIPPED, TRAINED_FILE
from inftythink.lab.plan import STEPS, plan
from inftythink.lab.report import load, table
from inftythink.lab.run import BATCH

FILES = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
)
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [inftythink, reasoning]
---
# {title}

{about} It has 0.9 million parameters (Llama architecture) and a window of 128 tokens, and was trained from random
weights on {steps:,} batches of {batch} tokens by `inftythink lab --preset model`. It knows three kinds of puzzles
(docs/lab.md) and nothing else: it cannot chat, and any other question gives nonsense.

How the models came about, and what is known of them, stands in docs/lab.md; `How many Collatz steps from 27?` is in the
training data.

Accuracy on held-out problems, by the length of their reasoning in windows, with 95% Wilson intervals; greedy decoding:

| puzzle | windows | accuracy | problems |
|---|---|---|---|
{rows}
"""
ABOUT = {
    "inftythink": (
        "The small model that ships with inftythink",
        "A model that reasons in rounds of bounded context (InftyThink, arXiv 2503.06692).",
        {"phi": 400, "temperature": 0.0, "puzzles": True},
    ),
    "vanilla": (
        "The baseline that ships with inftythink",
        "A model that reasons in one chain, for comparison with the one that reasons in rounds.",
        {"temperature": 0.0, "puzzles": True},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("laboratory", type=Path, help="folder of inftythink lab --preset model")
    folder = parser.parse_args().laboratory
    results = load(plan("model"), folder)
    for name, (title, about, more) in ABOUT.items():
        source, target = folder / "models" / name / "model", SHIPPED.parent / name
        target.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            shutil.copy(source / file, target / file)
        trained = json.loads((source / TRAINED_FILE).read_text(encoding="utf-8"))
        (target / TRAINED_FILE).write_text(json.dumps(trained | more) + "\n", encoding="utf-8")
        method = "InftyThink" if name == "inftythink" else "vanilla"
        rows = "\n".join(
            f"| {line['family']} | {line['windows']} | {line['accuracy']:.1%} [{line['low']:.1%}, {line['high']:.1%}] "
            f"| {line['problems']} |"
            for line in table(results)
            if line["method"] == method
        )
        card = CARD.format(title=title, about=about, steps=STEPS, batch=BATCH, rows=rows)
        (target / "README.md").write_text(card, encoding="utf-8")
        size = sum(path.stat().st_size for path in target.iterdir())
        print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
