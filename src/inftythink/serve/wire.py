"""OpenAI's JSON into what the protocol speaks. No I/O: a request in, a problem with its policy and sampling out.

``told.py`` makes neutral pieces of a reasoner's events, ``chat.py`` and ``responses.py`` write them as the two
interfaces do. Every refusal is a ``Refused``, which ``app.py`` sends in OpenAI's error shape.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from inftythink.errors import ProtocolError
from inftythink.protocol import CARRIES, Policy, Problem
from inftythink.protocol.types import Role
from inftythink.serve.fields import (
    LARGEST,
    Field,
    Group,
    Refused,
    absent,
    choice,
    flag,
    interval,
    number,
    read,
    text,
    texts,
    whole,
)

ReasoningField = Literal["both", "reasoning", "reasoning_content", "think-tags", "none"]
FIELDS: tuple[ReasoningField, ...] = ("both", "reasoning", "reasoning_content", "think-tags", "none")
CUTS, LIMITS = ("summarise", "stop"), ("answer", "stop")

EFFORTS: dict[str, float] = {"none": 0, "minimal": 0, "low": 0.25, "medium": 0.5, "high": 1, "xhigh": 1, "max": 1}
"""``reasoning_effort`` as a part of the server's most rounds; at least one round."""

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
PLAIN = ("tools", "functions", "audio", "prediction", "web_search_options")
"""Fields of a chat request that cannot be iterated over."""
PLAIN_PARTS = ("image_url", "input_audio", "video_url", "file", "audio_url", "image")
PLAIN_ITEMS = ("input_image", "input_file", "input_audio")


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server does when a request does not say, and the most that a request may ask for.

    ``model`` is its name for clients (empty: as an upstream calls it). ``carries`` are those that the model's backend
    can do. ``top_rounds`` and ``top_samples`` bound a request's ``max_rounds`` and ``n``.
    """

    model: str
    carry: str = "two_call"
    policy: Policy = field(default_factory=Policy)
    carries: tuple[str, ...] = CARRIES
    reasoning: ReasoningField = "both"
    top_rounds: int = 1000
    top_samples: int = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read. ``sampling`` holds only what the request sets; ``stop`` ends the conclusion."""

    problem: Problem
    carry: str
    policy: Policy
    sampling: dict[str, Any]
    stop: tuple[str, ...] = ()
    samples: int = 1
    stream: bool = False
    include_usage: bool = False
    reasoning: ReasoningField = "both"


# -- which requests are answered by the model in one go --


def plain_chat(body: Mapping[str, Any]) -> str | None:
    """Say what in a chat request cannot be iterated over (tools, images, formats); None when nothing is."""
    found = next((name for name in PLAIN if body.get(name)), None)
    if found is None and _kind(body.get("response_format")) not in (None, "text"):
        found = "response_format"
    messages = body.get("messages")
    for message in messages if found is None and isinstance(messages, list) else ():
        if isinstance(message, dict) and (message.get("role") in ("tool", "function") or message.get("tool_calls")):
            return "tools"
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if _kind(part) in PLAIN_PARTS:
                return str(_kind(part))
    return found


def plain_responses(body: Mapping[str, Any]) -> str | None:
    """Say what in a request for a response cannot be iterated over; None when nothing is."""
    if body.get("tools"):
        return "tools"
    text = body.get("text")
    if isinstance(text, dict) and _kind(text.get("format")) not in (None, "text"):
        return "text.format"
    for item in body["input"] if isinstance(body.get("input"), list) else ():
        if _kind(item) in ("function_call", "function_call_output"):
            return "tools"
        parts = item.get("content") if isinstance(item, dict) else None
        if isinstance(parts, list) and any(_kind(part) in PLAIN_ITEMS for part in parts):
            return "images or files"
    return None


