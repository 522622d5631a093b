"""Fields of requests. Each is declared once: how it is read, and how a schema says what is accepted. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LARGEST = 2**31 - 1
NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
"""JSON values that say nothing."""


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
class Field:
    """A field that may be left out, or be null.

    ``wanted`` says in words what ``schema`` says in JSON Schema, about values other than null. ``take`` returns the
    value as it is meant, and raises ``ValueError`` for another one.
    """

    name: str
    wanted: str
    schema: Mapping[str, Any]
    take: Callable[[Any], Any]

    def read(self, body: Mapping[str, Any], where: str = "") -> Any:
        """Return the field of ``body``, None when there is none. Raises ``Refused``."""
        value = body.get(self.name)
        if value is None:
            return None
        try:
            return self.take(value)
        except ValueError:
            name = where + self.name
            raise Refused(400, f"{name} is to be {self.wanted}", param=name) from None


@dataclass(frozen=True, slots=True)
class Group:
    """A field that is an object with fields of its own; if it is ``closed`` it has no others."""

    name: str
    fields: Sequence[Field | Group]
    closed: bool = True

    @property
    def schema(self) -> dict[str, Any]:
        """What objects are accepted."""
        return {"type": "object", "properties": properties(self.fields), "additionalProperties": not self.closed}

    def read(self, body: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Return the fields that are set. Raises ``Refused``."""
        value, name = body.get(self.name), where + self.name
        if value is not None and not isinstance(value, dict):
            raise Refused(400, f"{name} is to be an object", param=name)
        unknown = sorted(set(value or ()) - {field.name for field in self.fields}) if self.closed else []
        if unknown:
            raise Refused(400, f"{name}.{unknown[0][:100]} is no option of this server", param=name)
        return read(self.fields, value or {}, f"{name}.")


def read(fields: Sequence[Field | Group], body: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the fields that ``body`` sets, by name. Raises ``Refused``."""
    found = {field.name: field.read(body, where) for field in fields}
    return {name: value for name, value in found.items() if value is not None}


def properties(fields: Sequence[Field | Group]) -> dict[str, Any]:
    """Return the fields as ``properties`` of a JSON schema."""
    return {field.name: {"anyOf": [field.schema, {"type": "null"}]} for field in fields}


# -- kinds of fields --


def whole(name: str, least: int = 1, most: int = LARGEST) -> Field:
    """A whole number."""

    def take(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Field(name, f"a whole number from {least} to {most}", schema, take)


def number(name: str, least: float, most: float) -> Field:
    """A number."""

    def take(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError
        return float(value)

    schema = {"type": "number", "minimum": least, "maximum": most}
    return Field(name, f"a number from {least:g} to {most:g}", schema, take)


def flag(name: str) -> Field:
    """True or false."""

    def take(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Field(name, "true or false", {"type": "boolean"}, take)


def text(name: str) -> Field:
    """A text."""

    def take(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    return Field(name, "text", {"type": "string"}, take)


def choice(name: str, choices: Sequence[str]) -> Field:
    """One of some words."""

    def take(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return Field(name, f"one of {', '.join(choices)}", {"enum": list(choices)}, take)


def texts(name: str, most: int, longest: int) -> Field:
    """A text of any length, or up to ``most`` of up to ``longest`` characters; read as those that are not empty."""

    def take(value: Any) -> tuple[str, ...]:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or len(listed) > most or not all(isinstance(each, str) for each in listed):
            raise ValueError
        if any(len(each) > longest for each in listed):
            raise ValueError
        return tuple(each for each in listed if each)

    one = {"type": "string", "maxLength": longest}
    schema = {"anyOf": [one, {"type": "array", "maxItems": most, "items": one}]}
    return Field(name, f"a text, or up to {most} texts of up to {longest} characters", schema, take)


def interval(name: str) -> Field:
    """Two numbers of tokens."""
    one = whole(name)

    def take(value: Any) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError
        return one.take(value[0]), one.take(value[1])

    schema = {"type": "array", "minItems": 2, "maxItems": 2, "items": one.schema}
    return Field(name, "null, or two numbers of tokens", schema, take)


def absent(name: str, why: str) -> Field:
    """A field that this server cannot do anything with: only values that say nothing are accepted."""

    def take(value: Any) -> None:
        if value:
            raise ValueError

    return Field(name, f"left out: {why}", {"enum": list(NOTHING)}, take)
