"""Reasoning Gym's generators as tasks, with the real package."""

import dataclasses
import json
import sys

import pytest

from inftythink.errors import InputError, MissingDependencyError, UsageError
from inftythink.grade.base import Ask
from inftythink.tasks.base import TaskSettings
from inftythink.tasks.gym import grade_reasoning_gym
from inftythink.tasks.prompts import LOGIC
from inftythink.tasks.registry import load_task


def made(generator: str, **settings):
    return load_task(f"reasoning-gym:{generator}").items(TaskSettings(**({"problems": 3} | settings)))


# rearc has tuples, which JSON does not keep; knights_knaves NumPy's texts; mini_sudoku answers of several lines.
@pytest.mark.parametrize("generator", ["rearc", "knights_knaves", "mini_sudoku"])
def test_the_answer_of_an_entry_is_right(generator):
    found = made(generator)
    assert len({item.problem.id for item in found}) == 3
    for item in found:
        assert json.loads(json.dumps(item.data)) == item.data
        assert item.problem.question.endswith(LOGIC.instruction)
        for form in ("\\boxed{%s}", "<answer>\n%s\n</answer>", "\\boxed{0} no, <answer>1</answer> no, \\boxed{%s}"):
            assert item.grader(item.ask(form % item.problem.answer)).correct is True
        wrong = item.grader(item.ask("<answer>I give up</answer>"))
        assert wrong.correct is False
        assert wrong.extracted == "I give up"


def test_entries_are_the_same_in_every_process(monkeypatch):
    found = made("ransom_note")  # one of the three that draw from a set
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert made("ransom_note", limit=2) == found[:2]


def test_another_seed_makes_other_problems():
    assert made("chain_sum")[0].problem.question != made("chain_sum", seed=1)[0].problem.question


def test_a_verdict_says_why_and_a_lower_score_is_told():
    [item] = made("chain_sum", problems=1)
    grade = lambda conclusion: item.grader(item.ask(conclusion))  # noqa: E731
    assert grade(None).reason == "no conclusion"
    assert grade("It is 7.").reason == "no \\boxed{} and no <answer> in the conclusion"
    almost = grade(f"\\boxed{{{item.problem.answer} or so}}")
    assert almost.correct is False
    assert almost.reason.startswith("score 0.")


def test_an_answer_that_a_verifier_cannot_read_is_wrong_and_a_broken_verifier_raises():
    [item] = made("prime_factorization", problems=1)
    verdict = item.grader(item.ask(r"\boxed{two times three}"))
    assert verdict.correct is False
    assert verdict.reason.startswith("the verifier cannot read this answer: ValueError")
    broken = Ask("?", "two", r"\boxed{x}", item.data | {"entry": "{'answer': 'two', 'metadata': {}}"})
    with pytest.raises(ValueError, match="two"):
        grade_reasoning_gym(broken)


def test_problems_without_a_reference_are_graded_by_the_verifier_alone():
    [item] = made("graph_color", problems=1)
    assert item.problem.answer is None
    assert item.grader(item.ask(r"\boxed{nothing}")).correct is False


def test_a_wrong_generator_is_met_with_close_ones():
    with pytest.raises(UsageError, match="reasoning-gym:sudoko: there is no such generator; did you mean sudoku"):
        made("sudoko")
    with pytest.raises(UsageError, match="no such generator; there are: ab, acre"):
        made("?")
    for settings in ({"data": "x.jsonl"}, {"problems": 0}, {"limit": 0}):
        with pytest.raises(UsageError, match=r"leave --data out|at least 1 problem"):
            made("sudoku", **settings)


def test_without_the_package_an_error_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"not here.*pip install 'inftythink\[logic\]'"):
        made("sudoku")
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingDependencyError, match="reasoning-gym cannot be imported"):
        grade_reasoning_gym(Ask("?", None, r"\boxed{1}", {"generator": "ab", "entry": "{}"}))


def test_only_zebra_puzzles_needs_the_package_that_has_to_be_compiled(tmp_path, monkeypatch):
    (tmp_path / "pycosat.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert made("syllogism")
    with pytest.raises(MissingDependencyError, match="pip install pycosat"):
        made("zebra_puzzles")


def test_a_generator_whose_verifier_accepts_anything_is_refused():
    with pytest.raises(InputError, match="reasoning-gym:game_of_life_halting: its verifier calls any text right"):
        made("game_of_life_halting")


def test_a_generator_that_fails_says_so(tmp_path, monkeypatch):
    (tmp_path / "reasoning_gym.py").write_text(
        "import types\n"
        "factory = types.SimpleNamespace(DATASETS={'bad': 0, 'loud': 0, 'dead': 0})\n"
        "def create_dataset(name, size, seed):\n"
        "    if name == 'dead':\n        import os; os._exit(3)\n"
        "    if name == 'bad':\n        raise RuntimeError('no luck')\n"
        "    class Dataset(list):\n        def score_answer(self, answer, entry): return 0.0\n"
        "    print('noise'); return Dataset([{'question': 'Q?', 'answer': '1', 'metadata': {}}] * size)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match="reasoning-gym:bad: RuntimeError: no luck"):
        made("bad")
    with pytest.raises(InputError, match="reasoning-gym:dead: the generator ended without an answer"):
        made("dead")
    assert [dataclasses.astuple(item.problem)[2] for item in made("loud")] == ["1", "1", "1"]
