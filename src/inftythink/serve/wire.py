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
from typing import Any, Literal

from inftythink.errors import ProtocolError
from inftythink.protocol import CARRIES, Policy, Problem
from inftythink.protocol.types import Role

ReasoningField = Literal["both", "reasoning", "reasoning_content", "think-tags", "none"]
FIELDS: tuple[ReasoningField, ...] = ("both", "reasoning", "reasoning_content", "think-tags", "none")

EFFORTS: dict[str, float] = {"none": 0, "minimal": 0, "low": 0.25, "medium": 0.5, "high": 1, "xhigh": 1, "max": 1}
"""``reasoning_effort`` as a part of the server's most rounds; at least one round."""

_LARGEST = 2**31 - 1
_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_UNSUPPORTED = ("frequency_penalty", "presence_penalty", "logit_bias")
_PLAIN = ("tools", "functions", "audio", "prediction", "web_search_options")


class Refused(Exception):
    """A request that gets an error: its HTTP status and the fields of OpenAI's error object."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry = status, message, code, param, retry

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


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
    found = next((name for name in _PLAIN if body.get(name)), None)
    if found is None and _kind(body.get("response_format")) not in (None, "text"):
        found = "response_format"
    messages = body.get("messages")
    for message in messages if found is None and isinstance(messages, list) else ():
        if isinstance(message, dict) and (message.get("role") in ("tool", "function") or message.get("tool_calls")):
            return "tools"
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if _kind(part) in ("image_url", "input_audio", "video_url", "file", "audio_url", "image"):
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
        if isinstance(parts, list) and any(
            _kind(part) in ("input_image", "input_file", "input_audio") for part in parts
        ):
            return "images or files"
    return None


def _kind(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


# -- requests --


def read_chat(body: Mapping[str, Any], offer: Offer) -> Asked:
    """Read a request for a chat completion. Raises ``Refused``."""
    check_model(body, offer)
    if body.get("logprobs") or body.get("top_logprobs"):
        raise Refused(
            400,
            "logprobs are not available: an answer is joined from several rounds. Leave logprobs and top_logprobs out.",
            param="logprobs",
        )
    limit = _integer(body, "max_completion_tokens", 1)
    options = _mapping(body, "stream_options")
    return _asked(
        body,
        offer,
        _conversation(body.get("messages"), "messages", ()),
        limit if limit is not None else _integer(body, "max_tokens", 1),
        body.get("reasoning_effort"),
        "reasoning_effort",
        include_usage=_boolean(options, "include_usage", "stream_options."),
    )


def read_response(body: Mapping[str, Any], offer: Offer) -> Asked:
    """Read a request for a response. Raises ``Refused``."""
    check_model(body, offer)
    for name in ("previous_response_id", "conversation", "background", "prompt"):
        if body.get(name):
            raise Refused(
                400, f"{name} is not available: this server keeps nothing. Send the conversation.", param=name
            )
    if body.get("top_logprobs"):
        raise Refused(400, "logprobs are not available: an answer has several rounds", param="top_logprobs")
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise Refused(400, "instructions is to be text", param="instructions")
    if isinstance(items, list):
        items = [item for item in items if not (isinstance(item, dict) and item.get("type") == "reasoning")]
    first: tuple[tuple[Role, str], ...] = (("system", instructions),) if instructions else ()
    problem = _conversation(items, "input", first)
    effort = _mapping(body, "reasoning").get("effort")
    return _asked(body, offer, problem, _integer(body, "max_output_tokens", 1), effort, "reasoning.effort")


def check_model(body: Mapping[str, Any], offer: Offer) -> None:
    """Raise ``Refused`` for another model than the one that is served; none is that one."""
    name = body.get("model")
    if name is not None and name != offer.model:
        shown = str(name)[:100]
        raise Refused(
            404, f"the model {shown!r} does not exist; there is {offer.model!r}", code="model_not_found", param="model"
        )


def _asked(
    body: Mapping[str, Any],
    offer: Offer,
    problem: Problem,
    limit: int | None,
    effort: object,
    effort_name: str,
    include_usage: bool = False,
) -> Asked:
    """Read what both interfaces share."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise Refused(400, f"{name} is not available; leave it out", param=name)
    own = _mapping(body, "inftythink")
    unknown = sorted(set(own) - {"eta", "gamma", "max_rounds", "carry", "policy", "reasoning_field"})
    if unknown:
        raise Refused(400, f"inftythink.{unknown[0]} is no option of this server", param="inftythink")
    carry = _choice(own, "carry", offer.carries, offer.carry, "inftythink.")
    return Asked(
        problem=problem,
        carry=carry,
        policy=_policy(own, offer, carry, limit, _rounds(effort, effort_name, offer)),
        sampling=_sampling(body),
        stop=_stop(body.get("stop")),
        samples=_integer(body, "n", 1, offer.top_samples) or 1,
        stream=_boolean(body, "stream"),
        include_usage=include_usage,
        reasoning=_choice(own, "reasoning_field", FIELDS, _choice(body, "reasoning_field", FIELDS, offer.reasoning)),
    )


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "temperature": _number(body, "temperature", 0.0, 2.0),
        "top_p": _number(body, "top_p", 0.0, 1.0),
        "top_k": _integer(body, "top_k", 0),
        "seed": _integer(body, "seed", -_LARGEST - 1),
    }
    if found["top_p"] == 0.0:
        found["top_p"] = 1e-6  # OpenAI allows 0, engines do not
    return {name: value for name, value in found.items() if value is not None}


