"""Every cell of the transition table, driven through the machine as a model would."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.errors import ProtocolError
from inftythink.protocol import (
    Completion,
    Done,
    Generate,
    Machine,
    Outcome,
    PartKind,
    Policy,
    Problem,
    Purpose,
    Stop,
    Trajectory,
    make_carry,
    make_format,
)
from inftythink.protocol.machine import TABLE, Read, State, describe_table
from tests.protocol.test_stream import TEXTS

PROBLEM = Problem("p", "Q", "42")
POLICY = Policy(eta=40, gamma=10, phi=3)
STOPS = Policy(eta=40, gamma=10, phi=3, on_cut="stop", on_limit="stop")


def machine(carry: str = "summary", policy: Policy = POLICY) -> Machine:
    return Machine(PROBLEM, make_format(carry), make_carry(carry, policy), policy)


def said(text: str, stop: Stop = Stop.STOP, tokens: int = 5, ids: int | None = None, **more) -> Completion:
    token_ids = None if ids is None else tuple(range(ids))
    return Completion(text, stop, completion_tokens=tokens, prompt_tokens=7, token_ids=token_ids, **more)


SUMMARY = said("r\n</think>\n\n<summary>\ns\n</summary>", stop_text="</summary>")
ANSWER = said("r\n</think>\n\n42")
CUT = said("r", Stop.LENGTH)


def drive(machine: Machine, *completions: Completion) -> Trajectory:
    """Feed the completions; the machine must ask for exactly that many."""
    for completion in completions:
        assert isinstance(machine.next(), Generate), "the machine was done too early"
        machine.receive(completion)
    step = machine.next()
    assert isinstance(step, Done), f"the machine still wants {step}"
    return step.trajectory


def step(machine: Machine, *completions: Completion) -> Generate:
    for completion in completions:
        machine.receive(completion)
    step = machine.next()
    assert isinstance(step, Generate)
    return step


def prefill(generate: Generate) -> str:
    return "".join(part.text for part in generate.prompt.prefill)


def test_answered_in_one_round():
    trajectory = drive(machine(), ANSWER)
    assert (trajectory.outcome, trajectory.conclusion, trajectory.reason) == (Outcome.ANSWERED, "42", None)
    assert [(r.k, r.thought, r.summary, r.raw) for r in trajectory.rounds] == [(1, "r", None, None)]


def test_the_first_step_asks_for_a_round_and_asking_twice_changes_nothing():
    m = machine()
    asked = m.next()
    assert asked == m.next()
    assert isinstance(asked, Generate)
    assert (asked.max_tokens, asked.stop, asked.purpose, asked.k, asked.call) == (
        50,
        ("</summary>",),
        Purpose.REASON,
        1,
        0,
    )
    assert prefill(asked) == "<think>\n"


def test_a_summary_opens_the_next_round_with_it_as_history():
    asked = step(machine(), SUMMARY)
    assert (asked.k, asked.call, asked.purpose) == (2, 1, Purpose.REASON)
    assert prefill(asked) == "<history>\ns\n</history>\n<think>\n"


def test_rounds_are_recorded_with_their_summaries_and_calls():
    trajectory = drive(machine(), SUMMARY, SUMMARY, ANSWER)
    assert [(r.k, r.summary, len(r.calls)) for r in trajectory.rounds] == [(1, "s", 1), (2, "s", 1), (3, None, 1)]
    assert trajectory.totals | {"seconds": 0} == {
        "rounds": 3,
        "prompt_tokens": 21,
        "completion_tokens": 15,
        "peak_context": 12,
        "seconds": 0,
    }


def test_a_summary_at_phi_is_the_round_limit():
    trajectory = drive(machine(policy=STOPS), SUMMARY, SUMMARY, SUMMARY)
    assert (trajectory.outcome, trajectory.conclusion) == (Outcome.ROUND_LIMIT, None)
    assert "3 rounds" in trajectory.reason
    assert len(trajectory.rounds) == 3


def test_a_summary_at_phi_may_force_an_answer_behind_an_empty_thought():
    m = machine()
    asked = step(m, SUMMARY, SUMMARY, SUMMARY)
    assert (asked.purpose, asked.max_tokens, asked.stop, asked.k) == (Purpose.FORCED_ANSWER, 10, (), 4)
    assert prefill(asked) == "<history>\ns\n</history>\n<think>\n\n</think>\n\n"
    trajectory = drive(m, said("42"))
    assert (trajectory.outcome, trajectory.conclusion) == (Outcome.ANSWERED, "42")
    assert trajectory.rounds[-1].forced is Purpose.FORCED_ANSWER
    assert trajectory.rounds[-1].calls[0].scaffold == "\n</think>\n\n"


def test_a_forced_answer_that_is_a_summary_ends_at_the_limit_that_forced_it():
    trajectory = drive(machine(), SUMMARY, SUMMARY, SUMMARY, said("<summary>s</summary>"))
    assert trajectory.outcome is Outcome.ROUND_LIMIT


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        (said("so it is", Stop.LENGTH), Outcome.TRUNCATED),
        (said(" ", Stop.LENGTH), Outcome.TRUNCATED),
        (said("<summary>half", Stop.LENGTH), Outcome.TRUNCATED),
        (said(" "), Outcome.MALFORMED),
        (said("", Stop.ABORT, error="gone"), Outcome.FAILED),
    ],
)
def test_ends_of_a_forced_answer(completion, outcome):
    trajectory = drive(machine(), SUMMARY, SUMMARY, SUMMARY, completion)
    assert trajectory.outcome is outcome
    assert trajectory.conclusion is None
    assert trajectory.reason


def test_a_cut_thought_is_truncated_or_summarised_in_the_same_round():
    trajectory = drive(machine(policy=STOPS), CUT)
    assert (trajectory.outcome, trajectory.reason) == (Outcome.TRUNCATED, "cut in the thought")
    assert trajectory.rounds[0].raw == "r"
    m = machine()
    asked = step(m, CUT)
    assert (asked.purpose, asked.max_tokens, asked.stop, asked.k) == (Purpose.FORCED_SUMMARY, 10, ("</summary>",), 1)
    assert prefill(asked) == "<think>\nr\n</think>\n\n<summary>\n"
    asked = step(m, said("s\n</summary>", stop_text="</summary>"))
    assert (asked.k, prefill(asked)) == (2, "<history>\ns\n</history>\n<think>\n")
    trajectory = drive(m, ANSWER)
    assert trajectory.rounds[0].forced is Purpose.FORCED_SUMMARY
    assert [call.purpose for call in trajectory.rounds[0].calls] == [Purpose.REASON, Purpose.FORCED_SUMMARY]


def test_the_round_goes_on_with_the_ids_that_were_sampled():
    asked = step(machine(), said("r", Stop.LENGTH, ids=3))
    kinds = [(part.kind, part.ids) for part in asked.prompt.prefill]
    assert kinds == [(PartKind.STRUCTURE, None), (PartKind.CONTENT, (0, 1, 2)), (PartKind.STRUCTURE, None)]


def test_a_cut_summary_goes_on_within_gamma():
    m = machine()
    asked = step(m, said("r\n</think>\n\n<summary>\nha", Stop.LENGTH))
    assert prefill(asked) == "<think>\nr\n</think>\n\n<summary>\nha"
    asked = step(m, said("lf</summary>"))
    assert prefill(asked) == "<history>\nhalf\n</history>\n<think>\n"


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        (said("", Stop.LENGTH), Outcome.TRUNCATED),
        (said("not closed"), Outcome.MALFORMED),
        (said("</summary>"), Outcome.MALFORMED),
        (said("", Stop.ABORT, error="gone"), Outcome.FAILED),
    ],
)
def test_ends_of_a_forced_summary(completion, outcome):
    assert drive(machine(), CUT, completion).outcome is outcome


def test_a_summary_that_does_not_end_within_gamma_is_carried_as_far_as_it_goes():
    m = machine()
    asked = step(m, CUT, said("endless", Stop.LENGTH))
    assert (asked.k, prefill(asked)) == (2, "<history>\nendless\n</history>\n<think>\n")
    first = drive(m, ANSWER).rounds[0]
    assert (first.summary, first.stop, first.raw) == ("endless", Stop.LENGTH, "r\n</think>\n\n<summary>\nendless")
    interval = Policy(eta=40, gamma=10, phi=3, interval=(25, 25), on_cut="stop")
    trajectory = drive(machine(policy=interval), CUT, said("endless", Stop.LENGTH))
    assert (trajectory.outcome, trajectory.reason) == (Outcome.TRUNCATED, "cut in the summary")


def test_a_cut_at_phi_is_truncated_or_answered():
    assert drive(machine(policy=STOPS), SUMMARY, SUMMARY, CUT).outcome is Outcome.TRUNCATED
    m = machine()
    asked = step(m, SUMMARY, SUMMARY, CUT)
    assert (asked.purpose, asked.k) == (Purpose.FORCED_ANSWER, 3)
    assert prefill(asked) == "<history>\ns\n</history>\n<think>\nr\n</think>\n\n"
    assert drive(m, said("42")).conclusion == "42"
    m = machine()
    assert drive(m, SUMMARY, SUMMARY, CUT, said("<summary>s</summary>")).outcome is Outcome.TRUNCATED


def test_a_summary_cut_at_phi_is_answered_from_in_a_round_of_its_own():
    m = machine()
    asked = step(m, SUMMARY, SUMMARY, said("r\n</think>\n\n<summary>\nhalf", Stop.LENGTH))
    assert (asked.k, prefill(asked)) == (4, "<history>\nhalf\n</history>\n<think>\n\n</think>\n\n")
    trajectory = drive(m, said("42"))
    assert trajectory.rounds[2].raw == "r\n</think>\n\n<summary>\nhalf"


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_cut_conclusion_is_finished_or_truncated(rounds):
    before = [SUMMARY] * rounds
    cut = said("r\n</think>\n\n4", Stop.LENGTH)
    trajectory = drive(machine(policy=STOPS), *before, cut)
    assert (trajectory.outcome, trajectory.reason) == (Outcome.TRUNCATED, "cut in the conclusion")
    m = machine()
    assert prefill(step(m, *before, cut)).endswith("r\n</think>\n\n4")
    assert drive(m, said("2")).conclusion == "42"


def test_a_stop_string_in_the_thought_lets_the_round_go_on_with_what_is_left():
    m = machine()
    asked = step(m, said("I write </summary>", tokens=20, stop_text="</summary>", ids=4))
    assert (asked.purpose, asked.max_tokens, asked.k) == (Purpose.REASON, 30, 1)
    assert prefill(asked) == "<think>\nI write </summary>"
    trajectory = drive(m, said(" later\n</think>\n\n42"))
    assert (trajectory.conclusion, trajectory.rounds[0].thought) == ("42", "I write </summary> later")


def test_a_stop_string_in_the_conclusion_lets_it_go_on():
    m = machine()
    step(m, said("r\n</think>\n\n<b></summary>", stop_text="</summary>"))
    assert drive(m, said("</b>")).conclusion == "<b></summary></b>"


def test_a_stop_string_with_nothing_left_is_a_cut():
    full = said("r </summary>", tokens=50, stop_text="</summary>")
    assert step(machine(), full).purpose is Purpose.FORCED_SUMMARY
    assert drive(machine(policy=STOPS), full).outcome is Outcome.TRUNCATED


@pytest.mark.parametrize("rounds", [0, 2])
def test_malformed_keeps_the_text(rounds):
    trajectory = drive(machine(), *[SUMMARY] * rounds, said("I forgot the tags"))
    assert (trajectory.outcome, trajectory.reason) == (Outcome.MALFORMED, "thought not closed")
    assert trajectory.rounds[-1].raw == trajectory.rounds[-1].thought == "I forgot the tags"


@pytest.mark.parametrize("rounds", [0, 2])
def test_an_abort_is_failed_whatever_the_text(rounds):
    trajectory = drive(machine(), *[SUMMARY] * rounds, said("r\n</think>\n\n42", Stop.ABORT, error="server died"))
    assert (trajectory.outcome, trajectory.reason, trajectory.conclusion) == (Outcome.FAILED, "server died", None)
    assert trajectory.rounds[-1].raw == "r\n</think>\n\n42"
    assert drive(machine(), said("", Stop.ABORT)).reason == "the backend aborted"


def test_a_budget_ends_the_trajectory_where_no_round_fits():
    policy = Policy(eta=40, gamma=10, phi=9, budget=60, on_limit="stop")
    trajectory = drive(machine(policy=policy), said(SUMMARY.text, tokens=15))
    assert trajectory.outcome is Outcome.TOKEN_LIMIT
    assert "60" in trajectory.reason
    assert "45 left" in trajectory.reason
    assert trajectory.rounds[0].summary == "s"
    m = machine(policy=dataclasses.replace(policy, on_limit="answer"))
    asked = step(m, said(SUMMARY.text, tokens=15))
    assert (asked.purpose, asked.k, asked.max_tokens) == (Purpose.FORCED_ANSWER, 2, 10)
    assert drive(m, said("<summary>s</summary>")).outcome is Outcome.TOKEN_LIMIT


def test_a_conclusion_is_an_answer_even_when_it_used_the_budget_up():
    assert (
        drive(machine(policy=Policy(eta=40, gamma=10, budget=50)), said(ANSWER.text, tokens=50)).outcome
        is Outcome.ANSWERED
    )


def test_a_budget_used_up_inside_a_round_ends_it_there():
    policy = Policy(eta=40, gamma=10, budget=50)
    trajectory = drive(machine(policy=policy), said("r", Stop.LENGTH, tokens=50))
    assert (trajectory.outcome, trajectory.rounds[0].thought) == (Outcome.TOKEN_LIMIT, "r")
    assert drive(machine(policy=policy), said(SUMMARY.text, tokens=50)).outcome is Outcome.TOKEN_LIMIT
    m = machine(policy=policy)
    assert step(m, said("r", Stop.LENGTH, tokens=47)).max_tokens == 3


def test_a_budget_below_one_round_is_refused():
    with pytest.raises(ProtocolError, match="less than one round of 50"):
        machine(policy=Policy(eta=40, gamma=10, budget=49))


def test_intervals_cut_where_they_say_and_always_summarise():
    fixed = Policy(eta=40, gamma=10, interval=(25, 25), on_cut="stop")
    assert step(machine(policy=fixed)).max_tokens == 25
    assert step(machine(policy=fixed), CUT).purpose is Purpose.FORCED_SUMMARY
    drawn = [Policy(interval=(3000, 6000), seed=s).round_tokens("p/0", k) for s in range(9) for k in range(9)]
    assert all(3000 <= tokens <= 6000 for tokens in drawn)
    assert len(set(drawn)) > 70
    assert drawn == [Policy(interval=(3000, 6000), seed=s).round_tokens("p/0", k) for s in range(9) for k in range(9)]


# -- the other carries --


def test_tail_opens_each_chunk_with_the_first_and_last_tokens():
    policy = Policy(eta=40, gamma=10, phi=3)
    m = machine("tail", policy)  # keeps the first 5 and the last 20
    assert (step(m).max_tokens, step(m).stop) == (40, ())
    asked = step(m, Completion("x", Stop.LENGTH, completion_tokens=40, token_ids=tuple(range(40))))
    assert (asked.k, asked.max_tokens) == (2, 15)
    assert asked.prompt.prefill[1].ids == (*range(5), *range(20, 40))
    asked = step(m, Completion("y", Stop.LENGTH, completion_tokens=15, token_ids=tuple(range(100, 115))))
    assert asked.prompt.prefill[1].ids == (*range(5), *range(35, 40), *range(100, 115))
    trajectory = drive(m, said("r\n</think>\n\n42", ids=6))
    assert (trajectory.outcome, [r.thought for r in trajectory.rounds]) == (Outcome.ANSWERED, ["x", "y", "r"])


def test_tail_of_a_tiny_eta_keeps_nothing_and_still_goes_on():
    m = machine("tail", Policy(eta=1, gamma=1, phi=3))
    asked = step(m, Completion("x", Stop.LENGTH, completion_tokens=1, token_ids=(7,)))
    assert (asked.max_tokens, prefill(asked)) == (1, "<think>\n")


def test_tail_cut_in_its_conclusion_finishes_it_and_at_phi_answers_or_is_truncated():
    m = machine("tail")
    assert step(m, said("r\n</think>\n\n4", Stop.LENGTH, ids=3)).purpose is Purpose.FORCED_ANSWER
    m = machine("tail")
    assert step(m, said("r\n</think>\n\n", Stop.LENGTH, ids=3)).purpose is Purpose.FORCED_ANSWER
    cut = said("r", Stop.LENGTH, ids=40)
    assert drive(machine("tail", STOPS), cut, cut, cut).outcome is Outcome.TRUNCATED


def test_tail_without_token_ids_is_our_own_mistake():
    with pytest.raises(ProtocolError, match="needs token ids"):
        machine("tail").receive(CUT)


def test_none_has_one_round_whatever_phi_says():
    assert step(machine("none")).stop == ()
    assert drive(machine("none"), ANSWER).outcome is Outcome.ANSWERED
    assert drive(machine("none", STOPS), CUT).outcome is Outcome.TRUNCATED
    assert drive(machine("none", STOPS), SUMMARY).outcome is Outcome.ROUND_LIMIT
    m = machine("none")
    assert prefill(step(m, SUMMARY)) == "<think>\n\n</think>\n\n"


def test_none_on_a_chat_server_answers_in_a_call_of_its_own():
    m = Machine(PROBLEM, make_format("none", prefill=False), make_carry("none", POLICY), POLICY)
    asked = step(m, said("so far", Stop.LENGTH))
    assert (asked.purpose, asked.prompt.prefill) == (Purpose.FORCED_ANSWER, ())
    assert [turn.role for turn in asked.prompt.turns] == ["user", "assistant", "user"]
    trajectory = drive(m, said("42"))
    assert (trajectory.conclusion, trajectory.rounds[0].thought) == ("42", "so far")


def test_two_call_sends_the_thought_to_a_summariser_and_goes_on_from_its_notes():
    m = machine("two_call")
    assert (step(m).max_tokens, step(m).stop, step(m).prompt.prefill) == (40, (), ())
    asked = step(m, said("half a thought", Stop.LENGTH))
    assert (asked.purpose, asked.max_tokens, asked.k) == (Purpose.SUMMARISE, 10, 1)
    assert [turn.text for turn in asked.prompt.turns[:2]] == ["Q", "half a thought"]
    asked = step(m, said("x = 1"))
    assert (asked.purpose, asked.k) == (Purpose.REASON, 2)
    assert "x = 1" in asked.prompt.turns[-1].text
    asked = step(m, said("more", Stop.LENGTH))
    assert [turn.text for turn in asked.prompt.turns[1:2]] == ["x = 1"]
    trajectory = drive(m, said("<think>hm</think><summary>x = 2</summary>"), said("42"))
    assert (trajectory.outcome, trajectory.conclusion) == (Outcome.ANSWERED, "42")
    assert [(r.thought, r.summary) for r in trajectory.rounds] == [
        ("half a thought", "x = 1"),
        ("more", "x = 2"),
        ("", None),
    ]


@pytest.mark.parametrize(
    ("summary", "outcome", "reason"),
    [
        (said(" ", Stop.LENGTH), Outcome.TRUNCATED, "cut in the summary"),
        (said("<think>hm", Stop.LENGTH), Outcome.TRUNCATED, "cut in the summary"),
        (said("", Stop.LENGTH, reasoning="hm"), Outcome.TRUNCATED, "cut in the summary"),
        (said("  "), Outcome.MALFORMED, "no summary: empty completion"),
        (said("", Stop.ABORT, error="x"), Outcome.FAILED, "x"),
    ],
)
def test_ends_of_a_two_call_summary(summary, outcome, reason):
    trajectory = drive(machine("two_call"), CUT, summary)
    assert (trajectory.outcome, trajectory.reason, trajectory.rounds[0].thought) == (outcome, reason, "r")


@pytest.mark.parametrize("cut", ["x = 1, an", "<think>hm</think>x = 1, an", "<summary>x = 1, an"])
def test_a_two_call_summary_that_was_cut_is_carried_as_far_as_it_goes(cut):
    m = machine("two_call")
    assert "x = 1, an" in step(m, CUT, said(cut, Stop.LENGTH)).prompt.turns[-1].text
    strict = Policy(eta=40, gamma=10, phi=3, on_cut="stop")
    assert drive(machine("two_call", strict), CUT, said(cut, Stop.LENGTH)).outcome is Outcome.TRUNCATED


def test_two_call_at_phi_asks_for_the_answer_and_says_when_none_came():
    m = machine("two_call")
    asked = step(m, CUT, said("s"), CUT, said("s"), CUT)
    assert (asked.purpose, asked.k) == (Purpose.FORCED_ANSWER, 3)
    assert asked.prompt.turns[-2].text == "r"
    assert drive(m, said("42")).conclusion == "42"
    m = machine("two_call")
    trajectory = drive(m, CUT, said("s"), CUT, said("s"), CUT, said("on and on", Stop.LENGTH))
    assert (trajectory.outcome, trajectory.reason) == (Outcome.TRUNCATED, "cut in the conclusion")


def test_two_call_without_budget_for_a_round_answers_from_its_notes():
    m = machine("two_call", Policy(eta=40, gamma=10, budget=70))
    asked = step(m, said("r", Stop.LENGTH, tokens=40), said("x = 1", tokens=5))
    assert (asked.purpose, len(asked.prompt.turns)) == (Purpose.FORCED_ANSWER, 1)
    assert "x = 1" in asked.prompt.turns[0].text
    assert drive(m, said("42")).outcome is Outcome.ANSWERED


# -- the table, the drivers' mistakes, the records --


def test_the_table_is_whole():
    assert set(TABLE) == {State.REASON, State.SUMMARY, State.ANSWER}
    assert set(TABLE[State.REASON]) == set(Read)
    assert describe_table().count("\n") == 1 + sum(len(rows) for rows in TABLE.values())


def test_misuse_by_the_driver_raises():
    m = machine()
    drive(m, ANSWER)
    with pytest.raises(ProtocolError, match="is done"):
        m.receive(ANSWER)
    with pytest.raises(ProtocolError, match="cannot work with thoughts"):
        Machine(PROBLEM, make_format("two_call"), make_carry("summary", POLICY), POLICY)
    with pytest.raises(ProtocolError, match="cannot work with thoughts"):
        Machine(PROBLEM, make_format("summary"), make_carry("two_call", POLICY), POLICY)
    with pytest.raises(ProtocolError, match="no carry 'sumary'"):
        make_carry("sumary", POLICY)


@pytest.mark.parametrize(
    "bad", [{"eta": 0}, {"gamma": 0}, {"phi": 0}, {"budget": 0}, {"interval": (5, 4)}, {"interval": (0, 4)}]
)
def test_impossible_policies_are_refused(bad):
    with pytest.raises(ProtocolError, match=next(iter(bad))):
        Policy(**bad)


COMPLETIONS = st.builds(
    Completion,
    text=TEXTS,
    stop=st.sampled_from(Stop),
    reasoning=st.none(),
    stop_text=st.none(),
    prompt_tokens=st.integers(0, 99),
    completion_tokens=st.integers(0, 60),
    cached_tokens=st.none() | st.integers(0, 9),
    token_ids=st.lists(st.integers(0, 9), max_size=5).map(tuple),
    logprobs=st.none() | st.just((-0.5,)),
    seconds=st.sampled_from([0.0, 0.25]),
)


@given(
    st.sampled_from(["summary", "tail", "none", "two_call"]),
    st.builds(
        Policy,
        eta=st.just(40),
        gamma=st.just(10),
        phi=st.integers(1, 4),
        budget=st.none() | st.integers(50, 200),
        interval=st.none() | st.just((5, 50)),
        on_cut=st.sampled_from(["summarise", "stop"]),
        on_limit=st.sampled_from(["answer", "stop"]),
    ),
    st.lists(COMPLETIONS, min_size=24, max_size=24),
)
def test_whatever_a_model_writes_the_machine_ends_and_its_record_returns_from_json(carry, policy, completions):
    m = machine(carry, policy)
    for number, completion in enumerate(completions):
        asked = m.next()
        if isinstance(asked, Done):
            break
        assert asked.call == number
        assert asked.max_tokens >= 1
        if policy.budget is not None:
            assert m.spent + asked.max_tokens <= policy.budget
        m.receive(
            dataclasses.replace(completion, completion_tokens=min(completion.completion_tokens, asked.max_tokens))
        )
    done = m.next()
    assert isinstance(done, Done), "phi rounds of at most three calls, and one forced answer, must end it"
    trajectory = done.trajectory
    assert (trajectory.conclusion is not None) == (trajectory.outcome is Outcome.ANSWERED)
    assert (trajectory.reason is None) == (trajectory.outcome is Outcome.ANSWERED)
    assert len(trajectory.rounds) <= policy.phi + 1
    assert Trajectory.from_json(json.loads(json.dumps(trajectory.to_json()))) == trajectory


def test_a_completion_returns_from_json():
    full = said("x", Stop.LENGTH, ids=3, reasoning="r", logprobs=(-0.1, -0.2, -0.3), cached_tokens=2, error=None)
    assert Completion.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_another_version_is_refused_by_name():
    data = drive(machine(), ANSWER).to_json()
    with pytest.raises(ValueError, match="version 99; this package reads 1"):
        Trajectory.from_json(data | {"version": 99})
    problem = Problem("p", "Q", context=(("system", "S"),))
    trajectory = Trajectory(problem, Outcome.FAILED, ())
    assert Trajectory.from_json(json.loads(json.dumps(trajectory.to_json()))).problem == problem
