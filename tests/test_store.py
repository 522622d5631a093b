"""Run folders: what is on record survives, what is not is made again, and a different run is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from inftythink.backends.scripted import Scripted
from inftythink.config import option
from inftythink.errors import BackendError, InputError, UsageError
from inftythink.protocol import Outcome, Problem
from inftythink.reasoner import Reasoner
from inftythink.store import JsonLines, RunFolder, ordered_trajectories, read_json_lines, read_trajectories
from tests.test_reasoner import POLICY, counting, problems, rounds_of


@dataclass(frozen=True)
class Config:
    eta: int = option(4096, "tokens")
    slots: int = option(4, "slots", identity=False)


async def run(path, asked: list[Problem], backend: Scripted, config: Config | None = None, samples: int = 1) -> None:
    with RunFolder(path, config or Config()) as folder:
        async for _ in Reasoner(backend, policy=POLICY, slots=4).run(asked, samples, folder):
            pass


def by_key(path) -> dict:
    return {(t.problem.id, t.sample): t for t in read_trajectories(path)}


async def test_a_finished_run_is_not_run_again(tmp_path):
    backend = Scripted(counting)
    await run(tmp_path, problems(10), backend, samples=2)
    calls = backend.calls
    await run(tmp_path, problems(10), backend, samples=2)
    assert backend.calls == calls
    found = list(read_trajectories(tmp_path))
    assert len(found) == len(by_key(tmp_path)) == 20
    assert all(t.outcome is Outcome.ANSWERED for t in found)


async def test_an_interrupted_run_repeats_no_finished_call(tmp_path):
    """Stop after every possible number of calls; the calls of both halves are those of one unbroken run."""
    asked = problems(4, most=5)
    whole = sum(int(p.question) for p in asked)

    class Killed(BaseException):
        pass

    for limit in range(whole):
        made = []

        def dying(request, limit=limit, made=made):
            if len(made) == limit:
                raise Killed
            made.append((request.prompt.turns[0].text, rounds_of(request)))
            return counting(request)

        def living(request, made=made):
            made.append((request.prompt.turns[0].text, rounds_of(request)))
            return counting(request)

        path = tmp_path / str(limit)
        with pytest.raises(Killed):
            await run(path, asked, Scripted(dying))
        await run(path, asked, Scripted(living))
        assert len(made) == whole, f"stopped after {limit} calls"
        assert {t.conclusion for t in read_trajectories(path)} == {f"answer {p.question}" for p in asked}


async def test_failed_trajectories_are_tried_again_from_their_last_good_call(tmp_path):
    asked = [Problem("a", "3"), Problem("b", "1")]
    down = Scripted(lambda request: BackendError("down") if rounds_of(request) == (3, 2) else counting(request))
    await run(tmp_path, asked, down)
    assert {k[0]: t.outcome for k, t in by_key(tmp_path).items()} == {"a": Outcome.FAILED, "b": Outcome.ANSWERED}
    up = Scripted(counting)
    await run(tmp_path, asked, up)
    assert up.calls == 2
    assert [t.outcome for t in read_trajectories(tmp_path)] == [Outcome.ANSWERED] * 2
    assert [r.summary for r in by_key(tmp_path)["a", 0].rounds] == ["1", "2", None]


@pytest.mark.parametrize("file", ["journal.jsonl", "trajectories.jsonl"])
async def test_a_torn_last_line_is_cut_off_at_every_length(tmp_path, file):
    asked = [Problem("a", "3")]
    await run(tmp_path / "whole", asked, Scripted(counting))
    journal = (tmp_path / "whole/journal.jsonl").read_bytes()
    trajectories = (tmp_path / "whole/trajectories.jsonl").read_bytes()
    last = (journal if file == "journal.jsonl" else trajectories).splitlines(keepends=True)[-1]
    for kept in (1, 2, len(last) // 2, len(last) - 1):
        path = tmp_path / f"torn{kept}"
        path.mkdir()
        (path / "config.yaml").write_bytes((tmp_path / "whole/config.yaml").read_bytes())
        torn = last[:kept]
        (path / "journal.jsonl").write_bytes(journal if file != "journal.jsonl" else journal[: -len(last)] + torn)
        (path / "trajectories.jsonl").write_bytes(b"" if file == "journal.jsonl" else torn)
        backend = Scripted(counting)
        with RunFolder(path, Config()) as folder:
            assert folder.torn_bytes == kept
            assert folder.resumed_calls == (2 if file == "journal.jsonl" else 3)
            async for _ in Reasoner(backend, policy=POLICY).run(asked, 1, folder):
                pass
        assert backend.calls == (1 if file == "journal.jsonl" else 0)
        assert by_key(path)["a", 0].conclusion == "answer 3"


async def test_who_only_reads_passes_over_a_torn_last_line(tmp_path):
    await run(tmp_path, problems(3), Scripted(counting))
    with (tmp_path / "trajectories.jsonl").open("a") as file:
        file.write('{"version": 1, "id": "p')
    assert len(list(read_trajectories(tmp_path))) == len(list(ordered_trajectories(tmp_path))) == 3


DRIVER = """
import asyncio, sys, time
from inftythink.backends.scripted import Scripted
from inftythink.reasoner import Reasoner
from inftythink.store import RunFolder
from tests.test_store import Config, POLICY, problems, counting

