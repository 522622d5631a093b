"""Where tasks run: processes, Slurm's commands (scripts that really run the jobs), a Ray cluster with a node killed."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inftythink.cli.main import main
from inftythink.data.build import StageRun, read_manifest
from inftythink.data.executor import LocalExecutor, RayExecutor
from inftythink.data.steps import ReadShard, ReadTraces
from inftythink.data.table import read_rows, shards
from inftythink.errors import InputError
from inftythink.store import lock
from tests.data.odd_steps import Die, Fail, Keep


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    from tests.tiny import tiny  # takes seconds to load, and half of these tests do not need it

    folder = tmp_path_factory.mktemp("tokenizer")
    tiny("qwen25").save_pretrained(folder)
    return folder


def trace(number: int, thoughts: int) -> dict[str, Any]:
    reasoning = "\n\n".join(f"Thought {n} of trace {number}: we compute {n} times {number}." for n in range(thoughts))
    return {"id": f"t{number}", "question": f"What is {number} + 0?", "reasoning": reasoning, "conclusion": str(number)}


@pytest.fixture
def traces(tmp_path) -> Path:
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(trace(n, 1 + n)) + "\n" for n in range(24)) + "{broken\n")
    return path


@dataclass(frozen=True)
class Made:
    """The settings of a stage that has none."""


def stage(traces: Path, output: Path, tasks: int, workers: int, seconds: float = 0.0) -> StageRun:
    output.mkdir(exist_ok=True)
    steps = [ReadTraces(str(traces), output), Keep(output, seconds)]
    return StageRun(("read", "segment"), output, Made(), steps, tasks, workers)


def segments(folder: Path) -> list[dict[str, Any]]:
    """All rows, in the order of their ids."""
    rows = [row for path in shards(folder / "segments") for row in read_rows(path, "segments")]
    return sorted(rows, key=lambda row: row["id"])


def test_a_worker_that_is_killed_and_one_that_fails_end_the_run(tmp_path):
    with pytest.raises(InputError, match=r"ended with code -9 in the middle of a task.*fewer --workers"):
        LocalExecutor([Die()], 2, 2, tmp_path / "die").run()
    with pytest.raises(InputError, match="says what is wrong"):
        LocalExecutor([Fail()], 1, 2, tmp_path / "fail").run()


def test_a_worker_that_is_gone_before_it_is_told_what_to_do_ends_the_run_too(tmp_path, monkeypatch):
    """However far its pipe has come: a broken pipe to a worker is no broken pipe of the terminal."""
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")
    for number in range(10):
        with pytest.raises(InputError, match=r"a worker process ended with code (1|None) in the middle of a task"):
            LocalExecutor([Die()], 4, 2, tmp_path / str(number)).run()


def test_a_folder_takes_one_writer_at_a_time(traces, tokenizer, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["data", "segment", "--input", str(traces), "--tokenizer", str(tokenizer), "--output", str(out)]
    held = lock(out)
    try:
        assert main([*command, "--workers", "1", "--tasks", "1"]) == 2
        assert f"another run has this folder open (process {os.getpid()} on" in capsys.readouterr().err
        assert not (out / "segments").exists()
    finally:
        os.close(held)
    # The file of a process that is gone keeps nobody out.
    assert (out / ".lock").exists()
    assert main([*command, "--workers", "1", "--tasks", "1"]) == 0


# Slurm: the commands are scripts; what they are told to run is run.

SBATCH = """#!{python}
import json, pathlib, shutil, sys
queue = pathlib.Path({queue!r})
number = str(len(list(queue.glob("*.json"))) + 101)
shutil.copy(sys.argv[-1], queue / (number + ".sh"))
(queue / (number + ".json")).write_text(json.dumps({{"arguments": sys.argv[1:-1], "state": "PENDING"}}))
print(number)
"""
SQUEUE = """#!{python}
import json, pathlib, sys
for path in sorted(pathlib.Path({queue!r}).glob("*.json")):
    if json.loads(path.read_text())["state"] == "PENDING":
        print(path.stem)
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'