def _kind(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


# -- requests --

_ONE_GO = "an answer is joined from several rounds"
_KEPT = "this server keeps nothing; send the conversation"


def _shared(offer: Offer) -> tuple[Field | Group, ...]:
    """Return the fields that both interfaces have."""
    own = (
        whole("eta"),
        whole("gamma"),
        whole("max_rounds", 1, offer.top_rounds),
        choice("carry", offer.carries),
        choice("reasoning_field", FIELDS),
        Group("policy", (interval("interval"), choice("on_cut", CUTS), choice("on_limit", LIMITS))),
    )
    return (
        number("temperature", 0, 2),
        number("top_p", 0, 1),
        whole("top_k", 0),
        whole("seed", -LARGEST - 1),
        whole("n", 1, offer.top_samples),
        texts("stop", 16, 1000),
        flag("stream"),
        choice("reasoning_field", FIELDS),
        *(absent(name, "it is not available") for name in ("frequency_penalty", "presence_penalty", "logit_bias")),
        absent("top_logprobs", _ONE_GO),
        Group("inftythink", own),
    )


@lru_cache(maxsize=8)
def chat_fields(offer: Offer) -> tuple[Field | Group, ...]:
    """Return the fields of a chat request, but for model and messages."""
    return (
        *_shared(offer),
        absent("logprobs", _ONE_GO),
        whole("max_completion_tokens"),
        whole("max_tokens"),
        choice("reasoning_effort", tuple(EFFORTS)),
        Group("stream_options", (flag("include_usage"),), closed=False),
    )


@lru_cache(maxsize=8)
def response_fields(offer: Offer) -> tuple[Field | Group, ...]:
    """Return the fields of a request for a response, but for model and input."""
    kept = ("previous_response_id", "conversation", "background", "prompt")
    return (
        *_shared(offer),
        *(absent(name, _KEPT) for name in kept),
        text("instructions"),
        whole("max_output_tokens"),
        Group("reasoning", (choice("effort", tuple(EFFORTS)),), closed=False),
    )


def read_chat(body: Mapping[str, Any], offer: Offer) -> Asked:
    """Read a request for a chat completion. Raises ``Refused``."""
    check_model(body, offer)
    given = read(chat_fields(offer), body)
    limit = given.get("max_completion_tokens", given.get("max_tokens"))
    usage = given.get("stream_options", {}).get("include_usage", False)
    problem = _conversation(body.get("messages"), "messages", ())
    return _asked(body, given, offer, problem, limit, given.get("reasoning_effort"), usage)


def read_response(body: Mapping[str, Any], offer: Offer) -> Asked:
    """Read a request for a response. Raises ``Refused``."""
    check_model(body, offer)
    given = read(response_fields(offer), body)
    items = body.get("input")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    if isinstance(items, list):
        items = [item for item in items if not (isinstance(item, dict) and item.get("type") == "reasoning")]
    instructions = given.get("instructions")
    first: tuple[tuple[Role, str], ...] = (("system", instructions),) if instructions else ()
    problem = _conversation(items, "input", first)
    effort = given.get("reasoning", {}).get("effort")
    return _asked(body, given, offer, problem, given.get("max_output_tokens"), effort)


def check_model(body: Mapping[str, Any], offer: Offer) -> None:
    """Raise ``Refused`` for another model than the one that is served; none is that one."""
    name = text("model").read(body)
    if name is not None and name != offer.model:
        message = f"the model {name[:100]!r} does not exist; there is {offer.model!r}"
        raise Refused(404, message, code="model_not_found", param="model")


def _asked(
    body: Mapping[str, Any],
    given: Mapping[str, Any],
    offer: Offer,
    problem: Problem,
    limit: int | None,
    effort: str | None,
    include_usage: bool = False,
) -> Asked:
    """Return what a request asks for; ``given`` are its fields, read."""
    own = given.get("inftythink", {})
    sampling = {name: given[name] for name in ("temperature", "top_p", "top_k", "seed") if name in given}
    if sampling.get("top_p") == 0.0:
        sampling["top_p"] = 1e-6  # OpenAI allows 0, engines do not
    # An interval of null is not none: it lets the model decide.
    free = "interval" in ((body.get("inftythink") or {}).get("policy") or {})
    carry = own.get("carry", offer.carry)
    return Asked(
        problem=problem,
        carry=carry,
        policy=_policy(own, free, offer, carry, limit, effort),
        sampling=sampling,
        stop=given.get("stop", ()),
        samples=given.get("n", 1),
        stream=given.get("stream", False),
        include_usage=include_usage,
        reasoning=own.get("reasoning_field", given.get("reasoning_field", offer.reasoning)),
    )


# -- limits --


def _policy(
    own: Mapping[str, Any], free: bool, offer: Offer, carry: str, limit: int | None, effort: str | None
) -> Policy:
    """Return the policy of a request: the server's with what the request changes, within ``limit`` tokens in all."""
    base, more = offer.policy, own.get("policy", {})
    rounds = base.phi if effort is None else max(1, math.ceil(base.phi * EFFORTS[effort]))
    try:
        policy = dataclasses.replace(
            base,
            eta=own.get("eta", base.eta),
            gamma=own.get("gamma", base.gamma),
            phi=own.get("max_rounds", rounds),
            interval=more.get("interval") if free else base.interval,
            on_cut=more.get("on_cut", base.on_cut),
            on_limit=more.get("on_limit", base.on_limit),
        )
        tokens = min((each for each in (limit, base.budget) if each is not None), default=None)
        return policy if tokens is None else within(policy, carry, tokens)
    except ProtocolError as error:
        raise Refused(400, str(error), param="inftythink") from None


def within(policy: Policy, carry: str, tokens: int) -> Policy:
    """Return ``policy`` with a budget of ``tokens``, its sizes made so small that a round and a forced answer fit.

    Where not even a round, its forced summary and an answer fit there is one round: its thought and, should it not
    conclude, the answer.
    """
    shared = carry in ("summary", "none")  # a round is eta + gamma, else eta
    forced = carry in ("summary", "two_call")  # a cut round gets its summary
    longest = policy.eta + shared * policy.gamma
    if policy.interval is not None and carry != "tail":
        longest = policy.interval[1]
    if tokens >= longest + (forced + 1) * policy.gamma:
        return dataclasses.replace(policy, budget=tokens)
    gamma = max(1, min(policy.gamma, tokens // 4))
    eta = max(1, min(policy.eta, tokens - (shared + 1) * gamma))
    interval = None if policy.interval is None else (min(policy.interval[0], eta), min(policy.interval[1], eta))
    if tokens < eta + shared * gamma:  # one token in all
        interval = (1, 1)
    return dataclasses.replace(policy, eta=eta, gamma=gamma, phi=1, budget=tokens, interval=interval)


# -- conversations --


def _conversation(items: object, name: str, first: tuple[tuple[Role, str], ...]) -> Problem:
    """Return the problem of a conversation: the last message is the question. Raises ``Refused``."""
    if not isinstance(items, list) or not items:
        raise Refused(400, f"{name} is to be a list of messages, and is not to be empty", param=name)
    turns = [_turn(item, f"{name}[{number}]") for number, item in enumerate(items)]
    role, question = turns.pop()
    if role != "user" or not question.strip():
        raise Refused(400, f"the last of {name} is to come from the user, and to have text", param=name)
    # The same id for every request, so that a seed gives the same answer again.
    return Problem("served", question, context=(*first, *turns))


def _turn(item: object, where: str) -> tuple[Role, str]:
    name = item.get("role") if isinstance(item, dict) and item.get("type", "message") == "message" else None
    if not isinstance(item, dict) or not isinstance(name, str) or name not in ROLES:
        raise Refused(400, f"{where} is to have a role of {', '.join(ROLES)}, and content", param=where)
    role, content = ROLES[name], item.get("content")
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, list):
        content = "\n".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise Refused(400, f"{where}.content is to be text, or a list of parts with text", param=where)
    return role, without_thoughts(content) if role == "assistant" else content


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") in TEXT_PARTS:
        text = part.get("text", part.get("refusal"))
        if isinstance(text, str):
            return text
    raise Refused(400, f"{where}.content has a part that is no text", param=where)


def without_thoughts(text: str) -> str:
    """Return an earlier answer without its thoughts: ``<think>`` blocks, and what stands before a lone ``</think>``."""
    text = re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    return text.split("</think>", 1)[1].lstrip() if "</think>" in text else text
