"""The report's files: what they hold is what the metrics say, and no text in them can be anything but text."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from inftythink.cli.main import run_command
from inftythink.cli.report import COMMAND
from inftythink.errors import InputError, UsageError
from inftythink.evals.metrics import accuracy, by_rounds, outcomes, summary
from inftythink.evals.rows import rows
from inftythink.protocol import Outcome, Problem, Trajectory
from inftythink.report.build import build
from inftythink.report.shards import SHARD_BYTES, SHARD_ROWS, entry_of
from inftythink.store import read_trajectories
from tests.report.fake import hostile, make, write_run

TASKS = {"math500": 12, "aime24": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [
        make(root / "rounds", tasks=TASKS, samples=6, seed=1),
        make(root / "small", tasks=TASKS, samples=6, seed=2, eta=2048),
        make(root / "vanilla", tasks=TASKS, samples=6, seed=3, chain=True),
    ]


@pytest.fixture(scope="module")
def report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(runs, tmp_path_factory.mktemp("report"))


class Blocks(HTMLParser):
    """The scripts of a page as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + data


def data_of(page: Path) -> Any:
    return json.loads(Blocks(page.read_text("utf-8")).scripts[0][1])


def entries_of(page: Path) -> list[dict[str, Any]]:
    """The entries of all shards, wherever they lie."""
    inside = [text for attributes, text in Blocks(page.read_text("utf-8")).scripts if attributes.get("id") == "shard"]
    if inside:
        return list(json.loads(inside[0]))
    found: list[dict[str, Any]] = []
    for number, path in enumerate(sorted((page.parent / "data").glob("*.js"))):
        match = re.fullmatch(rf"inftythink_shard\({number},(\[.*\])\)\n", path.read_text("ascii"), re.DOTALL)
        assert match is not None
        found += json.loads(match[1])
    return found


