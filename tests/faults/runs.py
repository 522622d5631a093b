"""Commands that are broken off and started again, and what has to be the same in the end. For tests only.

What is compared is compared byte for byte. Left out, by name, is only what a clock says (``TIMED``), where things lie
and how patiently they were asked for (``PLACES``), and, where several calls are in flight at once, the order of lines:
they are sorted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

TIMED = {"seconds", "queue_seconds", "latency", "tokens_per_second"}
PLACES = {"output", "base_url", "retries", "timeout", "concurrency"}
PATIENCE = 1800.0
"""Seconds after which a run counts as hung: tests run beside other work."""

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Work:
    """A command that writes a folder; ``collect`` returns what of the folder has to be the same, by name."""

    command: Callable[[Path], list[str]]
    collect: Callable[[Path], dict[str, bytes]]


@dataclass
class Running:
    """A command at work."""

    process: subprocess.Popen[bytes]
    told: Any

    def wait(self) -> tuple[int, str]:
        """Return its exit code and what it said."""
        code = self.process.wait(PATIENCE)
        self.told.seek(0)
        said = self.told.read().decode("utf-8", "replace")
        self.told.close()
        return code, said

    def cpu(self) -> float:
        """Seconds of the processor that the process (not its children) has used."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def children(self) -> list[psutil.Process]:
        """Processes that it has started."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []


def start(work: Work, out: Path, *, begin: Callable[[], None] | None = None, **more: Any) -> Running:
    """Start the command in a group of its own; ``begin`` is called in the new process first."""
    told = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the run was waited for
    command = [sys.executable, "-m", "inftythink", *work.command(out)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=told, stderr=told,
        start_new_session=True, preexec_fn=begin, **more,
    )  # fmt: skip
    return Running(process, told)


def finish(work: Work, out: Path, **more: Any) -> str:
    """Run the command to its end, which is to be a good one; return what it said."""
    code, said = start(work, out, **more).wait()
    assert code == 0, said[-4000:]
    return said


@dataclass(frozen=True)
class Whole:
    """An unbroken run: its folder's bytes, the processor's seconds it took, and what it made."""

    size: int
    cpu: float
    made: dict[str, bytes]


def measure(work: Work, out: Path) -> Whole:
    """Run the command without a break."""
    running, cpu = start(work, out), 0.0
    while running.process.poll() is None:
        cpu = max(cpu, running.cpu())
        time.sleep(0.02)
    code, said = running.wait()
    assert code == 0, said[-4000:]
    return Whole(size(out), cpu, work.collect(out))


def size(folder: Path) -> int:
    """The bytes of all files of a folder, as far as they can be seen."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # gone meanwhile
            continue
    return total


Strike = Callable[[random.Random, Running], bool]
"""Does harm to a run; returns whether it could."""


def kill_driver(rng: random.Random, running: Running) -> bool:
    """Kill the process that runs the command; all that it started has to end with it."""
    children = running.children()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left, f"processes outlived the run that started them: {left}"
    return running.process.returncode == -signal.SIGKILL


def kill_worker(rng: random.Random, running: Running) -> bool:
    """Kill one of the processes that the command has started."""
    while running.process.poll() is None:
        workers = [child for child in running.children() if "resource_tracker" not in _line(child)]
        if workers:
            try:
                rng.choice(workers).kill()
            except psutil.Error:
                continue
            return True
        time.sleep(0.002)
    return False


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def at_a_moment(rng: random.Random, running: Running, out: Path, whole: Whole, strike: Strike) -> bool:
    """Strike when the run has come so far: in work of the processor, or in bytes written; returns whether it did."""
    share, by_bytes, before = rng.random(), rng.random() < 0.6, size(out)
    while running.process.poll() is None:
        reached = (
            size(out) - before >= share * (whole.size - before) if by_bytes else running.cpu() >= share * whole.cpu
        )
        if reached and (by_bytes or share < 1):
            time.sleep(rng.uniform(0, 0.02))
            return running.process.poll() is None and strike(rng, running)
        time.sleep(0.002)
    return False


def broken(work: Work, folder: Path, whole: Whole, strike: Strike, times: int, seed: int, most: int = 3) -> int:
    """Run the command with ``times`` strikes in all, up to ``most`` on one folder; compare whenever it is whole.

    Returns the number of starts. A strike that came too late is not counted, and tried again on a new folder.
    """
    rng, struck, starts, number = random.Random(seed), 0, 0, 0
    while struck < times:
        out, here = folder / f"broken{number}", 0
        number += 1
        assert number <= 4 * times + 4, f"only {struck} of {times} strikes came in time"
        ended = False
        while here < most and struck < times and not ended:
            starts += 1
            running = start(work, out)
            hit = at_a_moment(rng, running, out, whole, strike)
            here, struck = here + hit, struck + hit
            code, said = running.wait()
            assert "Traceback" not in said, said[-4000:]
            assert code in ((-signal.SIGKILL, 0, 1) if hit else (0,)), said[-4000:]
            ended = code == 0
        if not ended:
            starts += 1
            finish(work, out)
        same(work.collect(out), whole.made)
    print(f"seed {seed}: {struck} strikes in {starts} starts of {number} runs, all as the unbroken one")
    return starts


