"""The example files of the documents: read by their tasks, and graded right by their own answers."""

from pathlib import Path

import pytest

from inftythink.tasks.base import TaskSettings
from inftythink.tasks.registry import load_task

EXAMPLES = Path(__file__).parent.parent.parent / "examples/tasks"
FILES = [
    ("mathematics.jsonl", "jsonl", None, {"math", "numeric"}),
    ("logic.jsonl", "jsonl", "logic", {"exact"}),
    ("science.jsonl", "jsonl", "science", {"choice"}),
    ("tutoring.jsonl", "jsonl", "tutoring", {"math"}),
    ("code.jsonl", "code", None, {"code"}),
]


@pytest.mark.parametrize(("file", "task", "prompt", "graders"), FILES)
def test_an_example_is_read_and_graded(file, task, prompt, graders):
    items = load_task(task).items(TaskSettings(data=str(EXAMPLES / file), prompt=prompt))
    assert len(items) >= 3
    assert {item.grader.__name__.removeprefix("grade_") for item in items} == graders
    for item in items:
        answer = item.problem.answer
        good = f"```python\n{answer}\n```" if task == "code" else f"It is \\boxed{{{answer}}}."
        assert item.grader(item.ask(good)).correct is True, item.problem.id
        assert item.grader(item.ask("It is \\boxed{nothing}.")).correct is False


def test_there_is_no_other_example():
    assert sorted(path.name for path in EXAMPLES.iterdir()) == sorted(file for file, *_ in FILES)
    assert all(file in (EXAMPLES.parent.parent / "docs/tasks.md").read_text("utf-8") for file, *_ in FILES)


def test_a_tutoring_example_is_a_conversation():
    items = load_task("jsonl").items(TaskSettings(data=str(EXAMPLES / "tutoring.jsonl"), prompt="tutoring"))
    assert all(item.problem.context[0][0] == "system" for item in items)
    assert [role for role, _ in items[0].problem.context] == ["system", "user", "assistant"]