def _stop(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(texts, list) or len(texts) > 16 or not all(isinstance(t, str) and len(t) <= 1000 for t in texts):
        raise Refused(400, "stop is to be a text, or up to 16 texts of up to 1000 characters", param="stop")
    return tuple(text for text in texts if text)


def _rounds(effort: object, name: str, offer: Offer) -> int | None:
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise Refused(400, f"{name} is to be one of {', '.join(EFFORTS)}", param=name)
    return max(1, math.ceil(offer.policy.phi * EFFORTS[effort]))


# -- limits --


def _policy(own: Mapping[str, Any], offer: Offer, carry: str, limit: int | None, effort_rounds: int | None) -> Policy:
    """Return the policy of a request: the server's with what the request changes, within ``limit`` tokens in all."""
    base, name = offer.policy, "inftythink."
    rounds = _integer(own, "max_rounds", 1, offer.top_rounds, name)
    more = _mapping(own, "policy", name)
    unknown = sorted(set(more) - {"interval", "on_cut", "on_limit"})
    if unknown:
        raise Refused(400, f"inftythink.policy.{unknown[0]} is no option of this server", param="inftythink")
    try:
        policy = dataclasses.replace(
            base,
            eta=_integer(own, "eta", 1, where=name) or base.eta,
            gamma=_integer(own, "gamma", 1, where=name) or base.gamma,
            phi=rounds or effort_rounds or base.phi,
            interval=_interval(more["interval"]) if "interval" in more else base.interval,
            on_cut=_choice(more, "on_cut", ("summarise", "stop"), base.on_cut, "inftythink.policy."),
            on_limit=_choice(more, "on_limit", ("answer", "stop"), base.on_limit, "inftythink.policy."),
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
    if tokens >= policy.eta + (shared + forced + 1) * policy.gamma:
        return dataclasses.replace(policy, budget=tokens)
    gamma = max(1, min(policy.gamma, tokens // 4))
    eta = max(1, min(policy.eta, tokens - (shared + 1) * gamma))
    interval = None if policy.interval is None else (min(policy.interval[0], eta), min(policy.interval[1], eta))
    if tokens < eta + shared * gamma:  # one token in all
        interval = (1, 1)
    return dataclasses.replace(policy, eta=eta, gamma=gamma, phi=1, budget=tokens, interval=interval)


def _interval(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 1 <= n <= _LARGEST for n in value):
        raise Refused(400, "inftythink.policy.interval is to be null, or two numbers of tokens", param="inftythink")
    return value[0], value[1]


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
    if not isinstance(item, dict) or not isinstance(name, str) or name not in _ROLES:
        raise Refused(400, f"{where} is to have a role of {', '.join(_ROLES)}, and content", param=where)
    role, content = _ROLES[name], item.get("content")
    if content is None and role == "assistant":
        content = ""
    if isinstance(content, list):
        content = "\n".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise Refused(400, f"{where}.content is to be text, or a list of parts with text", param=where)
    return role, without_thoughts(content) if role == "assistant" else content


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") in ("text", "input_text", "output_text", "refusal"):
        text = part.get("text", part.get("refusal"))
        if isinstance(text, str):
            return text
    raise Refused(400, f"{where}.content has a part that is no text", param=where)


def without_thoughts(text: str) -> str:
    """Return an earlier answer without its thoughts: ``<think>`` blocks, and what stands before a lone ``</think>``."""
    text = re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    return text.split("</think>", 1)[1].lstrip() if "</think>" in text else text


# -- fields --


def _mapping(body: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refused(400, f"{where}{name} is to be an object", param=where + name)
    return value or {}


def _integer(body: Mapping[str, Any], name: str, least: int, most: int = _LARGEST, where: str = "") -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise Refused(400, f"{where}{name} is to be a whole number from {least} to {most}", param=where + name)
    return value


def _number(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refused(400, f"{name} is to be a number from {least:g} to {most:g}", param=name)
    return float(value)


def _boolean(body: Mapping[str, Any], name: str, where: str = "") -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{where}{name} is to be true or false", param=where + name)
    return bool(value)


def _choice(body: Mapping[str, Any], name: str, choices: tuple[Any, ...], default: Any, where: str = "") -> Any:
    value = body.get(name)
    if value is None:
        return default
    if value not in choices:
        raise Refused(400, f"{where}{name} is to be one of {', '.join(choices)}", param=where + name)
    return value
