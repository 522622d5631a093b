"""What a request asks for: every field is read, bounded or refused, and nothing is guessed."""

import contextlib
import copy
import dataclasses
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inftythink.protocol import Machine, Policy, Problem, make_carry, make_format
from inftythink.serve.wire import (
    Offer,
    Refused,
    plain_chat,
    plain_responses,
    read_chat,
    read_response,
    within,
    without_thoughts,
)

OFFER = Offer(model="m", carry="two_call", policy=Policy(eta=400, gamma=100, phi=8), top_rounds=50, top_samples=4)
HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields):
    return read_chat({"messages": HELLO, **fields}, OFFER)


def test_a_conversation_becomes_a_question_with_its_context():
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}, {"type": "text", "text": "please"}]},
        {"role": "assistant", "content": "<think>hm</think>\n\n4", "reasoning": "hm", "reasoning_content": "hm"},
        {"role": "user", "content": "and 3 + 3?"},
    ]
    asked = chat(messages=messages)
    assert asked.problem.question == "and 3 + 3?"
    assert asked.problem.context == (("system", "be brief"), ("user", "2 + 2?\nplease"), ("assistant", "4"))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>\nb", "b"),
        ("<think>a</think> b <think>c</think>d", "b d"),
        ("plain <b>", "plain <b>"),
    ],
)
def test_earlier_thoughts_are_dropped(text, left):
    assert without_thoughts(text) == left


def test_settings_of_a_request_win_over_the_servers():
    asked = chat(
        temperature=0,
        top_p=0.5,
        seed=7,
        n=2,
        stop="END",
        stream=True,
        stream_options={"include_usage": True},
        inftythink={"eta": 50, "gamma": 10, "max_rounds": 3, "carry": "none", "policy": {"on_limit": "stop"}},
        reasoning_field="none",
    )
    assert asked.sampling == {"temperature": 0.0, "top_p": 0.5, "seed": 7}
    assert (asked.samples, asked.stop, asked.stream, asked.include_usage) == (2, ("END",), True, True)
    assert (asked.policy.eta, asked.policy.gamma, asked.policy.phi, asked.policy.on_limit) == (50, 10, 3, "stop")
    assert (asked.carry, asked.reasoning) == ("none", "none")
    assert chat().policy == OFFER.policy


@pytest.mark.parametrize(("effort", "rounds"), [("none", 1), ("minimal", 1), ("low", 2), ("medium", 4), ("high", 8)])
def test_effort_is_a_number_of_rounds(effort, rounds):
    assert chat(reasoning_effort=effort).policy.phi == rounds
    assert read_response({"input": "hi", "reasoning": {"effort": effort}}, OFFER).policy.phi == rounds


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [7]}, "messages"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"seed": 1.5}, "seed"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 2**40}, "max_completion_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning_field": "thoughts"}, "reasoning_field"),
        ({"inftythink": {"max_rounds": 51}}, "inftythink.max_rounds"),
        ({"inftythink": {"carry": "pigeon"}}, "inftythink.carry"),
        ({"inftythink": {"carry": ["none"]}}, "inftythink.carry"),
        ({"inftythink": {"rounds": 3}}, "inftythink"),
        ({"inftythink": {"policy": {"interval": [9, 3]}}}, "inftythink"),
        ({"inftythink": {"policy": {"interval": [9]}}}, "inftythink"),
        ({"inftythink": {"policy": {"budget": 3}}}, "inftythink"),
    ],
)
def test_what_cannot_be_is_refused_and_named(fields, named):
    with pytest.raises(Refused) as refused:
        chat(**fields)
    assert refused.value.status == 400
    assert str(refused.value.param).startswith(named)
    assert refused.value.body()["error"]["message"]


def test_another_model_is_not_found():
    assert chat(model="m").carry == "two_call"
    with pytest.raises(Refused, match="does not exist") as refused:
        chat(model="gpt")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


