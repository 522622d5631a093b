"""Reports of ``inftythink rl``: its curves are its history, and what it answered first and last is there to compare."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from inftythink.errors import InputError, UsageError
from inftythink.protocol import Outcome, Problem, Trajectory
from inftythink.report.build import build
from inftythink.store import read_json_lines, write_json_lines
from inftythink.train.rollout import save_trajectories
from tests.report.conftest import Browser
from tests.report.fake import HOSTILE, hostile, make, make_training
from tests.report.test_build import data_of, entries_of, read_csv


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("trainings")
    return [make_training(root / "short", seed=1), make_training(root / "long", seed=2, steps=9)]


@pytest.fixture(scope="module")
def report(trainings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    return build([*trainings, make(root / "other", tasks={"automaton": 3})], root / "out")


def number(cell: str) -> float | None:
    return float(cell) if cell else None


def test_the_curves_are_the_history(report: Path, trainings: list[Path]) -> None:
    told = {name: read_csv(report, name) for name in ("training", "examinations")}
    found: dict[str, list[dict[str, Any]]] = {"training": [], "examinations": []}
    for path in trainings:
        for entry in read_json_lines(path / "history.jsonl"):
            name, start = ("examinations", "eval_") if "eval_accuracy" in entry else ("training", "")
            values = {key.removeprefix(start): value for key, value in entry.items()}
            found[name].append({"run": path.name} | values)
    assert len(found["training"]) == 15
    assert len(found["examinations"]) == 7
    for name, entries in found.items():
        for line, entry in zip(told[name], entries, strict=True):
            assert line.pop("run") == entry.pop("run")
            expected = {key: value if math.isfinite(value) else None for key, value in entry.items()}
            assert {key: number(cell) for key, cell in line.items()} == expected
        page = data_of(report)["figures"][name]
        assert [record["step"] for record in page] == [entry["step"] for entry in entries]


def test_a_panel_for_every_quantity_that_is_told(report: Path) -> None:
    folder = report.parent / "figures"
    drawn = {name: (folder / f"{name}.svg").read_text("utf-8") for name in ("training", "examinations")}
    for title in ("Reward", "Accuracy", "Rounds", "Tokens", "Masked", "Entropy", "Answered"):
        assert f">{title}<" in drawn["training"]
    assert ">Reward<" not in drawn["examinations"]
    assert ">short<" in drawn["training"]
    assert ">long<" in drawn["training"]
    assert {path.name for path in folder.glob("training.*")} == {"training.csv", "training.svg", "training.png"}


def test_first_and_last_answers_stand_beside_the_other_runs(report: Path) -> None:
    data = data_of(report)
    labels = [run["label"] for run in data["runs"]]
    assert labels == ["short, after step 0", "short, after step 6", "long, after step 0", "long, after step 9", "other"]
    assert data["trainings"] == [{"label": "short", "runs": [0, 1]}, {"label": "long", "runs": [2, 3]}]
    settings = dict(data["runs"][1]["settings"])
    assert (settings["model"], settings["eta"], settings["max_rounds"]) == ("short, after step 6", "9000", "5")
    results = {line["run"]: float(line["accuracy"]) for line in read_csv(report, "results")}
    history = [each for each in read_csv(report, "examinations") if each["run"] == "short"]
    assert results["short, after step 0"] == pytest.approx(float(history[0]["accuracy"]))
    assert results["short, after step 6"] == pytest.approx(float(history[-1]["accuracy"]))


def test_a_training_that_goes_on_is_shown_by_what_it_left(trainings: list[Path], tmp_path: Path) -> None:
    going = tmp_path / "short"
    shutil.copytree(trainings[0], going)
    (going / "history.jsonl").unlink()
    page = build([going], tmp_path / "out", plots=False)
    whole = build(trainings[:1], tmp_path / "whole", plots=False)
    for name in ("training", "examinations"):
        made, told = read_csv(page, name), read_csv(whole, name)
        assert len(made) == len(told)
        for line, other in zip(made, told, strict=True):
            assert line == {key: other[key] for key in line}
    assert set(read_csv(whole, "training")[0]) - set(read_csv(page, "training")[0]) == {"entropy", "masked", "loss"}


def test_without_examinations_the_first_and_the_last_step_are_shown(tmp_path: Path) -> None:
    page = build([make_training(tmp_path / "run", examined=False)], tmp_path / "out", plots=False)
    assert [run["label"] for run in data_of(page)["runs"]] == ["run, step 1", "run, step 6"]
    assert data_of(page)["figures"]["examinations"] == []
    assert not (tmp_path / "out/figures/examinations.csv").exists()
    one = build([make_training(tmp_path / "one", steps=1, examined=False)], tmp_path / "out", plots=False)
    assert data_of(one)["trainings"] == [{"label": "one", "runs": [0]}]


def test_what_cannot_be_read_of_a_history_is_told_and_left_out(tmp_path: Path) -> None:
    run = make_training(tmp_path / "run", steps=3)
    with (run / "history.jsonl").open("a") as file:
        file.write('[1]\n{"reward": 1}\n{"step": 4, "reward": "much", "accuracy": 0.5}\n{"step": 5, "rew')
    told: list[str] = []
    page = build([run], tmp_path / "out", told.append, plots=False)
    assert [line.split(": ")[1].rpartition("/")[2] for line in told if "history" in line] == [
        "history.jsonl:6",
        "history.jsonl:7",
        "history.jsonl:9",
    ]
    assert "run: 4 steps and 2 examinations read" in told
    last = data_of(page)["figures"]["training"][-1]
    assert (last["step"], last["accuracy"], "reward" in last) == (4, 0.5, False)


def test_a_report_of_other_runs_has_no_training_left(tmp_path: Path) -> None:
    build([make_training(tmp_path / "run", steps=3)], tmp_path / "out")
    page = build([make(tmp_path / "other", tasks={"t": 2})], tmp_path / "out", plots=False)
    assert data_of(page)["trainings"] == []
    assert not [path for name in ("training", "examinations") for path in (tmp_path / "out/figures").glob(f"{name}.*")]


def test_folders_that_cannot_be_told_apart_or_are_empty_are_refused(tmp_path: Path) -> None:
    run = make_training(tmp_path / "run", steps=3)
    other = make(tmp_path / "run, after step 0", tasks={"t": 2})
    with pytest.raises(UsageError, match="2 runs would be called 'run, after step 0'"):
        build([run, other], tmp_path / "out")
    shutil.rmtree(run / "rollouts")
    shutil.rmtree(run / "examinations")
    with pytest.raises(InputError, match="no step and no examination"):
        build([run], tmp_path / "out")


@pytest.fixture(scope="module")
def hostile_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training whose every text would run, break out or pretend, where a page is careless."""
    run = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=window.hacked=1>"
    for step in (0, 3):
        save_trajectories(run / "examinations" / f"{step:06d}", [], hostile())
    histories = [{"step": step, "reward": 0.5, "=cmd|' /C calc'!A0": 1.0, HOSTILE[0]: 2.0} for step in (1, 2, 3)]
    write_json_lines(run / "history.jsonl", histories)
    return run