def same(made: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """Assert that two runs made the same, file by file."""
    assert sorted(made) == sorted(wanted)
    for name, data in wanted.items():
        assert made[name] == data, f"{name} differs"


# -- what is compared --


def plain(value: Any) -> Any:
    """A JSON value without what a clock says."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in TIMED}
    return [plain(each) for each in value] if isinstance(value, list) else value


def sorted_lines(path: Path) -> bytes:
    """The lines of a file, in one order, without times."""
    found = (json.dumps(plain(json.loads(line))) for line in path.read_text("utf-8", "surrogatepass").splitlines())
    return "\n".join(sorted(found)).encode()


def figures(path: Path) -> bytes:
    """A file of figures without times."""
    return json.dumps(plain(json.loads(path.read_text("utf-8")))).encode()


def settings(path: Path) -> bytes:
    """A configuration, but for where things lie."""
    found = yaml.safe_load(path.read_text("utf-8"))
    return json.dumps({name: value for name, value in found.items() if name not in PLACES}).encode()


def eval_made(out: Path) -> dict[str, bytes]:
    """What an evaluation made."""
    made = {name: sorted_lines(out / f"{name}.jsonl") for name in ("journal", "trajectories", "grades")}
    made |= {"problems": (out / "problems.jsonl").read_bytes(), "metrics": figures(out / "metrics.json")}
    return made | {"config": settings(out / "config.yaml")}


def data_made(out: Path) -> dict[str, bytes]:
    """What a build made."""
    found = [*out.rglob("*.parquet"), out / "rejects.jsonl", out / "manifest.json", out / "instances" / "README.md"]
    made = {str(path.relative_to(out)): path.read_bytes() for path in found}
    calls = (out / "work" / "summarise" / "calls").glob("*.jsonl")
    return made | {f"calls/{path.name}": sorted_lines(path) for path in calls}


def rl_made(out: Path) -> dict[str, bytes]:
    """What a learning run made."""
    names = ("history.jsonl", "metrics.json", "model/model.safetensors", "model/config.json")
    made = {name: (out / name).read_bytes() for name in names}
    for path in (out / "rollouts").glob("*/*.jsonl"):
        made[str(path.relative_to(out))] = sorted_lines(path)
    return made


# -- the commands --


def replies(user: str, begun: str, seed: object) -> str:
    """Think too long for a round until there are notes; then answer. What is said depends on the question alone."""
    number = sum(map(ord, user.split("?")[0])) % 7
    if "discarded" in user:  # a summary is asked for
        return f"x is {number}."
    return f"The answer is {number}." if "x is " in user else f"thinking about {number} it " * 40


def evaluation(problems: Path, url: str, *more: str) -> Work:
    """An evaluation of chat calls in rounds: three calls a trajectory, of 24 trajectories."""
    if not problems.exists():
        rows = ({"id": f"p{n}", "problem": f"What is {n} + 0?", "answer": str(n), "grader": "exact"} for n in range(12))
        problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--task", "jsonl", "--data", str(problems), "--samples", "2", "--base-url", url, "--concurrency", "4"]
    flags += ["--eta", "64", "--gamma", "32", "--max-rounds", "4", "--seed", "1", "--grade-workers", "1", *more]
    return Work(lambda out: ["eval", *flags, "--output", str(out)], eval_made)


def alone() -> Work:
    """An evaluation of the model that ships, one sequence at a time: in larger batches sums differ with the company."""
    flags = ["--problems", "3", "--lines", "10", "30", "--samples", "2", "--max-batch", "1"]
    return Work(lambda out: ["eval", *flags, "--output", str(out)], eval_made)


def conversion(traces: Path, tokenizer: Path, url: str, *more: str) -> Work:
    """A build of 12 traces in three shards, two workers, several segments a trace; one trace is no trace."""
    if not traces.exists():
        rows = [_trace(number, 1 + 2 * number) for number in range(12)]
        traces.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    flags = ["--input", str(traces), "--tokenizer", str(tokenizer), "--eta", "200", "--gamma", "64", "--base-url", url]
    flags += ["--validation", "0.3", "--workers", "2", "--tasks", "3", "--concurrency", "3", *more]
    return Work(lambda out: ["data", "build", *flags, "--output", str(out)], data_made)


def _trace(number: int, thoughts: int) -> dict[str, Any]:
    reasoning = "\n\n".join(f"Thought {n} of {number}: we compute {n} times {number}." for n in range(thoughts))
    said = f"<think>\n{reasoning}\n</think>\n\nThe answer is \\boxed{{{number}}}."
    turns = [{"role": "user", "content": f"What is {number} + 0?"}, {"role": "assistant", "content": said}]
    return {"uuid": f"t{number}", "answer": str(number), "messages": turns}


def learning(model: Path, settings: Path, **more: Any) -> Work:
    """Two steps of reinforcement learning, each of which moves the weights; a checkpoint behind each."""
    from inftythink.config import dump
    from inftythink.tasks.base import TaskSettings
    from inftythink.train.rl_settings import Group, Questions, RlConfig, Rounds
    from inftythink.train.settings import ModelSource, Optimizer

    config = RlConfig(
        output=settings,
        model=ModelSource(path=str(model)),
        rounds=Rounds(phi=3),
        train=Questions(task="automaton", settings=TaskSettings(problems=4, lines=(4, 6))),
        group=Group(questions=1, samples=4),
        reward=("tests.faults.reward:odd",),
        optimizer=Optimizer(rate=1e-4, schedule="linear", warmup=0.0),
        steps=2,
        micro_tokens=512,
        checkpointing=False,
        save_every=1,
        grade_workers=1,
        device="cpu",
    )
    dump(dataclasses.replace(config, **more), settings)
    return Work(lambda out: ["rl", "--config", str(settings), "--output", str(out)], rl_made)
