"""The server's OpenAPI description, made of the fields that requests are read with. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inftythink import __version__
from inftythink.serve.fields import NOTHING, Field, Group, absent, properties
from inftythink.serve.wire import (
    PLAIN,
    PLAIN_ITEMS,
    PLAIN_PARTS,
    ROLES,
    TEXT_PARTS,
    Offer,
    chat_fields,
    response_fields,
)

JSON, EVENTS = "application/json", "text/event-stream"
_SOMETHING = {"not": {"enum": list(NOTHING)}}
_STATUSES = {
    400: "the request cannot be answered",
    401: "the key is missing or wrong",
    403: "the request names this machine by another name than localhost",
    404: "there is no such model",
    413: "the request is too large",
    415: "the request is no JSON",
    429: "too many requests at once",
    502: "the upstream failed",
    503: "no upstream answers, or the server is shutting down",
    504: "not done in time",
}


def openapi(offer: Offer) -> dict[str, Any]:
    """Return the description of a server with this offer."""
    model = {"model": {"enum": [offer.model, None]}}
    chat = _request(chat_fields(offer), model, "messages", _messages(()))
    chat["properties"] |= properties([absent(name, "") for name in PLAIN])
    chat["properties"]["response_format"] = {"not": _other_format()}
    response = _request(response_fields(offer), model, "input", {"anyOf": [_text(), _messages(("reasoning",))]})
    response["properties"] |= properties([absent("tools", "")])
    response["properties"]["text"] = {
        "not": {"type": "object", "required": ["format"], "properties": {"format": _other_format()}}
    }
    passed = {"type": "object", "properties": model}
    paths = {
        "/v1/chat/completions": _post("Reason, and answer.", [chat, _passed_chat(model)], "Completion"),
        "/v1/responses": _post("Reason, and answer.", [response, _passed_response(model)], "Response"),
        "/v1/completions": _post("Passed through to an upstream as it is.", [passed], None),
        "/v1/models": _get("The one model.", {"200": _answer("Models")}, keyed=True),
        "/v1/models/{name}": _get("The one model.", {"200": _answer("Model"), "404": _error(404)}, keyed=True)
        | {
            "parameters": [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            ]
        },
        "/health": _get("Whether an upstream answers.", {str(code): _answer("Health") for code in (200, 503)}),
        "/metrics": _get(
            "For Prometheus.",
            {"200": {"description": "counters", "content": {"text/plain": {"schema": _text()}}}},
            keyed=True,
        ),
        "/openapi.json": _get(
            "This description.",
            {"200": {"description": "OpenAPI", "content": {JSON: {"schema": {"type": "object"}}}}},
            keyed=True,
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "inftythink serve", "version": __version__},
        "paths": paths,
        "components": {"schemas": _ANSWERS, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


# -- requests --


def _request(
    fields: Sequence[Field | Group], model: Mapping[str, Any], name: str, content: Mapping[str, Any]
) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {**model, name: content, **properties(fields)}}


def _messages(skipped: Sequence[str]) -> dict[str, Any]:
    """Say what a conversation is. That the last message is the user's and has text is more than a schema can say."""
    part = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(TEXT_PARTS)}},
        "anyOf": [
            {"required": ["text"], "properties": {"text": _text()}},
            {"required": ["refusal"], "properties": {"refusal": _text(), "text": False}},
        ],
    }
    content = {"anyOf": [_text(), {"type": "array", "items": part}]}
    said = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": list(ROLES)}, "type": {"const": "message"}, "content": content},
    }
    silent = {
        "type": "object",
        "required": ["role"],
        "properties": {"role": {"const": "assistant"}, "type": {"const": "message"}, "content": {"type": "null"}},
    }
    other = [{"type": "object", "required": ["type"], "properties": {"type": {"const": name}}} for name in skipped]
    return {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [said, silent, *other]},
        "description": "The last message is the user's, and has text: it is the question.",
    }


def _passed_chat(model: Mapping[str, Any]) -> dict[str, Any]:
    """Say which chat requests are passed through as they are."""
    named = [{"required": [name], "properties": {name: _SOMETHING}} for name in PLAIN]
    shaped = {"required": ["response_format"], "properties": {"response_format": _other_format()}}
    about_tools = [
        {"required": ["role"], "properties": {"role": {"enum": ["tool", "function"]}}},
        {"required": ["tool_calls"], "properties": {"tool_calls": _SOMETHING}},
    ]
    message = {"type": "object", "anyOf": [*about_tools, _with_part(PLAIN_PARTS)]}
    some = {"required": ["messages"], "properties": {"messages": {"type": "array", "contains": message}}}
    return {"type": "object", "properties": model, "anyOf": [*named, shaped, some], "description": _PASSED}