def test_hostile_texts_and_names_are_nothing_but_text(hostile_training: Path, tmp_path: Path) -> None:
    page = build([hostile_training], tmp_path / "out")
    assert len(entries_of(page)) == 2 * len(HOSTILE)
    with (tmp_path / "out/figures/training.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert "'=cmd|' /C calc'!A0" in header
    assert json.loads(json.dumps(data_of(page)["figures"]["training"][0]))[HOSTILE[0]] == 2.0


@pytest.mark.browser
def test_curves_and_a_pair_in_a_browser(browser: Browser, report: Path, trainings: list[Path]) -> None:
    browser.open(report)
    browser.until("document.querySelectorAll('.canvas title').length > 8")
    assert browser.text("h1") == "Training report"
    titles = browser.js("return [...document.querySelectorAll('.chart h3')].map((each) => each.textContent)")
    assert titles[:6] == ["Reward", "Accuracy", "Rounds", "Tokens", "Masked", "Entropy"]
    assert browser.js("return document.querySelector('.plot').querySelectorAll('path.line').length") == 2
    browser.js("document.querySelector('.canvas').focus()")
    browser.keys("\ue014")
    assert browser.text("#tip strong") == "step 1"
    browser.shot("training-light")
    browser.click(".segmented button", 1)
    browser.until("document.querySelector('.chart h3').textContent === 'Accuracy'")

    first, last = (
        list(read_json_lines(trainings[0] / "examinations" / step / "trajectories.jsonl"))
        for step in ("000000", "000006")
    )
    right = [(one["grade"]["correct"], two["grade"]["correct"]) for one, two in zip(first, last, strict=True)]
    better = [place for place, verdict in enumerate(right) if verdict == (False, True)]
    assert browser.text(".changes tbody tr:first-child td:nth-of-type(1)") == str(len(better))
    browser.click(".changes tbody tr:first-child td:nth-of-type(1) a")
    browser.until("document.querySelectorAll('.column').length === 2")
    assert browser.text(".pair > h2") == first[better[0]]["id"]
    assert first[better[0]]["problem"] in browser.text(".pair .question")
    for side, run in enumerate((first, last)):
        told = run[better[0]]
        assert browser.count(f"[id^=side-{side}-round]") == len(told["rounds"])
        browser.click(f"#side-{side}-round-1 .thought summary")
        browser.until(f"document.querySelector('#side-{side}-round-1 .thought .prose')")
        assert browser.text(f"#side-{side}-round-1 .thought .prose") == told["rounds"][0]["thought"]
        verdict = browser.js("return document.querySelectorAll('.column .grade')[arguments[0]].textContent", side)
        assert ("right" if side else "wrong") in verdict
    browser.shot("pair-light")
    browser.keys("j")
    if len(better) > 1:
        browser.until(f"document.querySelector('.pair > h2').textContent === '{first[better[1]]['id']}'")
        browser.driver.back()
    browser.click(".column h3 a")
    browser.until("document.querySelector('.reader .beside')")
    browser.click(".reader .beside")
    browser.until("document.querySelectorAll('.column').length === 2")
    browser.size(320, 844)
    browser.until("document.querySelectorAll('.column').length === 2")
    assert browser.js("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    browser.shot("pair-phone")
    browser.keys("o")
    browser.until("!document.getElementById('overview').hidden")
    assert browser.js("return document.documentElement.scrollWidth - window.innerWidth") <= 0


@pytest.mark.browser
def test_hostile_pairs_do_not_run(browser: Browser, hostile_training: Path, tmp_path: Path) -> None:
    page = build([hostile_training], tmp_path / "out", plots=False)
    browser.open(page, "#view=pair")
    for place, text in enumerate(HOSTILE):
        browser.until(f"document.querySelector('.pair .steps')?.textContent.includes('{place + 1} of {len(HOSTILE)}')")
        browser.until("document.querySelectorAll('.column').length === 2")
        shown = browser.js(
            "const copy = document.querySelector('.pair .question .prose').cloneNode(true);"
            "copy.querySelectorAll('.unseen').forEach((each) => each.remove()); return copy.textContent"
        )
        assert [sign for sign in shown if sign.isprintable()] == [sign for sign in text if sign.isprintable()]
        browser.js("document.activeElement.blur()")
        browser.keys("j")
    assert browser.js("return window.hacked === undefined")
    assert browser.count("main img, main script, main iframe, main textarea, main style, main svg[onload]") == 0
    browser.open(page, "#view=pair&change=__proto__&of=%F0&open=no%2Fsuch")
    browser.until("document.querySelector('.pair .notice')")


def test_an_unanswered_question_is_a_pair_without_a_grade(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (0, 1):
        asked = [Trajectory(Problem("t/1", "What?"), Outcome.FAILED, (), reason="no server")]
        save_trajectories(run / "examinations" / f"{step:06d}", [], asked)
    data = data_of(build([run], tmp_path / "out", plots=False))
    assert data["trainings"] == [{"label": "run", "runs": [0, 1]}]
    assert data["figures"]["examinations"][0]["left_out"] == 1
