"""Laws that hold for any schedule on any engines, asked of the simulation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.evals.steps import Steps

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import scaling  # noqa: E402
import simulate_cluster as sim  # noqa: E402

ROUNDS = st.builds(sim.Round, st.integers(1, 60), st.just(0), st.integers(1, 40))
WORK = st.lists(st.lists(ROUNDS, min_size=1, max_size=5), min_size=1, max_size=25)
SECONDS = st.floats(0.0, 0.1)
STEPS = st.builds(Steps, st.floats(1e-3, 0.1), SECONDS, SECONDS, SECONDS)
ONLY_STEPS = Steps(1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("way", sim.WAYS)
@given(work=WORK, steps=STEPS, engines=st.integers(1, 4), room=st.integers(1, 6), slots=st.integers(1, 9))
def test_every_round_is_made_once_and_nothing_is_faster_than_its_steps(way, work, steps, engines, room, slots):
    cluster = sim.Cluster([sim.Engine(steps, room) for _ in range(engines)])
    sim.WAYS[way](cluster, work, slots)
    made = sorted((request.trajectory, request.number) for request in cluster.done)
    assert made == [(number, k) for number, rounds in enumerate(work) for k in range(len(rounds))]
    for request in cluster.done:
        tokens = work[request.trajectory][request.number].generated
        assert request.ended >= request.began + steps.fixed * tokens * (1 - 1e-9)
        assert request.began >= request.sent
    for engine in cluster.engines:
        assert engine.busy <= cluster.now * (1 + 1e-9)
        assert engine.filled <= engine.busy * room * (1 + 1e-9)
        assert engine.load == 0


@given(work=WORK, engines=st.integers(1, 4), room=st.integers(1, 6), slots=st.integers(1, 9))
def test_rounds_follow_each_other_and_no_more_trajectories_are_under_way_than_slots(work, engines, room, slots):
    cluster = sim.Cluster([sim.Engine(Steps(0.5, 0.1, 0.0, 0.0), room) for _ in range(engines)])
    sim.reasoner(cluster, work, slots)
    by_name = {(request.trajectory, request.number): request for request in cluster.done}
    for (trajectory, number), request in by_name.items():
        if number:
            assert request.sent == by_name[trajectory, number - 1].ended
    assert max(number for _, number in cluster.curve) <= slots


@given(work=WORK, steps=STEPS, room=st.integers(1, 6), slots=st.integers(1, 9))
def test_without_a_barrier_one_engine_is_never_slower(work, steps, room, slots):
    """Taking the next trajectory from a list is monotone: shorter jobs never begin later. One engine makes all its
    sequences step together, so fewer steps with the same tokens are less time."""
    slots = min(slots, room)
    free, held = (sim.simulate(way, work, steps, 1, room, slots) for way in ("reasoner", "barrier"))
    assert free.seconds <= held.seconds * (1 + 1e-9)


@given(work=WORK, steps=STEPS, engines=st.integers(1, 3), room=st.integers(1, 6), slots=st.integers(1, 9))
def test_littles_law(work, steps, engines, room, slots):
    """Requests here, averaged over time, are their rate times their mean time here: counted in two different ways."""
    cluster = sim.Cluster([sim.Engine(steps, room) for _ in range(engines)])
    sim.reasoner(cluster, work, slots)
    area, before = 0.0, (0.0, 0)
    for now, here in cluster.curve:
        area += (now - before[0]) * before[1]
        before = (now, here)
    mean = sum(request.ended - request.sent for request in cluster.done) / len(cluster.done)
    rate = len(cluster.done) / cluster.now
    assert area / cluster.now == pytest.approx(rate * mean, rel=1e-6)


def test_one_at_a_time_is_the_sum_of_all_steps_and_all_at_once_fills_the_engine():
    work = [[sim.Round(10, 0, 5), sim.Round(20, 0, 7)], [sim.Round(10, 0, 3)]]
    steps = Steps(1.0, 0.5, 0.01, 0.1)
    alone = sim.simulate("one at a time", work, steps, 1, 4, 4)
    keys = sum(sum(range(this.prompt, this.prompt + this.generated)) for rounds in work for this in rounds)
    assert alone.seconds == pytest.approx(15 * 1.5 + 0.01 * keys + 0.1 * 40)
    assert alone.wait == (0, 0)
    assert sim.simulate("all at once", work, ONLY_STEPS, 1, 4, 4).seconds == 7
    assert sim.simulate("reasoner", work, ONLY_STEPS, 1, 4, 4).seconds == 12
    assert sim.simulate("barrier", work, ONLY_STEPS, 1, 4, 2).seconds == 12


def test_a_request_that_comes_in_the_middle_of_a_step_joins_at_its_end():
    cluster = sim.Cluster([sim.Engine(ONLY_STEPS, 4)], turnaround=0.25)
    sim.reasoner(cluster, [[sim.Round(1, 0, 2), sim.Round(1, 0, 2)], [sim.Round(1, 0, 9)]], 2)
    second = next(request for request in cluster.done if request.number == 1)
    assert (second.sent, second.began, second.ended) == (2.25, 3, 5)


def test_only_the_engine_that_made_the_round_before_has_the_prompts_beginning():
    work = [[sim.Round(100, 0, 5), sim.Round(100, 60, 5)]]
    steps = Steps(0.0, 0.0, 0.0, 1.0)
    assert sim.simulate("reasoner", work, steps, 3, 1, 1, "sticky").seconds == 140
    with_another = sim.Cluster([sim.Engine(steps, 1) for _ in range(2)], "least")
    with_another.send(0, 0, sim.Round(100, 60, 5))
    with_another.run(lambda request: None)
    assert with_another.now == 100


def test_a_busy_cluster_keeps_its_slots_full():
    """Of trajectories too: slots are their rate times their time, but for the beginning and the end."""
    work = [sim.cut(each, 512, 64, 20) for each in range(200, 2200, 4)]
    found = sim.simulate("reasoner", work, Steps(0.02, 0.001, 1e-7, 1e-5), 4, 8, 32)
    whole = [sum(this.generated for this in rounds) for rounds in work]
    assert found.requests == sum(len(rounds) for rounds in work)
    assert found.tokens == sum(whole)
    assert found.busy > 0.9
    assert found.seconds >= sim.simulate("all at once", work, Steps(0.02, 0.001, 1e-7, 1e-5), 4, 8, 32).seconds


@given(st.integers(1, 40_000), st.sampled_from([512, 1024, 4096]), st.integers(1, 600))
def test_a_trace_is_cut_without_loss(tokens, eta, gamma):
    rounds = sim.cut(tokens, eta, gamma, 100)
    assert len(rounds) == -(-tokens // eta)
    assert sum(this.generated for this in rounds) == tokens + (len(rounds) - 1) * gamma
    assert all(this.shared <= this.prompt for this in rounds)


def test_the_page_has_what_one_engine_does():
    page = (ROOT / "docs/scaling.md").read_text("utf-8")
    results = sim.plan(sim.parser().parse_args(["--engines", "1"]))
    for line in scaling.table([], [sim.cells(each) for each in results]).splitlines()[2:]:
        assert line in page, "run: python benchmarks/simulate_cluster.py --write"


def test_what_was_measured_is_simulated(tmp_path):
    """A measurement made of the simulation's own numbers comes out again."""
    work = [[[20, 0, 9], [30, 0, 5]], [[20, 0, 4]], [[20, 0, 12]]]
    curve = {"fixed": 0.5, "sequence": 0.1, "key": 0.001, "prompt": 0.01}
    rounds = [[sim.Round(*call) for call in calls] for calls in work]

    def measured(way, slots, some=rounds):
        found = {"seconds": Steps(**curve), "steps": ONLY_STEPS}
        return [{unit: sim.simulate(way, some, steps, 1, 2, slots).seconds for unit, steps in found.items()}]

    told = {"slots": 2, "sequences": 2, "alone": 2, "calls": work, "steps": curve}
    told["measured"] = {
        "reasoner": measured("reasoner", 2),
        "barrier": measured("barrier", 2),
        "barrier over all": measured("barrier", 3),
        "engine": measured("all at once", 2),
        "one at a time": measured("one at a time", 1, rounds[::2]),
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    rows = sim.compare(tmp_path / "told.json")
    assert [row["tokens"] for row in rows] == [30, 30, 30, 30, 26]
    assert all(row["steps"] == row["simulated steps"] for row in rows)
    assert all(row["seconds"] == pytest.approx(row["simulated seconds"]) for row in rows)


def test_lengths_of_a_run_folder_are_read(tmp_path):
    call = {"purpose": "reason", "stop": "stop", "prompt_tokens": 7, "completion_tokens": 5, "cached_tokens": 3}
    rows = [{"rounds": [{"calls": [call]}, {"calls": [call, call]}]}, {"rounds": []}]
    (tmp_path / "trajectories.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert sim.read_trajectories(tmp_path / "trajectories.jsonl") == [[sim.Round(7, 3, 5)] * 3]