def test_a_response_is_asked_for_in_its_own_words():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "2 + 2?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4"}]},
        {"role": "user", "content": "sure?"},
    ]
    asked = read_response({"input": items, "instructions": "be brief", "max_output_tokens": 2000}, OFFER)
    assert asked.problem.question == "sure?"
    assert asked.problem.context == (("system", "be brief"), ("user", "2 + 2?"), ("assistant", "4"))
    assert asked.policy.budget == 2000
    for fields in ({"previous_response_id": "x"}, {"background": True}, {"instructions": 3}, {"input": None}):
        with pytest.raises(Refused):
            read_response({"input": "hi", **fields}, OFFER)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"messages": HELLO}, None),
        ({"messages": HELLO, "tools": []}, None),
        ({"messages": HELLO, "response_format": {"type": "text"}}, None),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": "nonsense"}, None),
    ],
)
def test_what_is_passed_through(body, why):
    assert plain_chat(body) == why


def test_what_is_passed_through_of_responses():
    assert plain_responses({"input": "x"}) is None
    assert plain_responses({"input": "x", "tools": [{"type": "function"}]}) == "tools"
    assert plain_responses({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}) == "images or files"


SIZES = st.integers(1, 50) | st.integers(1, 3000)


@given(
    carry=st.sampled_from(["summary", "two_call", "none", "tail"]),
    eta=SIZES,
    gamma=SIZES,
    interval=st.none() | st.tuples(SIZES, SIZES).map(lambda pair: (min(pair), max(pair))),
    tokens=SIZES | st.integers(1, 20_000),
    name=st.text(max_size=3),
)
@example("summary", 12, 8, (40, 50), 36, "an interval above the other sizes, and above all tokens")
@example("summary", 400, 100, None, 699, "a token too few for a round, its summary and an answer")
def test_every_number_of_tokens_allows_a_round(carry, eta, gamma, interval, tokens, name):
    policy = Policy(eta=eta, gamma=gamma, phi=8, interval=interval)
    small = within(policy, carry, tokens)
    assert small.budget == tokens
    Machine(Problem(name, ""), make_format(carry), make_carry(carry, small), small)  # raises where none is allowed
    longest = eta + gamma if interval is None else max(eta + gamma, interval[1])
    if tokens >= longest + 2 * gamma:
        assert small == dataclasses.replace(policy, budget=tokens)


WHOLE = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "assistant", "content": None, "reasoning": "r"},
        {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
    ],
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}],
    "instructions": "i",
    "text": {"format": {"type": "text"}},
    "reasoning": {"effort": "low"},
    "response_format": {"type": "text"},
    "temperature": 1,
    "top_p": 0.5,
    "n": 1,
    "stop": ["a"],
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "max_output_tokens": 5,
    "stream": True,
    "stream_options": {"include_usage": True},
    "reasoning_effort": "high",
    "seed": 3,
    "inftythink": {"eta": 3, "gamma": 2, "max_rounds": 3, "carry": "none", "policy": {"interval": [1, 2]}},
}
ODD = [None, True, 0, -1, 1.5, 1e308, 10**400, "", "x", "\x00", [], [[]], {}, {"type": "text"}, {"role": []}, ["user"]]


def mutate(value, rng):
    """Put something odd somewhere into a value, or take something away."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(ODD))
    key = rng.choice(keys)
    if rng.random() < 0.15:
        del value[key]
    elif rng.random() < 0.4:
        value[key] = copy.deepcopy(rng.choice(ODD))
    else:
        value[key] = mutate(value[key], rng)
    return value


def test_a_mutated_request_is_read_or_refused():
    rng = random.Random(0)
    for _ in range(10_000):
        body = copy.deepcopy(WHOLE)
        for _ in range(rng.randint(1, 4)):
            body = mutate(body, rng)
        if isinstance(body, dict):
            for plain, read in ((plain_chat, read_chat), (plain_responses, read_response)):
                with contextlib.suppress(Refused):
                    if plain(body) is None:
                        asked = read(body, OFFER)
                        fmt = make_format(asked.carry)
                        Machine(asked.problem, fmt, make_carry(asked.carry, asked.policy), asked.policy)
