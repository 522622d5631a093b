"""Evaluations: what is kept, what is graded, and that a run that died gives the figures of one that did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inftythink.backends import Request
from inftythink.backends.scripted import Scripted
from inftythink.errors import BackendError, UsageError
from inftythink.evals.ablation import NOTHING, Planted, restarts
from inftythink.evals.export import export
from inftythink.evals.metrics import summary
from inftythink.evals.rows import Row, read_grades, rows
from inftythink.evals.run import Asked, evaluate, grade_again
from inftythink.grade.base import Ask, Grade
from inftythink.grade.exact import grade_exact
from inftythink.grade.pool import GradePool
from inftythink.protocol import Policy, Problem
from inftythink.reasoner import Reasoner
from inftythink.store import RunFolder, read_json_lines, read_trajectories
from inftythink.tasks.base import Item, TaskSettings
from tests.test_reasoner import counting

POLICY = Policy(eta=40, gamma=10, phi=6, on_limit="stop")
SETTINGS = TaskSettings()


def asked(number: int = 6, wrong: int = 2) -> list[Asked]:
    """Problem i takes i rounds and is answered "answer i"; the first ``wrong`` have another reference."""
    return [
        Asked(
            "count",
            Item(Problem(f"{i}", f"{i}", "no" if i <= wrong else f"answer {i}"), grade_exact, group=f"g{i % 2}"),
        )
        for i in range(1, number + 1)
    ]


def failing(request: Request) -> str | Exception:
    if request.prompt.turns[0].text == "3":
        return BackendError("the server burst")
    return counting(request)


async def run(
    path: Path, todo: list[Asked], reply=counting, samples: int = 2, stop_after: int | None = None
) -> list[Row]:
    found: list[Row] = []

    def told(row: Row) -> None:
        found.append(row)
        if len(found) == stop_after:
            raise KeyboardInterrupt

    reasoner = Reasoner(Scripted(reply), policy=POLICY, slots=2)
    with RunFolder(path, SETTINGS) as folder, GradePool(1) as pool:
        await evaluate(reasoner, todo, samples, folder, pool, told)
    return found


async def test_answers_are_graded_and_the_grades_are_kept(tmp_path):
    found = await run(tmp_path, asked())
    figures = summary(found)
    assert figures["tasks"]["count"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert figures["tasks"]["count"]["groups"]["g0"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert summary(rows(tmp_path)) == figures
    assert [t.grade["correct"] for t in read_trajectories(tmp_path)].count(True) == 8
    assert {row.extracted for row in found if row.correct} == {f"answer {i}" for i in range(3, 7)}


async def test_what_did_not_answer_is_wrong_and_what_failed_is_neither(tmp_path):
    found = await run(tmp_path, asked(8, wrong=0), failing)
    verdicts = {(row.problem, row.outcome, row.correct) for row in found}
    assert ("8", "round_limit", False) in verdicts
    assert ("3", "failed", None) in verdicts
    figures = summary(found)["tasks"]["count"]
    assert figures["accuracy"]["failed"] == 2
    assert figures["accuracy"]["value"] == pytest.approx(5 / 7)
    # What failed is tried again, and then counts like everything else.
    again = await run(tmp_path, asked(8, wrong=0))
    assert summary(again)["tasks"]["count"]["accuracy"]["value"] == pytest.approx(6 / 8)
    assert len(list(read_trajectories(tmp_path))) == 16


@pytest.mark.parametrize("stop_after", [1, 5, 11])
async def test_a_run_that_was_stopped_goes_on_to_the_same_figures(tmp_path, stop_after):
    whole = await run(tmp_path / "whole", asked())
    with pytest.raises(KeyboardInterrupt):
        await run(tmp_path / "broken", asked(), stop_after=stop_after)
    resumed = await run(tmp_path / "broken", asked())
    assert summary(resumed) == summary(whole)
    assert summary(rows(tmp_path / "broken")) == summary(whole)
    assert sorted(row.problem for row in resumed) == sorted(row.problem for row in whole)


async def test_a_run_is_exported_with_every_sample(tmp_path):
    await run(tmp_path / "run", asked(8, wrong=2), failing)
    (path, number), *_ = export(tmp_path / "run", tmp_path / "logs", "now").items()
    assert (Path(path).name, number) == ("samples_count_now.jsonl", 8)
    lines = {line["doc"]["id"]: line for line in read_json_lines(Path(path))}
    assert lines["count/4"]["resps"] == [["answer 4", "answer 4"]]
    assert [lines[f"count/{i}"]["exact_match"] for i in range(1, 9)] == [0, 0, None, 1, 1, 1, 0, 0]
    assert lines["count/1"]["target"] == "no"


async def test_another_problem_of_the_same_id_is_refused(tmp_path):
    await run(tmp_path, asked())
    with pytest.raises(UsageError, match=r"count/1.* another one"):
        await run(tmp_path, asked(wrong=0))


def grade_kindly(ask: Ask) -> Grade:
    return Grade(True, ask.conclusion)


async def test_answers_are_graded_again_without_generating(tmp_path):
    await run(tmp_path, asked())
    kinder = [Asked(one.task, Item(one.item.problem, grade_kindly, group=one.item.group)) for one in asked()]
    found: list[Row] = []
    with GradePool(1) as pool:
        assert await grade_again(tmp_path, kinder, pool, found.append) == 4
        assert all(row.correct for row in found)
        assert summary(rows(tmp_path)) == summary(found)
        assert all(grade["correct"] for grade in read_grades(tmp_path).values())
        assert await grade_again(tmp_path, kinder, pool, found.append) == 0
        with pytest.raises(UsageError, match="no problem 'count/6'"):
            await grade_again(tmp_path, kinder[:5], pool, found.append)


async def test_a_run_is_continued_from_other_histories(tmp_path):
    """The scripted model counts on from the history: from round 2 of 4 it ends right, from nothing it cannot read."""

    def model(request: Request) -> str:
        if len(request.prompt.prefill) > 1 and not request.prompt.prefill[1].text.isdigit():
            return "lost\n</think>\n\nanswer 0"
        return counting(request)

    await run(tmp_path / "run", asked(4, wrong=0), samples=1)
    todo = list(restarts(read_trajectories(tmp_path / "run"), asked(4, wrong=0), ("true", "empty")))
    assert {one.asked.id for one in todo} == {f"count:{how}/{i}" for how in ("true", "empty") for i in (2, 3, 4)}
    assert {one.history for one in todo if one.asked.task == "count:empty"} == {NOTHING}
    for _ in range(2):  # the second time all is on record already
        found: list[Row] = []
        reasoner = Reasoner(Scripted(model), policy=POLICY)
        with RunFolder(tmp_path / "restarted", SETTINGS) as folder, GradePool(1) as pool:
            journal = Planted(folder, todo, reasoner.format, "summary")
            known = {one.asked.id: one.asked for one in todo}.values()
            await evaluate(reasoner, known, 1, folder, pool, found.append, journal)
        assert {(row.task, row.correct) for row in found} == {("count:true", True), ("count:empty", False)}
        assert len(found) == 6


def test_the_command_evaluates_the_model_that_ships(tmp_path, capsys):
    from inftythink.cli.main import main

    ours, again = str(tmp_path / "ours"), str(tmp_path / "again")
    flags = ["--problems", "3", "--lines", "5", "9", "--samples", "2"]
    assert main(["eval", *flags, "--output", ours]) == 0
    shown = capsys.readouterr()
    assert "puzzles" in shown.out
    assert "6/6" in shown.err
    figures = json.loads((tmp_path / "ours" / "metrics.json").read_text())
    assert figures["tasks"]["puzzles"]["outcomes"]["answered"] == 6
    assert figures["tasks"]["puzzles"]["usage"]["cost"]["attention_flops"] > 0
    assert figures["fidelity"]["summaries"] > 0
    assert main(["eval", *flags, "--output", ours, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert main(["eval", *flags, "--seed", "1", "--output", ours]) == 2
    assert "seed" in capsys.readouterr().err
    assert main(["rescore", ours]) == 0
    assert "0 verdicts changed" in capsys.readouterr().err
    assert main(["eval", *flags, "--carry", "summary", "--budget", "100", "--output", again]) == 0
    capsys.readouterr()
    assert main(["compare", ours, again]) == 0
    assert "accuracy %" in capsys.readouterr().out
    assert main(["compare", ours]) == 2


def test_wrong_usage_is_named(tmp_path, capsys):
    from inftythink.cli.main import main

    data = tmp_path / "one.jsonl"
    data.write_text(json.dumps({"problem": "What is 1 + 1?", "answer": "2"}) + "\n", encoding="utf-8")
    for argv, told in (
        (["--task", "math501"], "math500"),
        (["--task", "jsonl", "--data", str(data)], "and nothing else"),
        (["--task", "collatz,collatz"], "each task once"),
        (["--task", "jsonl,collatz", "--data", str(data)], "one task"),
        (["--samples", "0"], "--samples"),
        (["--preset", "vanilla-9k"], "vanilla-8k"),
    ):
        assert main(["eval", *argv]) == 2, argv
        assert told in capsys.readouterr().err


def test_a_preset_fills_what_is_not_given():
    from inftythink.cli.evaluate import EvalConfig, filled

    config = filled(EvalConfig(preset="vanilla-16k", temperature=0.0))
    assert (config.carry, config.eta, config.samples, config.temperature) == ("none", 16384 - 1024, 16, 0.0)
    assert config.on_limit == "stop"
    assert filled(EvalConfig()).samples == 1
