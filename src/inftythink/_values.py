"""Reads one setting's value as its declared type: from YAML (already typed) or from the command line (text).

The mechanism of ``config.py``; nothing else imports it. Which types there are is told there.
"""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

COUNT = "count of tokens"
"""Marks ``Count`` inside ``Annotated``."""

_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}
_COUNT = re.compile(r"(\d[\d_]*)([km]?)", re.IGNORECASE)
_YES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Mismatch(Exception):
    """A value is not what its type asks for; ``config.py`` turns it into a ``UsageError`` with key and place."""


def read(value: Any, kind: Any, text: bool = False) -> Any:
    """Return ``value`` as ``kind``; with ``text`` strings are read as a command line means them.

    Raises ``Mismatch`` when it cannot be.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _count(value) if COUNT in args[1:] else read(value, args[0], text)
    if origin in (Union, types.UnionType):
        return _union(value, args, text)
    if origin is Literal:
        return _choice(value, {choice: choice for choice in args}, text)
    if origin is tuple:
        return _tuple(value, args, text)
    if origin is dict:
        return _dict(value, args[1], text)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else _choice(value, {member.value: member for member in kind}, text)
    readers = {bool: _bool, int: _int, float: _float, str: _str, Path: _path}
    if kind not in readers:
        raise TypeError(f"a setting cannot have the type {kind!r}; see the list in inftythink/config.py")
    return readers[kind](value, text)


def type_name(kind: Any) -> str:
    """Say in words what ``kind`` accepts."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return "a count (a whole number, or 4k = 4096, 1m = 1048576)" if COUNT in args[1:] else type_name(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join("null" if arg is types.NoneType else type_name(arg) for arg in args)
    if origin is tuple:
        names = [type_name(arg) for arg in args if arg is not ...]
        return f"a list, each {names[0]}" if args[-1] is ... else f"a list of {len(names)}: {', '.join(names)}"
    if origin is dict:
        return f"a mapping of names, each to {type_name(args[1])}"
    if choices := choices_of(kind):
        return "one of " + ", ".join(choices)
    names_of = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names_of.get(kind, str(kind))


def choices_of(kind: Any) -> list[str]:
    """The values, as text, of a ``Literal`` or an ``Enum`` (inside ``X | None`` or a tuple too), else none."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [str(arg) for arg in args]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [str(member.value) for member in kind]
    if origin in (Union, types.UnionType, tuple):
        inner = [arg for arg in args if arg not in (types.NoneType, ...)]
        return choices_of(inner[0]) if len(inner) == 1 else []
    return []


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``; any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [arg for arg in get_args(kind) if arg is not types.NoneType]
        return inner[0] if len(inner) == 1 else kind
    return kind


def plain(value: Any) -> Any:
    """Return a setting's value as JSON and YAML hold it."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _COUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise Mismatch
    return int(match[1].replace("_", "")) * _UNITS[match[2].lower()]


def _union(value: Any, kinds: tuple[Any, ...], text: bool) -> Any:
    if types.NoneType in kinds and (value is None or (text and value == "null")):
        return None
    # A string fits every text, so it is tried last.
    for kind in sorted((kind for kind in kinds if kind is not types.NoneType), key=lambda kind: kind is str):
        try:
            return read(value, kind, text)
        except Mismatch:
            continue
    raise Mismatch


def _choice(value: Any, choices: dict[Any, Any], text: bool) -> Any:
    for key, choice in choices.items():
        if (type(value) is type(key) and value == key) or (text and value == str(key)):
            return choice
    raise Mismatch


def _tuple(value: Any, kinds: tuple[Any, ...], text: bool) -> tuple[Any, ...]:
    open_ended = kinds[-1] is ...
    if text and isinstance(value, str):
        if value.lstrip().startswith("["):
            value, text = _yaml(value), False
        else:
            # A comma may belong to one text of a list; a list of fixed length has no other way to be told.
            value = [value] if open_ended else value.split(",")
    if not isinstance(value, list | tuple) or not (open_ended or len(value) == len(kinds)):
        raise Mismatch
    return tuple(read(item, kinds[0] if open_ended else kinds[i], text) for i, item in enumerate(value))


def _dict(value: Any, kind: Any, text: bool) -> dict[str, Any]:
    if text and isinstance(value, str):
        if value.lstrip().startswith("{"):
            value, text = _yaml(value), False
        else:
            value = [value]
    if text and isinstance(value, list):
        if not all("=" in item for item in value):
            raise Mismatch
        value = dict(item.split("=", 1) for item in value)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Mismatch
    return {key: read(item, kind, text) for key, item in value.items()}


def _bool(value: Any, text: bool) -> bool:
    if text and isinstance(value, str):
        value = _YES.get(value.lower())
    if not isinstance(value, bool):
        raise Mismatch
    return value


def _int(value: Any, text: bool) -> int:
    if text and isinstance(value, str) and re.fullmatch(r"[+-]?\d[\d_]*", value.strip()):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Mismatch
    return value


def _float(value: Any, text: bool) -> float:
    # YAML 1.1 reads 1e-5 as text, so text that is a number counts as one there too.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Mismatch
    try:
        return float(value)
    except ValueError:
        raise Mismatch from None


def _str(value: Any, text: bool) -> str:
    if not isinstance(value, str):
        raise Mismatch
    return value


def _path(value: Any, text: bool) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise Mismatch
    return Path(value)


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise Mismatch from None