def slow(request):
    with open(sys.argv[1] + "/calls", "a") as calls:
        calls.write(request.prompt.turns[0].text + "\\n")
    return counting(request)

async def main():
    with RunFolder(sys.argv[1], Config()) as folder:
        async for _ in Reasoner(Scripted(slow, latency=0.002), policy=POLICY, slots=4).run(problems(40), 1, folder):
            pass
asyncio.run(main())
"""


def test_kill_9_loses_no_finished_round_and_repeats_none_on_record(tmp_path):
    """A real process, killed again and again in the middle of its work until that is done."""
    asked, kills, draw = problems(40), 0, random.Random(0)
    while True:
        worker = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=os.getcwd())
        wanted = len(read_lines(tmp_path / "journal.jsonl")) + draw.randint(20, 150)
        while worker.poll() is None and len(read_lines(tmp_path / "journal.jsonl")) < wanted:
            time.sleep(0.002)
        if worker.poll() is not None:
            break
        before = read_lines(tmp_path / "journal.jsonl")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        kills += 1
        assert read_lines(tmp_path / "journal.jsonl")[: len(before)] == before
    assert worker.returncode == 0
    assert kills >= 1
    found = by_key(tmp_path)
    assert {k[0]: t.conclusion for k, t in found.items()} == {p.id: f"answer {p.question}" for p in asked}
    recorded = [(e["id"], e["call"]) for e in read_json_lines(tmp_path / "journal.jsonl")]
    assert len(recorded) == len(set(recorded)) == sum(int(p.question) for p in asked), "a call on record was made again"
    made = len((tmp_path / "calls").read_text().splitlines())
    assert made <= len(recorded) + 4 * kills, "only calls under way at a kill may be made again"


def read_lines(path):
    """Read the whole lines that stand in a file which another process writes."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].splitlines()


def test_a_different_configuration_is_refused_by_name(tmp_path):
    with RunFolder(tmp_path, Config(eta=4096, slots=4)):
        pass
    with RunFolder(tmp_path, Config(eta=4096, slots=64)):
        pass
    with pytest.raises(UsageError, match=r"eta=4096, you asked eta=2048"):
        RunFolder(tmp_path, Config(eta=2048))
    with pytest.raises(UsageError, match="holds a run already"):
        RunFolder(tmp_path, Config(), resume=False)


def test_a_second_run_in_one_folder_is_refused_while_the_first_has_it(tmp_path):
    with RunFolder(tmp_path, Config()), pytest.raises(UsageError, match="another run has this folder open"):
        RunFolder(tmp_path, Config())
    with RunFolder(tmp_path, Config()):
        pass


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be used as a run folder"):
        RunFolder(tmp_path / "file", Config())


def test_a_broken_line_inside_is_named(tmp_path):
    with RunFolder(tmp_path, Config()):
        pass
    (tmp_path / "journal.jsonl").write_text(
        '{"id": "a", "sample": 0, "call": 0, "completion": {"text": "x", "stop": "stop"}}\n{broken\n[1]\n'
    )
    with pytest.raises(InputError, match=r"journal.jsonl:2: not a line of JSON"):
        RunFolder(tmp_path, Config())
    (tmp_path / "journal.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"journal.jsonl:1: a JSON object was expected, not list"):
        RunFolder(tmp_path, Config())
    (tmp_path / "journal.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match="not a journal of this version"):
        RunFolder(tmp_path, Config())
    (tmp_path / "journal.jsonl").write_text('{"id": "a", "sample": 0, "call": 1, "completion": {}}\n')
    with pytest.raises(InputError, match="call 0 of"):
        RunFolder(tmp_path, Config())


def test_reading_trajectories_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_trajectories(tmp_path))
    (tmp_path / "trajectories.jsonl").write_text(json.dumps({"version": 7}) + "\n")
    with pytest.raises(InputError, match=r"trajectories.jsonl:1: .*version 7"):
        list(read_trajectories(tmp_path))


def test_lines_hold_any_text_and_a_full_disk_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    lines = JsonLines(tmp_path / "x.jsonl")
    texts = ["\n", "\u2028", "🙂", "\ud800", "思考\r\n", '"\\']
    for text in texts:
        lines.append({"t": text})
    lines.sync()
    assert [data["t"] for data in read_json_lines(tmp_path / "x.jsonl")] == texts

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match=r"No space left on device.*free some space"):
        lines.append({})
