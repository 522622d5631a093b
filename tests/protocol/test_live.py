"""What is shown while a trajectory is written is what the machine records for it."""

from hypothesis import given
from hypothesis import strategies as st

from inftythink.protocol import (
    Completion,
    Event,
    Generate,
    Kind,
    Machine,
    Outcome,
    Policy,
    Problem,
    Purpose,
    Stop,
    Trajectory,
    make_carry,
    make_format,
)
from inftythink.protocol.live import Live
from tests.protocol.test_stream import TEXTS

POLICY = Policy(eta=40, gamma=10, phi=3)
ENDS = st.sampled_from(
    ["", "\n</think>\n\n42", "\n</think>\n\n<summary>\ns\n</summary>", "s</summary>", "<summary>half"]
)
SAID = st.tuples(TEXTS, ENDS, st.sampled_from([Stop.STOP, Stop.LENGTH]), st.integers(1, 9))


def follow(carry: str, completions) -> tuple[Trajectory, list[tuple[int, Event]]]:
    """Drive a machine with texts that come in pieces; return the trajectory and the events, each with its round."""
    fmt = make_format(carry)
    machine, live = Machine(Problem("p", "Q"), fmt, make_carry(carry, POLICY), POLICY), Live(fmt)
    shown: list[tuple[int, Event]] = []
    k = 1
    for completion, size in completions:
        asked = machine.next()
        if not isinstance(asked, Generate):
            break
        shown += [(k, event) for event in live.begin(asked)]
        k = asked.k
        for piece in (completion.reasoning,) if completion.reasoning else ():
            shown += [(k, event) for event in live.feed(reasoning=piece)]
        for start in range(0, len(completion.text), size):
            shown += [(k, event) for event in live.feed(completion.text[start : start + size])]
        shown += [(k, event) for event in live.end(completion)]
        machine.receive(completion)
    shown += [(k, event) for event in live.finish()]
    done = machine.next()
    assert not isinstance(done, Generate)
    return done.trajectory, shown


def texts(shown: list[tuple[int, Event]], k: int) -> dict[Kind, str]:
    """Join a round's events by kind, as a reader who obeys RECLASSIFY would."""
    found = dict.fromkeys(Kind, "")
    for number, event in shown:
        if number == k and event.kind is Kind.RECLASSIFY:
            found[Kind.THOUGHT], found[Kind.CONCLUSION] = found[Kind.THOUGHT] + found[Kind.CONCLUSION], ""
        elif number == k:
            found[event.kind] += event.text
    return found


@given(st.sampled_from(["summary", "none"]), st.lists(SAID, min_size=8, max_size=8))
def test_what_is_shown_is_what_is_recorded(carry, said):
    completions = [(Completion(text + end, stop), size) for text, end, stop, size in said]
    trajectory, shown = follow(carry, completions)
    for this in trajectory.rounds:
        found = texts(shown, this.k)
        assert found[Kind.THOUGHT].strip() == this.thought.strip()
        if this.summary is not None:
            assert found[Kind.SUMMARY] == this.summary
    if trajectory.outcome is Outcome.ANSWERED:
        assert texts(shown, trajectory.rounds[-1].k)[Kind.CONCLUSION] == trajectory.conclusion


def test_two_call_shows_thoughts_summaries_and_the_answer_of_calls_of_their_own():
    trajectory, shown = follow(
        "two_call",
        [
            (Completion("half", Stop.LENGTH), 2),
            (Completion("<think>hm</think>x = 6", Stop.STOP, reasoning=None), 3),
            (Completion("", Stop.LENGTH, reasoning="more"), 1),
            (Completion("x = 7", Stop.STOP, reasoning="who cares"), 1),
            (Completion("r", Stop.LENGTH), 1),
            (Completion("42", Stop.STOP), 1),
        ],
    )
    assert [r.forced for r in trajectory.rounds] == [None, None, Purpose.FORCED_ANSWER]
    assert [texts(shown, k)[Kind.THOUGHT] for k in (1, 2, 3)] == ["half", "more", "r"]
    assert [texts(shown, k)[Kind.SUMMARY] for k in (1, 2)] == ["x = 6", "x = 7"]
    assert texts(shown, 3)[Kind.CONCLUSION] == "42" == trajectory.conclusion


def test_a_forced_summary_that_a_server_takes_for_a_thought_is_shown_as_the_summary():
    split = Completion(" more</summary>", Stop.STOP, reasoning="s and")
    trajectory, shown = follow(
        "summary", [(Completion("r", Stop.LENGTH), 1), (split, 3), (Completion("t</think>42", Stop.STOP), 2)]
    )
    assert (trajectory.rounds[0].thought, trajectory.rounds[0].summary) == ("r", "s and more")
    assert texts(shown, 1)[Kind.SUMMARY] == "s and more"
    assert trajectory.conclusion == "42"