def _passed_response(model: Mapping[str, Any]) -> dict[str, Any]:
    """Say which requests for a response are passed through as they are."""
    form = {"type": "object", "required": ["format"], "properties": {"format": _other_format()}}
    call = {"required": ["type"], "properties": {"type": {"enum": ["function_call", "function_call_output"]}}}
    item = {"type": "object", "anyOf": [call, _with_part(PLAIN_ITEMS)]}
    ways = [
        {"required": ["tools"], "properties": {"tools": _SOMETHING}},
        {"required": ["text"], "properties": {"text": form}},
        {"required": ["input"], "properties": {"input": {"type": "array", "contains": item}}},
    ]
    return {"type": "object", "properties": model, "anyOf": ways, "description": _PASSED}


def _with_part(kinds: Sequence[str]) -> dict[str, Any]:
    part = {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(kinds)}}}
    return {"required": ["content"], "properties": {"content": {"type": "array", "contains": part}}}


def _other_format() -> dict[str, Any]:
    kind = {"type": "string", "not": {"const": "text"}}
    return {"type": "object", "required": ["type"], "properties": {"type": kind}}


def _text() -> dict[str, Any]:
    return {"type": "string"}


_PASSED = "Passed through to an upstream as it is, without iteration; refused where the model runs in the server."

# -- paths and answers --


def _post(summary: str, bodies: Sequence[Mapping[str, Any]], answer: str | None) -> dict[str, Any]:
    body = {"required": True, "content": {JSON: {"schema": {"anyOf": list(bodies)}}}}
    shape = {"$ref": f"#/components/schemas/{answer}"} if answer else {}
    # OpenAPI 3.1 cannot say what an event is; a schema here is taken for that of the whole stream, or of each event.
    content: dict[str, Any] = {JSON: {"schema": shape}, EVENTS: {}}
    told = {"200": {"description": "the answer, whole or as events", "content": content}}
    errors = {str(status): _error(status) for status in _STATUSES}
    # What is passed through is answered with the upstream's own status.
    other = {"default": {"description": "as an upstream says it", "content": {JSON: {"schema": {}}}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": told | errors | other, "security": _KEYED}}


def _get(summary: str, responses: Mapping[str, Any], keyed: bool = False) -> dict[str, Any]:
    refused = {str(status): _error(status) for status in (401, 403)} if keyed else {}
    return {"get": {"summary": summary, "responses": {**responses, **refused}, "security": _KEYED if keyed else []}}


def _answer(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": name, "content": {JSON: {"schema": schema}}}


def _error(status: int) -> dict[str, Any]:
    return {**_answer("Error"), "description": _STATUSES[status]}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(fields), "properties": fields}


_KEYED: list[dict[str, Any]] = [{}, {"key": []}]
_WHOLE, _MAYBE = {"type": "integer", "minimum": 0}, {"type": ["string", "null"]}
_MESSAGE = _object(role={"const": "assistant"}, content=_text())
_CHOICE = _object(index=_WHOLE, message=_MESSAGE, finish_reason={"enum": ["stop", "length"]})
_USAGE = _object(prompt_tokens=_WHOLE, completion_tokens=_WHOLE, total_tokens=_WHOLE)
_USED = _object(input_tokens=_WHOLE, output_tokens=_WHOLE, total_tokens=_WHOLE)
_MODEL = _object(id=_text(), object={"const": "model"}, created=_WHOLE, owned_by=_text())
_ANSWERS: dict[str, Any] = {
    "Completion": _object(
        id=_text(),
        object={"const": "chat.completion"},
        created=_WHOLE,
        model=_text(),
        choices={"type": "array", "minItems": 1, "items": _CHOICE},
        usage=_USAGE,
        inftythink={"type": "object"},
    ),
    "Response": _object(
        id=_text(),
        object={"const": "response"},
        status={"enum": ["completed", "incomplete"]},
        output={"type": "array", "items": _object(type={"enum": ["reasoning", "message"]}, id=_text())},
        usage=_USED,
        inftythink={"type": "object"},
    ),
    "Model": _MODEL,
    "Models": _object(object={"const": "list"}, data={"type": "array", "items": _MODEL}),
    "Health": _object(status=_text(), upstreams={"type": "array", "items": {"type": "object"}}),
    "Error": _object(error=_object(message=_text(), type=_text(), param=_MAYBE, code=_MAYBE)),
}
