"""``inftythink solve`` as a person and as a program uses it, against a real HTTP server."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from inftythink.cli._reasoning import interval
from inftythink.cli.main import main
from inftythink.errors import UsageError
from inftythink.protocol import Trajectory
from inftythink.store import read_json_lines
from tests.servers import FakeServer, Fault, in_thread


def reply(user: str, begun: str, seed: object) -> str:
    """Think too long for a round until there are notes; then answer."""
    if "discarded" in user:
        return "x is 6."
    return "The answer is 42." if "x is 6." in user else "thinking about it " * 40


@pytest.fixture
def server():
    fake = FakeServer("vllm")
    fake.reply = reply
    with in_thread(fake):
        yield fake


def solve(server: FakeServer, *arguments: str) -> list[str]:
    return ["solve", *arguments, "--base-url", server.url, "--eta", "64", "--gamma", "32", "--max-rounds", "3"]


def test_a_question_is_shown_round_by_round_as_plain_text_in_a_pipe(server, capsys):
    assert main(solve(server, "What is 6 * 7?")) == 0
    shown = capsys.readouterr()
    assert "round 1" in shown.out
    assert "round 2" in shown.out
    assert "x is 6." in shown.out
    assert "The answer is 42." in shown.out
    assert "peak context" in shown.out
    assert "\x1b" not in shown.out
    assert "carry two_call" in shown.err


def test_json_is_one_trajectory_a_line_and_nothing_else(server, capsys):
    assert main(solve(server, "What is 6 * 7?", "--json", "--samples", "2")) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [Trajectory.from_json(json.loads(line)) for line in lines]
    assert [t.sample for t in sorted(found, key=lambda t: t.sample)] == [0, 1]
    assert {t.conclusion for t in found} == {"The answer is 42."}
    keys = {"k", "thought", "summary", "stop", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds"}
    assert all(keys <= set(this) for line in lines for this in json.loads(line)["rounds"])


def test_a_file_is_solved_into_a_run_folder_and_bad_lines_are_named(server, tmp_path, capsys):
    questions = tmp_path / "q.jsonl"
    rows = [{"id": f"q{n}", "problem": f"What is {n}?", "answer": str(n)} for n in range(9)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n" + '{"other": 1}\n')
    run = tmp_path / "run"
    assert main(solve(server, "--input", str(questions), "--output", str(run))) == 0
    assert {data["id"] for data in read_json_lines(run / "trajectories.jsonl")} == {row["id"] for row in rows}
    assert len(list(read_json_lines(run / "rejects.jsonl"))) == 2
    assert json.loads((run / "metrics.json").read_text())["outcomes"]["answered"] == 9
    shown = capsys.readouterr()
    assert "answered" in shown.out
    assert "rejected: line 10" in shown.err
    calls = len(server.requests)
    assert main(solve(server, "--input", str(questions), "--output", str(run))) == 0
    assert len(server.requests) == calls
    assert main([*solve(server, "--input", str(questions), "--output", str(run)), "--temperature", "0.1"]) == 2
    assert "temperature=0.7, you asked temperature=0.1" in capsys.readouterr().err


def test_kill_9_and_the_same_command_repeats_no_finished_call(server, tmp_path):
    questions, run = tmp_path / "q.txt", tmp_path / "run"
    questions.write_text("".join(f"What is {n}?\n" for n in range(30)))
    server.token_seconds = 0.002
    command = [sys.executable, "-m", "inftythink", *solve(server, "--input", str(questions), "--output", str(run))]
    command += ["--concurrency", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (run / "trajectories.jsonl").exists():
        time.sleep(0.05)
    time.sleep(0.8)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(read_json_lines(run / "journal.jsonl"))) if (run / "journal.jsonl").exists() else 0
    assert 0 < kept < 90
    before = len(server.requests)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    calls = [(entry["id"], entry["call"]) for entry in read_json_lines(run / "journal.jsonl")]
    assert len(calls) == len(set(calls)) == 90
    assert len(server.requests) - before == 90 - kept


def test_a_failing_server_gives_failed_trajectories_and_exit_code_1(server, capsys):
    server.faults.extend([Fault("status", 400)] * 50)
    assert main(solve(server, "Q", "--json")) == 1
    assert json.loads(capsys.readouterr().out)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no question"),
        (["Q", "--input", "x"], "not both"),
        (["  "], "empty"),
        (["Q"], "--base-url"),
        (["Q", "--model", "m", "--samples", "0"], "at least 1"),
        (["Q", "--model", "m", "--top-p", "2"], "--top-p"),
        (["--input", "missing.jsonl", "--model", "m"], "missing.jsonl"),
        (["Q", "--base-url", "http://127.0.0.1:9/v1", "--carry", "nix"], "nix"),
        (["Q", "--base-url", "http://127.0.0.1:9/v1", "--summarise-when", "often"], "fixed:5000"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(arguments, message, capsys):
    assert main(["solve", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_server_that_is_not_there_is_said_so(capsys):
    assert main(["solve", "Q", "--base-url", "http://127.0.0.1:9/v1", "--retries", "0"]) == 1
    assert "nothing listens there" in capsys.readouterr().err


def test_when_to_summarise():
    assert interval("adaptive") is None
    assert interval("fixed:5k") == (5120, 5120)
    assert interval("random:3000-6000") == (3000, 6000)
    with pytest.raises(UsageError):
        interval("random:5")


def test_in_a_terminal_it_is_drawn_and_the_answer_stands(server):
    """A real pseudo-terminal: what a person sees ends with the answer and the picture of the context."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "inftythink", *solve(server, "What is 6 * 7?")]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=environment, close_fds=True)
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(parent)
    text = seen.decode("utf-8", "replace")
    assert process.wait() == 0, text
    assert "\x1b[" in text
    assert "The answer is 42." in text
    assert "peak context" in text


def test_without_a_model_the_one_that_ships_answers_in_many_rounds(capsys):
    assert main(["solve", "How many Collatz steps from 27?", "--json"]) == 0
    found = Trajectory.from_json(json.loads(capsys.readouterr().out))
    assert found.conclusion == r"\boxed{111}"
    assert found.totals["rounds"] > 20
    assert found.totals["peak_context"] <= 128 < found.totals["completion_tokens"]


def test_a_question_that_the_model_that_ships_does_not_know_gets_a_hint(capsys):
    assert main(["solve", "What is 2 + 2?"]) == 2
    shown = capsys.readouterr()
    assert "--base-url" in shown.err
    assert "How many Collatz steps from 27?" in shown.err
    assert shown.out == ""


def test_lines_of_a_file_that_are_no_puzzles_are_rejects(tmp_path, capsys):
    questions = tmp_path / "questions.txt"
    questions.write_text("Where do 3 Collatz steps lead from 12?\n\nWhat is 2 + 2?\n", encoding="utf-8")
    assert main(["solve", "--input", str(questions), "--output", str(tmp_path / "run")]) == 0
    (reject,) = read_json_lines(tmp_path / "run" / "rejects.jsonl")
    assert (reject["id"], reject["reason"]) == ("line 3", "no_puzzle")
    (found,) = read_json_lines(tmp_path / "run" / "trajectories.jsonl")
    assert found["conclusion"] == r"\boxed{10}"