def read_csv(page: Path, name: str) -> list[dict[str, str]]:
    with (page.parent / "figures" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_the_metrics_say(report: Path, runs: list[Path]) -> None:
    told = {(line["run"], line["task"]): line for line in read_csv(report, "results")}
    for run in runs:
        found = list(rows(run))
        for task in TASKS:
            mine, line = [row for row in found if row.task == task], told[run.name, task]
            value = accuracy(mine)
            assert (float(line["accuracy"]), float(line["low"]), float(line["high"])) == (
                value.value,
                value.low,
                value.high,
            )
            assert int(line["failed"]) == value.failed
            assert float(line["tokens"]) == summary(mine)["all"]["usage"]["tokens"]["mean"]
        assert float(told[run.name, "mean of tasks"]["accuracy"]) == summary(found)["mean_of_tasks"]


def test_curves_and_outcomes_are_what_the_metrics_say(report: Path, runs: list[Path]) -> None:
    found = [row for row in rows(runs[0]) if row.task == "math500"]
    curve = {
        int(line["rounds"]): float(line["accuracy"])
        for line in read_csv(report, "accuracy_by_rounds")
        if (line["run"], line["task"]) == ("rounds", "math500")
    }
    assert curve == {r: estimate.value for r, estimate in by_rounds(found).items()}
    line = next(line for line in read_csv(report, "outcomes") if (line["run"], line["task"]) == ("rounds", "math500"))
    assert {each.value: int(line[each.value]) for each in Outcome} == dict(outcomes(found))


def test_the_page_and_the_files_hold_the_same_figures(report: Path) -> None:
    figures = data_of(report)["figures"]
    for name, records in figures.items():
        lines = read_csv(report, name)
        assert len(lines) == len(records) > 0, name
        for line, record in zip(lines, records, strict=True):
            assert {key: value for key, value in line.items() if value != ""} == {
                key: str(value) for key, value in record.items() if value is not None
            }


def test_every_figure_is_drawn_as_svg_and_png(report: Path) -> None:
    folder = report.parent / "figures"
    names = {path.stem for path in folder.glob("*.csv")} - {"results"}
    assert {path.stem for path in folder.glob("*.svg")} == {path.stem for path in folder.glob("*.png")} == names
    assert "eta" in names
    assert "<text" in (folder / "cost.svg").read_text("utf-8")


def test_the_index_and_the_shards_hold_every_trajectory_in_order(report: Path, runs: list[Path]) -> None:
    index, entries = data_of(report)["index"], entries_of(report)
    columns = index["trajectories"]
    asked = [(number, each) for number, run in enumerate(runs) for each in read_trajectories(run)]
    assert len(entries) == len(asked) == len(columns["run"])
    assert index["shards"] == list(range(0, len(asked), SHARD_ROWS))
    for row, ((number, trajectory), entry) in enumerate(zip(asked, entries, strict=True)):
        problem = columns["problem"][row]
        assert columns["run"][row] == number
        assert index["problems"]["id"][problem] == trajectory.problem.id
        assert index["outcomes"][columns["outcome"][row]] == trajectory.outcome.value
        assert columns["rounds"][row] == len(trajectory.rounds) == len(entry["rounds"])
        assert [each["thought"] for each in entry["rounds"]] == [each.thought for each in trajectory.rounds]
        assert [each["summary"] for each in entry["rounds"]] == [each.summary for each in trajectory.rounds]
        assert entry["curve"][-1][0] == columns["tokens"][row]
        assert max(context for _, context in entry["curve"]) == columns["peak"][row]
    assert len(index["problems"]["id"]) == sum(TASKS.values())  # the runs asked the same problems


def test_building_again_gives_the_same_and_leaves_nothing_behind(runs: list[Path], tmp_path: Path) -> None:
    build(runs, tmp_path)
    page = build(runs[:1], tmp_path, plots=False)
    assert not list((tmp_path / "data").glob("*.js"))  # one shard: it is in the page
    assert not list((tmp_path / "figures").glob("eta.*"))
    assert not list((tmp_path / "figures").glob("*.png"))
    first = page.read_bytes()
    assert build(runs[:1], tmp_path, plots=False).read_bytes() == first


def test_a_shard_is_closed_by_its_size_too(tmp_path: Path) -> None:
    run = make(tmp_path / "run", tasks={"long": 40}, samples=1, words=30_000)
    page = build([run], tmp_path / "out", plots=False)
    shards = sorted((page.parent / "data").glob("*.js"))
    assert len(shards) > 2
    most = max(len(json.dumps(entry)) for entry in entries_of(page))
    assert max(path.stat().st_size for path in shards) < SHARD_BYTES + most + 1000


def test_hostile_text_is_nothing_but_text(tmp_path: Path) -> None:
    asked = hostile()
    run = write_run(tmp_path / "<b>run&amp;", asked, model="</script><script>window.hacked=1</script>", eta=100)
    page = build([run], tmp_path / "out")
    assert entries_of(page) == [
        json.loads(json.dumps(entry_of(each, row))) for each, row in zip(asked, rows(run), strict=True)
    ]
    kinds = [attributes.get("type") for attributes, _ in Blocks(page.read_text("utf-8")).scripts]
    assert kinds == ["application/json", "application/json", None]
    assert {"img", "textarea", "iframe"}.isdisjoint(Blocks(page.read_text("utf-8")).tags)
    # What stands in data is ASCII without anything that HTML or a script's line could end at.
    html = page.read_text("utf-8")
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL):
        assert block.isascii()
        assert not set("<>&") & set(block)
    for name in (path.stem for path in (tmp_path / "out/figures").glob("*.csv")):
        assert not [
            cell for line in read_csv(page, name) for cell in line.values() if (cell or "").startswith(("=", "@"))
        ]


def test_the_policy_allows_the_pages_own_code_and_no_more(report: Path) -> None:
    html = report.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == "'none'"
    for loose in ("unsafe", "http", "*", "data: "):
        assert loose not in policy[1]
    scripts = [attributes for attributes, _ in Blocks(html).scripts if attributes.get("type") is None]
    assert scripts == [{}]
    source = "".join(path.read_text("utf-8") for path in Path("src/inftythink/report/page").glob("*.js"))
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert sink not in source


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path) -> None:
    run = make(tmp_path / "run", tasks={"math500": 3}, samples=1)
    path = run / "trajectories.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines, lines[0], b'{"version": 9}', b"[1]", b'{"version": 1, "id": "torn']))
    told: list[str] = []
    page = build([run], tmp_path / "out", told.append, plots=False)
    assert data_of(page)["runs"][0]["trajectories"] == 3
    assert data_of(page)["runs"][0]["rejected"] == 4
    assert [re.search(r":(\d+): ", line)[1] for line in told[:-1]] == ["4", "5", "6", "7"]  # type: ignore[index]
    assert "version 9" in told[1]
    assert told[-1] == "run: 3 trajectories read, 4 lines rejected"


