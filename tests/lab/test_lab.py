"""The laboratory from puzzles to the report, with a plan of a few steps."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from inftythink.backends.base import Request
from inftythink.backends.scripted import Scripted
from inftythink.data.table import read_rows, shards
from inftythink.errors import BackendError, UsageError
from inftythink.lab.data import Drawing, draw
from inftythink.lab.evaluate import Record, Setup, Tampered, interval, policy_of, read_records, solve
from inftythink.lab.plan import FAMILIES, WINDOW, Exam, Plan, plan
from inftythink.lab.problems import Sized, problems
from inftythink.lab.report import Results, by_length, by_rounds, cell, costs, table, write
from inftythink.lab.run import run, steps
from inftythink.lab.tokenizer import make_tokenizer
from inftythink.protocol import Format, Problem
from inftythink.render import Renderer
from inftythink.tasks.puzzle import families, held_out, held_out_question


def small(name: str = "full") -> Plan:
    """A preset with all of its parts, but next to no work."""
    whole = plan(name)
    keep = {"inftythink-0", "vanilla-0", "tail", "stretched"}
    models = tuple(replace(m, steps=2) for m in whole.models if m.name in keep)
    data = tuple(
        replace(d, drawings=tuple(replace(one, number=10) for one in d.drawings))
        for d in whole.data
        if d.name in {used for m in models for used, _ in m.data}
    )
    exams = tuple(
        replace(e, number=2, families=("automaton",), setup=replace(e.setup, phi=2))
        for e in whole.exams
        if e.model in keep and e.span == (2, 10)
    )
    return Plan("small", data, models, exams)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, list[str]]:
    folder, told = tmp_path_factory.mktemp("lab"), list[str]()
    run(small(), folder, 2, told.append)
    return small(), folder, told


def test_every_step_is_done_and_told(laboratory: tuple[Plan, Path, list[str]]) -> None:
    todo, folder, told = laboratory
    assert len(told) == len(steps(todo))
    for model in todo.models:
        assert (folder / "models" / model.name / "model" / "inftythink.json").is_file()
    for exam in todo.exams:
        rows = read_records(folder / "exams" / f"{exam.name}.jsonl")
        assert len(rows) == exam.number
        assert all(row.peak_context <= exam.setup.window for row in rows)


def test_no_training_row_shows_a_held_out_state(laboratory: tuple[Plan, Path, list[str]]) -> None:
    todo, folder, _ = laboratory
    known = {family.name: family for family in families()}
    seen = 0
    for data in todo.data:
        place = folder / "data" / data.name
        place = place / "converted" if data.middle is None else place / "selected"
        for path in shards(place / "instances" / "train"):
            for row in read_rows(path, "instances"):
                lines = row["thought"].split("\n\n") + ([row["history"]] if row["history"] else [])
                assert not any(held_out(known[row["id"].split("-")[0]], line) for line in lines)
                seen += 1
    assert seen > 100


def test_what_was_left_out_is_counted(laboratory: tuple[Plan, Path, list[str]]) -> None:
    _, folder, _ = laboratory
    counts = json.loads((folder / "data" / "rounds" / "counts.json").read_text())
    assert counts["instances"] == counts["kept"] + counts["middle"] + counts["held_out"]


def test_a_laboratory_that_is_whole_is_not_done_again(laboratory: tuple[Plan, Path, list[str]]) -> None:
    todo, folder, told = laboratory
    before = {path: path.stat().st_mtime_ns for path in folder.glob("exams/*")}
    again: list[str] = []
    run(todo, folder, 2, again.append)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("exams/*")} == before
    assert {line.rpartition(" (")[0] for line in again} == {line.rpartition(" (")[0] for line in told}


def test_the_report_has_every_method(laboratory: tuple[Plan, Path, list[str]]) -> None:
    todo, folder, _ = laboratory
    page = write(todo, folder)
    text = page.read_text()
    assert "src=" not in text  # opens without a server or a network
    with (page.parent / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["method"] for row in rows} == {exam.method for exam in todo.exams}
    for row in rows:
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
        assert row["method"] in text
    assert (page.parent / "accuracy_by_length.png").read_bytes().startswith(b"\x89PNG")


def test_the_presets_are_whole() -> None:
    for name in ("quick", "full", "model"):
        made = plan(name)
        data, models = {d.name for d in made.data}, {m.name for m in made.models}
        assert {name for m in made.models for name, _ in m.data} <= data
        assert {e.model for e in made.exams} <= models
        assert {m.start for m in made.models} - {None} <= models
        names = [step.name for step in steps(made)]
        assert len(set(names)) == len(names)


def test_an_experiment_alone_has_all_that_it_needs_and_no_more() -> None:
    whole = plan("full")
    experiments = ("main", "rounds", "stretched", "tail", "tampered")
    parts = {name: whole.only([name]) for name in experiments}
    assert {exam for part in parts.values() for exam in part.exams} == set(whole.exams)
    assert sum(len(part.exams) for part in parts.values()) == len(whole.exams)
    for part in parts.values():
        assert part.exams
        assert {name for m in part.models for name, _ in m.data} == {d.name for d in part.data}
        assert {e.model for e in part.exams} | {m.start for m in part.models} - {None} == {m.name for m in part.models}
    assert [model.name for model in parts["stretched"].models] == ["vanilla-0", "stretched"]
    assert whole.only(experiments) == whole


def test_clean_traces_show_no_held_out_state() -> None:
    drawn = list(draw([Drawing(name, 20, (2, 30), clean=True) for name in FAMILIES], seed=1))
    assert [family.name for family, _ in drawn[::20]] == list(FAMILIES)
    assert all(2 <= len(puzzle.lines) <= 30 for _, puzzle in drawn)
    assert not any(held_out(family, line) for family, puzzle in drawn for line in puzzle.lines)


def test_problems_are_new_of_the_length_asked_for_and_show_held_out_states() -> None:
    renderer = Renderer(make_tokenizer())
    for family in families():
        found = problems(family, (1, 3), 20, renderer=renderer, window=WINDOW, seed=1)
        drawn = {puzzle.question for _, puzzle in draw([Drawing(family.name, 300, (2, 30))], seed=1)}
        assert len({sized.problem.question for sized in found}) == 20
        assert not drawn & {sized.problem.question for sized in found}
        for sized in found:
            assert 1 < sized.windows <= 3
            assert held_out_question(sized.problem.question)
            puzzle = family.solve(sized.problem.question)
            assert puzzle is not None
            assert any(held_out(family, line) for line in puzzle.lines)


def test_too_few_problems_are_said_so() -> None:
    renderer, collatz = Renderer(make_tokenizer()), families()[0]
    with pytest.raises(UsageError, match="of 3 new problems"):
        problems(collatz, (900, 901), 3, renderer=renderer, window=WINDOW, seed=0)


def test_one_chain_may_fill_the_window_and_no_more() -> None:
    renderer = Renderer(make_tokenizer())
    sized = [Sized(Problem("1", "Colour A..............?"), 0.5)]
    policy = policy_of(Setup(carry="none", window=128), sized, renderer)
    longest = len(renderer.ids(Format().open(sized[0].problem)))
    assert longest + policy.eta + policy.gamma == 128


def test_a_failure_of_the_backend_is_no_wrong_answer() -> None:
    from inftythink.backends.connect import SHIPPED

    sized = [Sized(Problem("1", "How many Collatz steps from 27?"), 1.0)]
    with pytest.raises(BackendError, match="1 of 1 problems failed"):
        solve(SHIPPED, sized, Setup(eta=200))  # more than the window: the backend refuses


async def test_tampered_histories_reach_the_model_and_nothing_else_changes() -> None:
    prompt = Format().open(Problem("1", "How many?"), "Step 003: 04......")
    for how, expected in (("empty", ""), ("shuffled", None)):
        inner = Scripted(["x"])
        backend = Tampered(inner, how)  # type: ignore[arg-type]
        await backend.complete(Request(prompt, 5))
        sent = inner.requests[0].prompt
        assert sent.turns == prompt.turns
        texts = [part.text for part in sent.prefill]
        assert texts[0] == prompt.prefill[0].text
        assert texts[2] == prompt.prefill[2].text
        if expected is None:
            assert texts[1] != prompt.prefill[1].text
            assert sorted(texts[1]) == sorted(prompt.prefill[1].text)
        else:
            assert texts[1] == expected


def test_the_interval_is_wilsons() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    low, high = interval(81, 263)  # Wilson's interval by hand: Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert interval(0, 20)[0] == 0.0
    assert round(interval(0, 20)[1], 4) == 0.1611


def record(windows: float, rounds: int, correct: bool, family: str = "collatz") -> Record:
    return Record(f"{family}-1", family, windows, correct, "answered", rounds, 100 * rounds, 50 * rounds, 90, 0.5)


def test_accuracy_by_rounds_counts_what_needed_more_as_wrong() -> None:
    rows = [record(1, 1, True), record(2, 3, True), record(3, 5, False), record(4, 9, True)]
    curve = by_rounds(rows)
    assert {r: one.right for r, one in curve.items()} == {1: 1, 2: 1, 3: 2, 4: 2, 6: 2, 8: 2, 9: 3}
    assert {one.number for one in curve.values()} == {4}


def test_lengths_and_costs_lose_no_record() -> None:
    rows = [record(w, r, True) for w, r in ((0.5, 1), (1.5, 2), (3, 4), (30, 40))]
    groups = by_length(rows)
    assert sum(map(len, groups.values())) == len(rows)
    assert [line["tokens"] for line in costs(rows)] == [100, 200, 400, 4000]
    assert cell(rows).share == 1.0


def test_the_table_tells_the_spread_of_seeds() -> None:
    exams = [Exam(f"m{n}", ("collatz",), (2, 10), 2, Setup(), "InftyThink") for n in range(2)]
    rows = [[record(3, 4, True), record(3, 4, True)], [record(3, 4, True), record(3, 4, False)]]
    (line,) = table(Results({"InftyThink": list(zip(exams, rows, strict=True))}))
    assert (line["right"], line["problems"], line["worst_seed"], line["best_seed"]) == (3, 4, 0.5, 1.0)


def test_the_recipe_of_the_models_that_ship_is_a_configuration() -> None:
    from inftythink.cli.lab import LabConfig
    from inftythink.config import resolve

    recipe = Path(__file__).parents[2] / "recipes" / "lab" / "shipped.yaml"
    assert resolve(LabConfig, recipe).preset == "model"


def test_the_models_that_ship_are_small_and_say_what_they_are_for() -> None:
    from inftythink.backends.connect import SHIPPED, trained_for

    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 6_000_000
    trained = trained_for(str(SHIPPED))
    assert trained is not None
    assert (trained.carry, trained.eta, trained.gamma, trained.puzzles) == ("summary", 63, 22, True)
    renderer = Renderer.load(SHIPPED)
    text = "How many Collatz steps from 27?"
    assert renderer.encode_content(text) == Renderer(make_tokenizer()).encode_content(text)
