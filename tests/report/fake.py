"""Runs that nobody made: seeded trajectories of the protocol's types, written as an evaluation writes them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from inftythink.config import dump
from inftythink.grade.base import Grade
from inftythink.protocol import Call, Outcome, Problem, Purpose, Round, Stop, Trajectory
from inftythink.store import write_json_lines
from inftythink.tasks.base import Item
from inftythink.train.advantage import Advantage
from inftythink.train.reward import make_reward
from inftythink.train.rl_settings import Examination, Group, Questions, RlConfig, Rounds
from inftythink.train.rollout import figures, make_group, save_groups, save_trajectories
from inftythink.train.settings import ModelSource

PROSE = "let the sum of terms be bounded so we check each case by parity and count remaining pairs again"
WORDS = PROSE.split()
NAMES = ("the base case", "an even divisor", "the third term", "a shorter path", "the upper bound", "one last pair")


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words)).capitalize() + "."


def question(draw: random.Random, number: int) -> str:
    a, b = draw.randint(3, 99), draw.randint(3, 99)
    return f"Problem {number}. How many pairs (x, y) of whole numbers with {a}x + {b}y < {a * b} are there?"


def trajectory(
    draw: random.Random, problem: Problem, sample: int, *, eta: int, chain: bool, skill: float, words: int = 60
) -> Trajectory:
    """One trajectory: ``words`` a thought; its rounds, tokens and luck are drawn."""
    depth = min(10, 1 + int(draw.expovariate(eta / 9000)))
    fate = draw.random()
    outcome = Outcome.ANSWERED
    if fate < 0.02:
        outcome = Outcome.FAILED
    elif chain and depth > 6:
        outcome = Outcome.TRUNCATED
    elif depth == 10:
        outcome = Outcome.ROUND_LIMIT
    elif fate > 0.985:
        outcome = Outcome.MALFORMED
    rounds, facts = [], []
    for k in range(1, (1 if chain else depth) + 1):
        last = chain or k == depth
        thought = "\n\n".join(sentence(draw, words // 3) for _ in range(3))
        if len(facts) > 4:
            facts.pop(draw.randrange(len(facts)))
        facts.append(f"- {draw.choice(NAMES).capitalize()} gives {draw.randint(2, 400)} after step {k}.")
        summary = None if last else "What is known so far:\n" + "\n".join(facts) + "\nNext: compare both sides."
        carried = 0 if k == 1 else 40 + 14 * min(len(facts), 5)
        tokens = draw.randint(eta // 2, eta) * (depth if chain else 1)
        cut = not last and draw.random() < 0.2
        calls = [_call(Purpose.REASON, 90 + carried, tokens, Stop.LENGTH if cut else Stop.STOP)]
        if cut:
            calls.append(_call(Purpose.FORCED_SUMMARY, 90 + carried + tokens, 60, Stop.STOP))
        rounds.append(Round(k, thought, summary, tuple(calls)))
    right = outcome is Outcome.ANSWERED and draw.random() < skill
    answered = outcome is Outcome.ANSWERED
    given = problem.answer if right else "17"
    grade: dict[str, Any] | None = {"correct": right, "extracted": given if answered else None, "reason": None}
    if answered and draw.random() < 0.005:
        grade = {"correct": None, "extracted": None, "reason": "timed out after 10 s"}
    elif answered and not right:
        grade["reason"] = f"17 is not {problem.answer}"
    elif outcome is Outcome.FAILED:
        grade = {"correct": None, "extracted": None, "reason": "failed: connection reset"}
    elif not answered:
        grade["reason"] = outcome.value
    conclusion = f"Both bounds agree, so the number of pairs is \\boxed{{{given}}}." if answered else None
    reason = None if answered else f"{outcome.value.replace('_', ' ')}: nothing more was allowed"
    return Trajectory(problem, outcome, tuple(rounds), conclusion, sample, reason, grade)


def _call(purpose: Purpose, prompt: int, tokens: int, stop: Stop) -> Call:
    cached = prompt // 2 if purpose is Purpose.FORCED_SUMMARY else None
    return Call(purpose, stop, "", prompt, tokens, cached, 0.0, tokens / 90 + (prompt + tokens) ** 2 / 4e7)


def trajectories(
    tasks: dict[str, int], samples: int, *, seed: int, eta: int, chain: bool, skill: float, words: int
) -> Iterator[Trajectory]:
    """Trajectories of all problems of all tasks; a problem is the same for every seed."""
    draw = random.Random(seed)
    for task, count in tasks.items():
        for number in range(count):
            asked = random.Random(f"{task}{number}")
            problem = Problem(f"{task}/{number}", question(asked, number), str(asked.randint(100, 999)))
            for sample in range(samples):
                each = skill - (0.35 if task == "aime24" else 0)
                yield trajectory(draw, problem, sample, eta=eta, chain=chain, skill=each, words=words)


def write_run(folder: Path, found: Iterator[Trajectory] | list[Trajectory], **settings: Any) -> Path:
    """Write a run folder."""
    folder.mkdir(parents=True)
    problems: dict[str, dict[str, Any]] = {}

    def lines() -> Iterator[dict[str, Any]]:
        for each in found:
            task = each.problem.id.partition("/")[0]
            told = {"id": each.problem.id, "task": task, "group": f"level {len(each.problem.question) % 3}"}
            problems[each.problem.id] = told
            yield each.to_json()

    write_json_lines(folder / "trajectories.jsonl", lines())
    write_json_lines(folder / "problems.jsonl", problems.values())
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"digest": "none"}))
    return folder


def make(
    folder: Path,
    *,
    tasks: dict[str, int],
    samples: int = 2,
    seed: int = 0,
    eta: int = 4096,
    chain: bool = False,
    skill: float = 0.8,
    words: int = 60,
) -> Path:
    """Write a run of made-up trajectories."""
    found = trajectories(tasks, samples, seed=seed, eta=eta, chain=chain, skill=skill, words=words)
    carry = "none" if chain else "summary"
    return write_run(
        folder, found, model="made-up-7b", carry=carry, eta=eta, gamma=1024, max_rounds=10, task=list(tasks), seed=seed
    )


HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 1">',
    "<!--<script>",
    "]]><svg onload=window.hacked=1>",
    "${window.hacked = 1}`; window.hacked = 1; //",
    "{{script}} {{data}} {{policy}}",
    "'); window.hacked = 1; ('",
    '"); window.hacked = 1; ("',
    "\\u003c/script\\u003e \\",
    "line\u2028separator\u2029and \u202eright to left\u202c\u2066 isolates",
    "lone \ud800 surrogate \udfff",
    "\x00\x07\x1b[31m controls",
    "zero\u200bwidth \U000e0041\U000e0042 tags",
    "javascript:window.hacked=1",
    "[click](javascript:window.hacked=1)",
    "__proto__",
    "=cmd|' /C calc'!A0",
    "$\\boxed{</textarea><style>*{display:none}</style>}$",
)
"""Texts that would run, break out, or pretend, where a page is careless."""


def hostile() -> list[Trajectory]:
    """Trajectories with hostile text in every place that a model, a data set or a server can write to."""
    found = []
    for number, text in enumerate(HOSTILE):
        turns = (("system", text), ("user", text))
        problem = Problem(f"{'x' if number else text}/{number}{text}", text, text, turns)
        call = Call(Purpose.REASON, Stop.STOP, text, 10, 20, None, 0.0, 0.5)
        rounds = (
            Round(1, text, text, (call,), text),
            Round(2, text * 2, text + " more", (call,)),
            Round(3, text, None, (call,)),
        )
        grade = {"correct": number % 2 == 0, "extracted": text, "reason": text}
        found.append(Trajectory(problem, Outcome.ANSWERED, rounds, text, 0, text, grade))
    return found


def make_training(folder: Path, *, steps: int = 6, seed: int = 0, ended: bool = True, examined: bool = True) -> Path:
    """Write a folder of ``inftythink rl`` by the trainer's own writers: what it sampled, its examinations, its history.

    Its examinations ask 12 questions; it is right more often and shorter in each. Step 3's entropy is no number.
    """
    draw, history = random.Random(seed), list[dict[str, float]]()
    asked = [problem(f"automaton/{number}") for number in range(12)]
    for step in range(steps + 1):
        skill, eta = 0.2 + 0.7 * step / steps, 9000 - 6000 * step // steps
        if step:
            group = [_sampled(draw, problem(f"automaton/{100 * step + n}"), 4, skill, eta) for n in range(2)]
            groups = [make_group(some, make_reward(("task",), 10), Advantage()) for some in group]
            place = folder / "rollouts" / f"{step:06d}"
            every = [each for some in group for each in some]
            save_trajectories(place, [_item(some[0].problem) for some in group], every)
            save_groups(place, groups)
            known = [reward for each in groups for reward in each.rewards if reward is not None]
            entropy = math.nan if step == 3 else 1 / step
            told = {"reward": sum(known) / max(1, len(known)), "entropy": entropy, "masked": 0.01 * step, "loss": -0.1}
            history.append({"step": step} | told | figures(every))
        if examined and step % 3 == 0:
            every = [each for one in asked for each in _sampled(draw, one, 1, skill, eta)]
            save_trajectories(folder / "examinations" / f"{step:06d}", map(_item, asked), every)
            history.append({"step": step} | {f"eval_{name}": value for name, value in figures(every).items()})
    model = ModelSource(path="/somewhere/made-up-1b")
    train, examine = Questions(task="automaton"), Examination(task="automaton", every=3)
    config = RlConfig(
        output=folder,
        model=model,
        rounds=Rounds(eta=9000, gamma=1000),
        train=train,
        examine=examine,
        group=Group(questions=2, samples=4),
        steps=steps,
    )
    dump(config, folder / "config.yaml")
    if ended:
        write_json_lines(folder / "history.jsonl", history)
    return folder


def problem(name: str) -> Problem:
    draw = random.Random(name)
    return Problem(name, question(draw, draw.randrange(1000)), str(draw.randint(100, 999)))


def _sampled(draw: random.Random, asked: Problem, samples: int, skill: float, eta: int) -> list[Trajectory]:
    return [trajectory(draw, asked, n, eta=eta, chain=False, skill=skill, words=30) for n in range(samples)]


def _item(asked: Problem) -> Item:
    return Item(asked, lambda ask: Grade(None))
