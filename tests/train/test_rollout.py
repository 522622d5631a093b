"""From trajectories to rows, and which questions a step asks."""

import asyncio
import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from inftythink.backends.base import Sampling
from inftythink.backends.connect import SHIPPED
from inftythink.cli.export import COMMAND, ExportConfig
from inftythink.config import resolve
from inftythink.errors import BackendError, InputError, UsageError
from inftythink.grade.base import Grade
from inftythink.protocol import Call, Outcome, Policy, Problem, Purpose, Round, Stop, Trajectory, exchanges, make_carry
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.registry import load_task
from inftythink.train.advantage import Advantage
from inftythink.train.reward import make_reward
from inftythink.train.rl_settings import RlConfig
from inftythink.train.rollout import (
    Questions,
    figures,
    grade_here,
    make_group,
    read_rows,
    rows_of,
    sample,
    save_groups,
    save_rows,
    save_trajectories,
)
from inftythink.train.sampler import InTurns, ready

REASON, FORCED = Purpose.REASON, Purpose.FORCED_SUMMARY


def call(prompt, ids, purpose=REASON, scaffold=""):
    return Call(purpose, Stop.STOP, scaffold, prompt_ids=prompt, token_ids=ids, logprobs=tuple(-0.1 * i for i in ids))


def trajectory(*rounds, outcome=Outcome.ANSWERED, correct=True):
    done = tuple(Round(k, "", calls=calls) for k, calls in enumerate(rounds, 1))
    return Trajectory(Problem("t/p", "?"), outcome, done, grade={"correct": correct, "extracted": None, "reason": None})


def test_every_round_is_a_row_and_scaffold_is_masked():
    made = trajectory((call((1, 2), (3, 4)), call((1, 2, 3, 4, 8, 9), (5,), FORCED, "x")), (call((7,), (6,)),))
    one, two = rows_of(made, 0.5)
    assert (one.prompt_ids, one.completion_ids) == ((1, 2), (3, 4, 8, 9, 5))
    assert one.sampled == (True, True, False, False, True)
    assert one.logprobs == pytest.approx((-0.3, -0.4, 0.0, 0.0, -0.5))
    assert (two.k, two.prompt_ids, two.completion_ids, two.advantage) == (2, (7,), (6,), 0.5)
    assert (one.tokens, one.length) == (3, 7)


def test_a_call_that_does_not_go_on_is_a_row_of_its_own():
    rows = list(rows_of(trajectory((call((1, 2), (3,)), call((1, 9), (5,)))), 1.0))
    assert [(row.prompt_ids, row.completion_ids, row.k) for row in rows] == [((1, 2), (3,), 1), ((1, 9), (5,), 1)]


def test_a_sampler_that_tells_no_probabilities_is_refused():
    bare = dataclasses.replace(call((1,), (2,)), logprobs=None)
    with pytest.raises(BackendError, match="no token ids or log-probabilities"):
        list(rows_of(trajectory((bare,)), 1.0))


def test_a_call_for_which_the_window_had_no_room_is_in_no_row():
    made = trajectory((call((1, 2), (3,)),), (Call(REASON, Stop.LENGTH),), outcome=Outcome.TRUNCATED, correct=False)
    assert [(row.k, row.completion_ids) for row in rows_of(made, -1.0)] == [(1, (3,))]


def test_what_failed_is_in_no_row_and_what_is_malformed_is():
    one = (call((1,), (2,)),)
    some = [
        trajectory(one, one),
        trajectory(one, outcome=Outcome.MALFORMED, correct=False),
        trajectory(one, outcome=Outcome.FAILED, correct=None),
    ]
    group = make_group(some, make_reward(("task",), 5), Advantage())
    assert group.rewards == (1.0, 0.0, None)
    assert group.advantages == pytest.approx((0.7071, -0.7071, None), abs=1e-4)
    assert [row.advantage > 0 for row in group.rows()] == [True, True, False]
    told = figures(some)
    assert (told["accuracy"], told["share_malformed"], told["left_out"]) == (0.5, 0.5, 1)


def test_a_step_asks_the_same_whenever_it_is_asked():
    items = [Item(Problem(str(i), f"q{i}"), lambda ask: Grade(True)) for i in range(10)]
    questions = Questions(items, 3, seed=1)
    epoch = [[item.problem.id for item in questions.of(step)] for step in range(6)]
    assert epoch == [[item.problem.id for item in Questions(items, 3, seed=1).of(step)] for step in range(6)]
    assert len({name for step in epoch[:3] for name in step}) == 9
    assert epoch[:3] != epoch[3:]
    asked = questions.of(0)
    others = questions.others(0, 1, 2, asked)
    assert len(others) == 2
    assert {item.problem.id for item in others}.isdisjoint(item.problem.id for item in asked)
    with pytest.raises(UsageError, match="a step asks 11 questions, but there are 10"):
        Questions(items, 11, seed=1)


