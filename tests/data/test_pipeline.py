"""The data commands as a user runs them: real files, a real server, killed processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inftythink.cli.main import main
from inftythink.data.build import read_manifest
from inftythink.data.form import split_of
from inftythink.data.table import read_rows, shards
from tests.servers import FakeServer, Fault, in_thread
from tests.tiny import tiny

BLANK = "\n\n"


def trace(number: int, thoughts: int) -> dict:
    reasoning = BLANK.join(f"Thought {n} of trace {number}: we compute {n} times {number}." for n in range(thoughts))
    said = f"<think>\n{reasoning}\n</think>\n\nThe answer is \\boxed{{{number}}}."
    turns = [{"role": "user", "content": f"What is {number} + 0?"}, {"role": "assistant", "content": said}]
    return {"uuid": f"t{number}", "source": "made up", "answer": str(number), "messages": turns}


@pytest.fixture
def traces(tmp_path) -> Path:
    rows = [trace(n, 1 + 3 * n) for n in range(12)]
    rows.insert(
        5, {"uuid": "odd", "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "no tags"}]}
    )
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return path


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny("qwen25").save_pretrained(folder)
    return folder


@pytest.fixture
def server():
    fake = FakeServer("vllm")
    fake.reply = lambda user, begun, seed: "Known so far."
    with in_thread(fake):
        yield fake


def flags(traces: Path, tokenizer: Path, server: FakeServer, output: Path, *more: str) -> list[str]:
    return [
        "data",
        "build",
        "--input",
        str(traces),
        "--tokenizer",
        str(tokenizer),
        "--output",
        str(output),
        "--eta",
        "200",
        "--gamma",
        "64",
        "--base-url",
        server.url,
        "--validation",
        "0.3",
        "--workers",
        "1",
        "--tasks",
        "2",
        *more,
    ]


def rows_of(folder: Path, stage: str) -> list[dict]:
    """All rows of a stage; ``instances`` of both splits."""
    where = [folder / stage] if stage != "instances" else [folder / stage / "train", folder / stage / "validation"]
    return [row for part in where for path in shards(part) for row in read_rows(path, stage)]


def by_id(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: (row["id"], row.get("round", 0)))


def test_build_makes_every_file_and_accounts_for_every_trace(traces, tokenizer, server, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    manifest = read_manifest(out)
    assert manifest["counts"] == {"in": 14, "out": 12, "rejected": 2}
    assert (manifest["eta"], manifest["gamma"], manifest["tokenizer"]) == (200, 64, str(tokenizer))
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [reject["reason"] for reject in rejects] == ["no_think_tags", "broken_json"]
    assert all(reject["stage"] == "read" and reject["detail"] for reject in rejects)
    segments, summaries, instances = (rows_of(out, stage) for stage in ("segments", "summaries", "instances"))
    assert len(segments) == len(summaries) == 12
    assert all(max(row["segment_tokens"]) <= 200 for row in segments)
    assert all(len(row["summaries"]) == len(row["segments"]) - 1 == len(row["attempts"]) for row in summaries)
    assert len(instances) == sum(len(row["segments"]) for row in segments)
    assert Counter(row["id"] for row in instances) == {row["id"]: len(row["segments"]) for row in segments}
    assert manifest["usage"]["calls"] == len(server.requests) == sum(len(row["summaries"]) for row in summaries)
    assert "14 in = 12 out + 2 rejected" in capsys.readouterr().out
    assert "| traces converted | 12 |" in (out / "instances/README.md").read_text()


def test_segments_give_the_reasoning_back(traces, tokenizer, tmp_path):
    out = tmp_path / "out"
    command = ["--input", str(traces), "--tokenizer", str(tokenizer), "--eta", "64", "--workers", "1", "--tasks", "1"]
    assert main(["data", "segment", *command, "--output", str(out)]) == 0
    for row in rows_of(out, "segments"):
        number = int(row["id"][1:])
        said = trace(number, 1 + 3 * number)["messages"][1]["content"]
        assert "".join(row["segments"]) == said[len("<think>\n") : said.index("\n</think>")]


def test_rows_have_the_columns_of_the_design_in_both_layouts(traces, tokenizer, server, tmp_path):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out, "--jsonl")) == 0
    wanted = {
        "id",
        "round",
        "rounds",
        "prompt",
        "completion",
        "messages",
        "prompt_tokens",
        "completion_tokens",
        "source",
        "eta",
        "gamma",
    }
    for split in ("train", "validation"):
        for path in shards(out / "instances" / split):
            assert wanted <= set(pq.read_schema(path).names)
            lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
            assert lines == list(read_rows(path, "instances"))
    row = next(row for row in rows_of(out, "instances") if row["round"] == 2)
    assert row["prompt"].endswith("<history>\nKnown so far.\n</history>\n<think>\n")
    assert row["messages"][-1]["content"].startswith("<history>\nKnown so far.\n</history>\n<think>\n")
    assert row["messages"][-1]["content"].endswith(row["completion"])


def test_trl_and_datasets_read_the_instances(traces, tokenizer, server, tmp_path):
    from datasets import load_dataset

    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    loaded = load_dataset(str(out / "instances"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation"}
    assert sum(len(split) for split in loaded.values()) == len(rows_of(out, "instances"))


def test_the_split_is_by_question(traces, tokenizer, server, tmp_path):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    for split in ("train", "validation"):
        rows = [row for path in shards(out / "instances" / split) for row in read_rows(path, "instances")]
        assert rows
        assert {split_of(row["problem"], 0.3, 0) for row in rows} == {split}


def test_stages_one_by_one_in_folders_of_their_own_give_what_build_gives(traces, tokenizer, server, tmp_path):
    one, two, three, whole = (tmp_path / name for name in ("one", "two", "three", "whole"))
    assert main(flags(traces, tokenizer, server, whole)) == 0
    common = ["--eta", "200", "--workers", "1", "--tasks", "2", "--tokenizer", str(tokenizer)]
    assert main(["data", "segment", "--input", str(traces), "--output", str(one), *common]) == 0
    assert (
        main(
            ["data", "summarise", "--input", str(one), "--output", str(two), "--base-url", server.url, "--gamma", "64"]
        )
        == 0
    )
    # what form needs of the segments travels in the summaries
    assert (
        main(["data", "form", "--input", str(two), "--output", str(three), "--validation", "0.3", "--workers", "1"])
        == 0
    )
    assert by_id(rows_of(three, "instances")) == by_id(rows_of(whole, "instances"))
    assert read_manifest(three)["counts"] == read_manifest(whole)["counts"]
    assert (three / "rejects.jsonl").read_text() == (whole / "rejects.jsonl").read_text()


def test_several_processes_give_what_one_gives(traces, tokenizer, server, tmp_path):
    assert main(flags(traces, tokenizer, server, tmp_path / "one")) == 0
    assert main([*flags(traces, tokenizer, server, tmp_path / "two"), "--workers", "2", "--tasks", "3"]) == 0
    assert by_id(rows_of(tmp_path / "two", "instances")) == by_id(rows_of(tmp_path / "one", "instances"))


def test_a_trace_without_a_summary_is_rejected_with_its_reasons_and_the_others_go_on(
    traces, tokenizer, server, tmp_path
):
    server.reply = lambda user, begun, seed: "x" * 500 if "What is 7 + 0?" in user else "Known."
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out, "--attempts", "3")) == 0
    assert read_manifest(out)["counts"] == {"in": 14, "out": 11, "rejected": 3}
    reject = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()][-1]
    assert (reject["id"], reject["stage"], reject["reason"]) == ("t7", "summarise", "no_summary")
    assert reject["detail"].startswith("segment 1 of")
    assert reject["detail"].count("cut at 128 tokens") == 3


def test_a_finished_build_run_again_calls_nobody_and_changes_nothing(traces, tokenizer, server, tmp_path):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    calls = len(server.requests)
    assert main(flags(traces, tokenizer, server, out)) == 0
    assert len(server.requests) == calls
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before


def test_several_servers_share_the_work_also_when_one_is_not_well(traces, tokenizer, server, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert main(flags(traces, tokenizer, server, whole)) == 0
    server.requests.clear()
    second = FakeServer("vllm")
    second.reply = server.reply
    with in_thread(second):
        second.faults.extend([None] * 3 + [Fault("status", 401)] * 100)
        more = ["--base-url", second.url, "--base-url", "http://127.0.0.1:9", "--requests-per-minute", "600000"]
        assert main(flags(traces, tokenizer, server, out, *more, "--tasks", "1")) == 0
    answered = len(server.requests) + 3
    assert read_manifest(out)["usage"]["calls"] == answered == len(rows_of(out, "instances")) - 12
    assert len(second.requests) > 3
    assert by_id(rows_of(out, "instances")) == by_id(rows_of(whole, "instances"))


def test_other_settings_in_the_same_folder_are_refused_by_name(traces, tokenizer, server, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    assert main([*flags(traces, tokenizer, server, out), "--eta", "300"]) == 2
    assert "made with eta=200, you asked eta=300" in capsys.readouterr().err
    assert main([*flags(traces, tokenizer, server, out), "--gamma", "32"]) == 2
    assert "made with gamma=64, you asked gamma=32" in capsys.readouterr().err


def test_a_server_that_dies_stops_the_build_and_the_same_command_goes_on(traces, tokenizer, server, tmp_path, capsys):
    out = tmp_path / "out"
    server.faults.extend([None] * 10 + [Fault("status", 401)] * 200)
    assert main(flags(traces, tokenizer, server, out, "--concurrency", "1")) == 1
    assert "error:" in capsys.readouterr().err
    server.faults.clear()
    made = len(server.requests)
    assert main(flags(traces, tokenizer, server, out, "--concurrency", "1")) == 0
    wanted = sum(len(row["summaries"]) for row in rows_of(out, "summaries"))
    assert len(server.requests) - made == wanted - 10, "an answered call was made again"
    assert read_manifest(out)["usage"]["calls"] == wanted


def test_kill_9_at_any_moment_and_the_same_command_gives_the_same_rows(traces, tokenizer, server, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(flags(traces, tokenizer, server, whole)) == 0
    server.token_seconds = 0.001
    command = [sys.executable, "-m", "inftythink", *flags(traces, tokenizer, server, out, "--concurrency", "2")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    for patience in (1.5, 2.0, 2.5, 3.0, 60.0):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == 0
    for stage in ("segments", "summaries", "instances"):
        assert rows_of(out, stage) == rows_of(whole, stage)
    assert read_manifest(out)["counts"] == read_manifest(whole)["counts"]
    assert (out / "rejects.jsonl").read_text() == (whole / "rejects.jsonl").read_text()


@pytest.mark.parametrize("stage", ["summarise", "form"])
def test_a_stage_of_which_one_shard_was_whole_goes_on(stage, traces, tokenizer, server, tmp_path):
    """Killed between two shards: the books of the stage are there, but not all of them."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(flags(traces, tokenizer, server, whole)) == 0
    assert main(flags(traces, tokenizer, server, out)) == 0
    (out / "work" / stage / "counts" / "00001.json").unlink()
    (out / "work" / stage / "log" / "completions" / "00001").unlink()
    assert main(flags(traces, tokenizer, server, out)) == 0
    assert read_manifest(out)["counts"] == read_manifest(whole)["counts"]
    for name in ("segments", "summaries", "instances"):
        assert rows_of(out, name) == rows_of(whole, name)