class Cluster:
    """What Slurm does with jobs, one after the other."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queue, self.commands = folder / "queue", folder / "commands"
        for each in (self.queue, self.commands):
            each.mkdir(parents=True)
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("srun", SRUN)):
            path = self.commands / name
            path.write_text(text.format(python=sys.executable, queue=str(self.queue)) if name != "srun" else text)
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.commands}:{os.environ['PATH']}")

    def jobs(self) -> dict[str, dict[str, Any]]:
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.queue.glob("*.json"))}

    def run(self, lost: frozenset[tuple[str, int]] = frozenset()) -> dict[str, str]:
        """Run what is in the queue; ``lost`` are the ``(job, task)`` whose node goes away. Returns how jobs ended."""
        ended = {number: job["state"] for number, job in self.jobs().items()}
        for number, job in self.jobs().items():
            if job["state"] != "PENDING":
                continue
            ended[number] = self._run(number, job["arguments"], ended, lost)
            (self.queue / f"{number}.json").write_text(json.dumps(job | {"state": ended[number]}))
        return ended

    def _run(self, number: str, arguments: list[str], ended: dict[str, str], lost: frozenset[tuple[str, int]]) -> str:
        told = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
        for condition in told.get("dependency", "").split(",") if "dependency" in told else []:
            kind, *before = condition.split(":")
            if kind == "afterok" and any(ended[each] != "COMPLETED" for each in before):
                assert told["kill-on-invalid-dep"] == "yes"
                return "CANCELLED"
        script = self.queue / f"{number}.sh"
        array = re.search(r"^#SBATCH --array=0-(\d+)", script.read_text(), re.MULTILINE)
        state = "COMPLETED"
        for task in range(int(array[1]) + 1) if array else [None]:
            more = {} if task is None else {"SLURM_ARRAY_TASK_ID": str(task)}
            offset = re.search(r"RUN_OFFSET=(\d+)", told.get("export", ""))
            more |= {"RUN_OFFSET": offset[1]} if offset else {}
            if (number, task) in lost:
                state = "NODE_FAIL"
                continue
            done = subprocess.run(
                ["bash", str(script)], env=os.environ | more | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
            )
            if done.returncode:
                state = f"FAILED: {done.stderr[-500:]}"
        return state


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Cluster:
    return Cluster(tmp_path / "cluster", monkeypatch)


def slurm(traces: Path, tokenizer: Path, out: Path, *more: str) -> list[str]:
    return [
        *("data", "segment", "--input", str(traces), "--tokenizer", str(tokenizer), "--output", str(out)),
        *("--eta", "64", "--tasks", "2", "--executor", "slurm", "--slurm-partition", "cpu", *more),
    ]


def test_slurm_jobs_give_what_local_tasks_give_also_when_a_node_is_lost(traces, tokenizer, cluster, tmp_path, capsys):
    local, out = tmp_path / "local", tmp_path / "out"
    common = ["--eta", "64", "--tasks", "2", "--workers", "1", "--tokenizer", str(tokenizer)]
    assert main(["data", "segment", "--input", str(traces), "--output", str(local), *common]) == 0
    command = slurm(traces, tokenizer, out, "--slurm-max-array", "1")
    assert main(command) == 0
    assert "submitted jobs 101, 102, 103" in capsys.readouterr().err
    assert main(command) == 2
    assert "jobs 101, 102, 103 still wait or run" in capsys.readouterr().err
    assert main([*command, "--executor", "local"]) == 2, "a local run would write beside the jobs"
    # An array a task: the second begins although the first was lost, the last job does not.
    assert cluster.run(lost=frozenset({("101", 0)})) == {"101": "NODE_FAIL", "102": "COMPLETED", "103": "CANCELLED"}
    assert not (out / "manifest.json").exists()
    assert main(command) == 0
    assert "submitted jobs 104, 105;" in capsys.readouterr().err, "the task that is whole was submitted again"
    assert {number: state for number, state in cluster.run().items() if number > "103"} == {
        "104": "COMPLETED",
        "105": "COMPLETED",
    }
    assert read_manifest(out)["counts"] == read_manifest(local)["counts"]
    assert segments(out) == segments(local)
    assert (out / "rejects.jsonl").read_text() == (local / "rejects.jsonl").read_text()
    # The same command once more has nothing to submit.
    assert main(command) == 0
    assert len(cluster.jobs()) == 5


def test_a_dry_run_shows_the_jobs_of_a_build(traces, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    out, venv = tmp_path / "out", tmp_path / "venv with space"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").touch()
    asked = [
        *("data", "build", *slurm(traces, tokenizer, out, "--dry-run")[2:], "--base-url", "http://a:1/v1"),
        *("--base-url", "http://b:1/v1", "--requests-per-minute", "600", "--workers", "4", "--concurrency", "64"),
        *("--tasks", "8", "--slurm-max-array", "6", "--slurm-time", "2:00:00", "--slurm-cpus", "2", "--slurm-memory"),
        *("8", "--slurm-qos", "high", "--slurm-sbatch", "account=lab", "--slurm-venv", str(venv)),
    ]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    submitted = [line for line in shown.splitlines() if line.startswith("$ sbatch")]
    assert [re.findall(r"--(?:dependency|export)=(\S+)", line) for line in submitted] == [
        ["ALL,RUN_OFFSET=0"],
        ["ALL,RUN_OFFSET=1", "afterany:JOB1"],
        ["ALL,RUN_OFFSET=0", "afterok:JOB1:JOB2"],
        ["ALL,RUN_OFFSET=1", "afterok:JOB1:JOB2,afterany:JOB3"],
        ["ALL,RUN_OFFSET=0", "afterok:JOB3:JOB4"],
        ["ALL,RUN_OFFSET=1", "afterok:JOB3:JOB4,afterany:JOB5"],
        ["afterok:JOB5:JOB6"],
    ]
    script = (out / "work" / "segment" / "log" / "launch_script.slurm").read_text()
    for line in ("cpus-per-task=2", "mem-per-cpu=8G", "partition=cpu", "time=2:00:00", "array=0-5%4", "qos=high"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --account=lab\n" in script
    assert f"source '{venv}/bin/activate'" in script
    assert "--finish" in (out / "work" / "finish.slurm").read_text()
    assert "array" not in (out / "work" / "finish.slurm").read_text()
    assert not (out / "work" / "slurm.json").exists()
    assert not (out / "segments").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--executor", "slurm"], 2, "--executor slurm needs --slurm-partition"),
        (["--executor", "slurm", "--slurm-partition", "cpu", "--slurm-venv", "/nowhere"], 1, "no virtual environment"),
        (["--executor", "slurm", "--slurm-partition", "cpu"], 1, "sbatch cannot be called"),
        (["--executor", "local", "--dry-run"], 2, "--dry-run shows jobs: give --executor slurm"),
        (["--executor", "ray", "--ray-option", "num_cpus=["], 2, "not YAML"),
        (["--finish"], 1, "read has books for 0 of 1 shards"),
        (["--workers", "0"], 2, "--workers 0"),
        (["--tasks", "0"], 2, "--tasks 0"),
    ],
)
def test_what_cannot_run_says_so(more, code, message, traces, tokenizer, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    command = [
        "data",
        "segment",
        "--input",
        str(traces),
        "--tokenizer",
        str(tokenizer),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main([*command, "--workers", "1", "--tasks", "1", *more]) == code
    assert message in capsys.readouterr().err


def test_a_stage_is_not_begun_on_part_of_the_one_before(traces, tokenizer, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--input", str(traces), "--tokenizer", str(tokenizer), "--tasks", "2", "--workers", "1"]
    assert main(["data", "segment", *command, "--output", str(out)]) == 0
    assert len(list(ReadShard(out, "segments", 2).run(None, 0, 2))) == 12
    (out / "segments" / "00000.parquet").unlink()
    with pytest.raises(InputError, match="1 of 2 files are there: the stage before is not whole"):
        list(ReadShard(out, "segments", 2).run(None, 0, 2))
    assert main(["data", "summarise", "--input", str(out), "--tasks", "2", "--base-url", "http://127.0.0.1:9"]) == 2
    assert "--tasks 2: the stage before has 1 files" in capsys.readouterr().err


# Ray


@pytest.fixture
def ray_nodes(monkeypatch):
    """A cluster of three raylets on this machine; the second and third have room for a task each."""
    import ray
    from ray.cluster_utils import Cluster as Raylets

    for name, value in (("INITIAL_DELAY_MS", "0"), ("PERIOD_MS", "500"), ("FAILURE_THRESHOLD", "4")):
        monkeypatch.setenv(f"RAY_health_check_{name.lower()}", value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    raylets = Raylets(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [raylets.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=raylets.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        raylets.shutdown()


@pytest.mark.ray
def test_ray_gives_what_local_tasks_give_when_a_node_is_killed(traces, tmp_path, ray_nodes):
    stage(traces, tmp_path / "local", 4, 1).run()
    out = tmp_path / "out"
    begun = out / "begun"
    killed: list[int] = []

    def kill() -> None:
        """Kill the raylet of the first task that has begun, once two have."""
        while not (begun.exists() and len(begun.read_text().splitlines()) >= 2):
            time.sleep(0.05)
        worker, raylet = (int(text) for text in begun.read_text().splitlines()[0].split()[1:])
        known = {process.process.pid for node in ray_nodes for process in node.all_processes["raylet"]}
        assert raylet in known
        for pid in (raylet, worker):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    run = stage(traces, out, 4, 2, seconds=0.5)
    run.run(make=RayExecutor)
    thread.join()
    assert len(killed) == 2
    ranks = [line.split()[0] for line in begun.read_text().splitlines()]
    assert sorted(set(ranks)) == ["0", "1", "2", "3"]
    assert len(ranks) == 5, "the task of the node that was killed was not run again, or another one was"
    assert segments(out) == segments(tmp_path / "local")
    assert [row["id"] for row in segments(out)] == sorted({row["id"] for row in segments(out)}), "a row is there twice"
    with pytest.raises(InputError, match="says what is wrong"):
        RayExecutor([Fail()], 1, 1, tmp_path / "fail").run()
