"""The sample traces that ship with the package."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = [json.loads(line) for line in (files("inftythink") / "samples" / "traces.jsonl").read_text("utf-8").splitlines()]


def test_the_file_is_what_its_script_writes_and_verifies() -> None:
    script = [sys.executable, ROOT / "scripts" / "make_samples.py", "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_sample_is_one_closed_thought_and_ends_in_its_answer() -> None:
    assert len({row["uuid"] for row in ROWS}) == len(ROWS) >= 12
    for row in ROWS:
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert user["content"] == row["problem"]
        thought, conclusion = assistant["content"].removeprefix("<think>\n").split("\n</think>\n\n")
        assert thought
        assert f"\\boxed{{{row['answer']}}}" in conclusion


def test_the_samples_are_of_many_kinds_and_some_are_long() -> None:
    texts = [row["messages"][1]["content"] for row in ROWS]
    assert any(len(text) > 30_000 for text in texts)
    assert sum(len(text) > 6_000 for text in texts) >= 3
    assert any("```python" in text for text in texts)
    assert any("求最小的正整数" in row["problem"] for row in ROWS)
    assert any("\n\n" not in text.split("</think>")[0] for text in texts)
    assert sum(len(text.encode()) for text in texts) < 300_000