def test_a_run_without_tasks_or_grades_can_be_read_too(tmp_path: Path) -> None:
    """What ``inftythink solve --input`` leaves: plain ids, no grades, no groups, perhaps no settings."""
    asked = [Trajectory(Problem(f"p{i}", "What?"), Outcome.ANSWERED, (), "It.") for i in range(3)]
    run = write_run(tmp_path / "run", asked)
    for name in ("config.yaml", "problems.jsonl"):
        (run / name).unlink()
    page = build([run], tmp_path / "out")
    data = data_of(page)
    assert data["index"]["tasks"] == ["questions"]
    assert data["index"]["trajectories"]["correct"] == [None] * 3
    assert data["figures"]["results"][0]["failed"] == 3


def test_grades_on_record_count_before_they_are_written_into_the_trajectories(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Trajectory(Problem("t/1", "What?"), Outcome.ANSWERED, (), "It.")])
    (run / "grades.jsonl").write_text(
        '{"id": "t/1", "sample": 0, "correct": true, "extracted": "It", "reason": null}\n'
    )
    assert data_of(build([run], tmp_path / "out", plots=False))["index"]["trajectories"]["correct"] == [1]


def test_costs_come_from_the_runs_own_metrics_when_they_fit(tmp_path: Path) -> None:
    run = make(tmp_path / "run", tasks={"math500": 4}, samples=2)
    told = summary(rows(run))
    for block in (told["all"], *told["tasks"].values()):
        block["usage"]["cost"] = {"linear_flops": 2e12, "attention_flops": 1e9, "kv_bytes_max": 4096}
    (run / "metrics.json").write_text(json.dumps(told))
    page = build([run], tmp_path / "out", plots=False)
    assert {record["attention_flops"] for record in data_of(page)["figures"]["cost"]} == {1e9}
    told["tasks"]["math500"]["usage"]["tokens"]["total"] += 1  # of other trajectories
    (run / "metrics.json").write_text(json.dumps(told))
    page = build([run], tmp_path / "out", plots=False)
    assert data_of(page)["figures"]["cost"][0]["attention_flops"] is None


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make(tmp_path / place / "run", tasks={"t": 2}, samples=1) for place in ("a", "b")]
    page = build([*runs, make(tmp_path / "c", tasks={"t": 2}, samples=1)], tmp_path / "out", plots=False)
    assert [run["label"] for run in data_of(page)["runs"]] == ["a/run", "b/run", "c"]


def test_wrong_usage_is_told(tmp_path: Path) -> None:
    run = make(tmp_path / "run", tasks={"t": 2}, samples=1)
    with pytest.raises(InputError, match="not a run folder"):
        build([tmp_path], tmp_path / "out")
    with pytest.raises(UsageError, match="given 2 times"):
        build([run, run / "."], tmp_path / "out")
    with pytest.raises(UsageError, match="no run"):
        build([], tmp_path / "out")
    (run / "trajectories.jsonl").write_text("")
    with pytest.raises(InputError, match="no trajectory could be read"):
        build([run], tmp_path / "out")


def test_the_command_says_what_it_read_and_where_the_page_is(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*map(str, runs[:2]), "--output", str(tmp_path / "out"), "--no-plots"]
    assert run_command("inftythink report", COMMAND, arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == f"the report: {tmp_path / 'out' / 'index.html'}\n"
    assert "rounds: 120 trajectories read, 0 lines rejected" in shown.err
    with pytest.raises(UsageError, match="missing: run"):
        run_command("inftythink report", COMMAND, ["--output", str(tmp_path / "out")])