def solved(samples=2, on_cut="stop", gamma=22, eta=63):
    """Return trajectories of the model that ships, and what reasoned them."""
    from transformers import AutoModelForCausalLM

    model, renderer = AutoModelForCausalLM.from_pretrained(SHIPPED), Renderer.load(SHIPPED)
    items = load_task("automaton").items(TaskSettings(problems=2, lines=(4, 7)))
    reasoner = Reasoner(
        InTurns(model, renderer, max_batch=3, max_cache_tokens=2048),
        policy=Policy(eta, gamma, 6, on_cut=on_cut, on_limit="stop"),
        sampling=Sampling(1.0, 1.0, 0, 7, logprobs=True),
    )

    async def work():
        async with reasoner:
            return await sample(reasoner, items, samples, grade_here)

    with ready(model):
        found = asyncio.run(work())
    assert model.training is False
    return found, reasoner, renderer, items


def test_sampling_repeats_itself_to_the_bit():
    def ids(found):
        calls = [c for some in found for t in some for r in t.rounds for c in r.calls]
        return [(c.prompt_ids, c.token_ids, c.logprobs) for c in calls]

    one, two = solved()[0], solved()[0]
    assert ids(one) == ids(two)
    assert [[t.sample for t in some] for some in one] == [[0, 1], [0, 1]]
    assert all(t.grade["correct"] in (True, False) for some in one for t in some)


@pytest.mark.parametrize("on_cut", ["stop", "summarise"])
def test_rows_are_those_of_the_protocol(on_cut):
    found, reasoner, renderer, _ = solved(1, on_cut, eta=63 if on_cut == "stop" else 20)
    carry, forced = make_carry("summary", reasoner.policy), 0
    for (done,) in found:
        assert done.outcome is not Outcome.FAILED
        for row, exchange in zip(rows_of(done, 1.0), exchanges(done, reasoner.format, carry), strict=True):
            instance = renderer.instance(exchange)
            assert list(row.prompt_ids) == instance.prompt_ids
            length = len(row.completion_ids)  # where a stop string ended it, no end of sequence was drawn
            assert list(row.completion_ids) == instance.completion_ids[:length]
            assert list(row.sampled) == instance.sampled[:length]
            forced += not all(row.sampled)
    assert (forced > 0) is (on_cut == "summarise")


def test_what_was_sampled_is_written_down(tmp_path):
    found, _, _, items = solved()
    groups = [make_group(some, make_reward(("task",), 6), Advantage()) for some in found]
    save_trajectories(tmp_path, items, (t for some in found for t in some))
    save_groups(tmp_path, groups)
    lines = (tmp_path / "trajectories.jsonl").read_text("utf-8").splitlines()
    assert [Trajectory.from_json(json.loads(line)) for line in lines] == [t for some in found for t in some]
    assert len((tmp_path / "rewards.jsonl").read_text().splitlines()) == 4
    rows = [row for group in groups for row in group.rows()]
    save_rows(tmp_path / "rows.jsonl", rows)
    save_rows(tmp_path / "rows.parquet", rows)
    table = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    for line, other, row in zip((tmp_path / "rows.jsonl").read_text().splitlines(), table, rows, strict=True):
        assert json.loads(line)["completion_ids"] == other["completion_ids"] == list(row.completion_ids)
        assert len(other["logprobs"]) == len(other["sampled"]) == len(row.completion_ids)
        assert json.loads(line)["advantage"] == other["advantage"] == row.advantage


def test_rows_are_made_of_what_was_written_down_too(tmp_path):
    found, _, _, items = solved()
    groups = [make_group(some, make_reward(("task",), 6), Advantage()) for some in found]
    step = tmp_path / "rollouts" / "000001"
    save_trajectories(step, items, (t for some in found for t in some))
    with pytest.raises(InputError, match=r"there is no rewards\.jsonl"):
        list(read_rows(step))
    save_groups(step, groups)
    rows = [row for group in groups for row in group.rows()]
    assert list(read_rows(step)) == rows
    COMMAND.run(ExportConfig(run=tmp_path, rows="parquet"))
    assert len(pq.read_table(step / "rows.parquet")) == len(rows)
    COMMAND.run(ExportConfig(run=step, rows="jsonl", output=tmp_path / "out"))
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) == len(rows)


def test_rounds_of_one_trajectory_grow_from_its_summaries():
    found, _, renderer, _ = solved(1)
    for (done,) in found:
        for this, after in pairwise(done.rounds):
            assert this.summary in renderer.decode(after.calls[0].prompt_ids)


def test_recipes_are_whole():
    folder = Path(__file__).parent.parent.parent / "recipes" / "rl"
    found = {path.stem: resolve(RlConfig, path) for path in sorted(folder.glob("*.yaml"))}
    assert {"deepseek-r1-distill-qwen-1.5b", "qwen3-4b-base", "lab"} <= set(found)
    for name in ("deepseek-r1-distill-qwen-1.5b", "qwen3-4b-base"):
        run = found[name]
        assert (run.rounds.eta, run.rounds.gamma, run.rounds.phi) == (6144, 1024, 5)
        assert (run.group.questions, run.group.samples, run.group.updates, run.group.temperature) == (128, 8, 2, 1.0)
        assert (run.loss.clip_low, run.loss.clip_high, run.loss.kl, run.optimizer.rate) == (0.2, 0.26, 0.0, 1e-6)
        assert (run.mismatch.correction, run.mismatch.low, run.mismatch.high) == ("icepop", 0.5, 5.0)