def test_stats_show_lengths_and_rounds(traces, tokenizer, server, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(flags(traces, tokenizer, server, out)) == 0
    capsys.readouterr()
    assert main(["data", "stats", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    segments = rows_of(out, "segments")
    assert found["counts"] == {"in": 14, "out": 12, "rejected": 2}
    assert found["segments"]["tokens a segment"]["count"] == sum(len(row["segments"]) for row in segments)
    assert found["segments"]["tokens a segment"]["max"] == max(max(row["segment_tokens"]) for row in segments)
    assert sum(found["segments"]["traces by rounds"].values()) == 12
    assert found["summaries"]["tokens a summary"]["max"] <= 64
    assert main(["data", "stats", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "traces by rounds" in shown
    assert "█" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data", "build", "--input", "{traces}", "--tokenizer", "{tokenizer}", "--output", "{out}"], 2, "--base-url"),
        (
            ["data", "segment", "--input", "missing.jsonl", "--tokenizer", "{tokenizer}", "--output", "{out}"],
            1,
            "no such file",
        ),
        (["data", "segment", "--input", "{traces}", "--tokenizer", "{out}", "--output", "{out}"], 1, "tokenizer"),
        (["data", "summarise", "--input", "{out}", "--base-url", "http://127.0.0.1:9"], 1, "no manifest.json"),
        (["data", "stats", "{out}"], 1, "no manifest.json"),
        (["data", "segment", "--input", "{traces}", "--output", "{out}"], 2, "tokenizer"),
        (
            [
                "data",
                "segment",
                "--input",
                "{traces}",
                "--tokenizer",
                "{tokenizer}",
                "--output",
                "{out}",
                "--map",
                "problem=nix",
            ],
            1,
            "nix",
        ),
        (
            ["data", "segment", "--input", "{traces}", "--tokenizer", "{tokenizer}", "--output", "{out}", "--eta", "0"],
            2,
            "eta",
        ),
    ],
)
def test_wrong_usage_says_what_to_do(arguments, code, message, traces, tokenizer, tmp_path, capsys):
    places = {"traces": traces, "tokenizer": tokenizer, "out": tmp_path / "out"}
    arguments = [argument.format(**places) for argument in arguments]
    arguments += ["--workers", "1", "--tasks", "1"] if arguments[1] in ("segment", "build") else []
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
