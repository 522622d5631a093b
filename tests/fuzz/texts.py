"""Odd texts from a seed: tags, pieces of tags, white space of every kind, half characters. For tests only."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

PIECES = (
    *("<think>", "</think>", "<summary>", "</summary>", "<history>", "</history>"),
    *("<\\think>", "<\\/think>", "<\\\\/summary>", "<\\summary>", "<\\\\\\history>"),
    *("<", "</", "<t", "<th", "<thin", "</summar", "<\\", "<\\/", "\\", "/", ">", "<<", "<>", "think", "summary>"),
    *("\n", "\n\n", " ", "\t", "\r\n", "\r", "\u2028", "\x85", "\u00a0", "\ufeff", "\x00", "\x0b"),
    *(
        "a",
        "b",
        "Wait, 2<3.",
        "x > y",
        "思考",
        "🙂",
        "e\u0301",
        "\ud800",
        "\udc00",
        "<|im_end|>",
        "</thinks>",
        "[DONE]",
    ),
    *('"', "'", "{", "}", "[", "]", ":", ",", "data:", "event:", "error", "\\n", "\\u0000", "0", "-1", "null"),
)
TAGGED = PIECES[:24]


def text(rng: random.Random, most: int = 12) -> str:
    """A text of up to ``most`` pieces; mostly tags half of the time."""
    kind = rng.random()
    if kind < 0.03:  # anything at all
        most = rng.choice((128, 0x3000, 0x110000))
        return "".join(chr(rng.randrange(most)) for _ in range(rng.randrange(12)))
    pieces = "".join(rng.choices(TAGGED if kind < 0.5 else PIECES, k=rng.randrange(most)))
    if kind > 0.95 and pieces:  # a tag with one character changed
        at = rng.randrange(len(pieces))
        return pieces[:at] + rng.choice("<>/\\tks \n") + pieces[at + 1 :]
    return pieces


def cuts(rng: random.Random, length: int) -> list[int]:
    """Where to cut a text of ``length``: at each place, at a few, or nowhere."""
    kind = rng.random()
    if kind < 0.1 or length < 2:
        return list(range(1, length)) if kind < 0.08 else []
    return sorted(rng.randrange(length + 1) for _ in range(rng.randrange(1, 6)))


def pieces(whole: Any, places: list[int]) -> list[Any]:
    """A text, or bytes, cut at ``places``."""
    bounds = [0, *places, len(whole)]
    return [whole[low:high] for low, high in pairwise(bounds)]


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 1.5, -0.0, 1e308, 2**63, 10**400, float("inf"), float("nan")),
    *("", " ", "x", "\x00", "\ud800", "stop", "length", "9" * 5000, "²", "٣", "</think>"),
    *([], [[]], [None], {}, {"": None}, {"type": "text"}, {"error": {}}, {"content": []}, ["user"], [1, "a", None]),
)


def mutated(rng: random.Random, value: Any, names: tuple[str, ...] = ()) -> Any:
    """A JSON value with something odd put somewhere into it, something taken away, or renamed."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not keys or rng.random() < 0.1:
        return rng.choice(ODD) if rng.random() < 0.8 else text(rng)
    value = value.copy()
    key = rng.choice(keys)
    kind = rng.random()
    if kind < 0.15:
        del value[key]
    elif kind < 0.3:
        value[key] = rng.choice(ODD)
    elif kind < 0.4 and isinstance(value, dict):
        value[rng.choice(names or tuple(value))] = value[key]
    elif kind < 0.45 and isinstance(value, list):
        value.append(value[key])
    else:
        value[key] = mutated(rng, value[key], names)
    return value


def torn(rng: random.Random, data: bytes) -> bytes:
    """Bytes of which some are cut off, changed, doubled, or lost; or behind which zeros stand."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes(rng.randrange(1, 64))
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + 1 :]
    if kind == 3:
        return data[:at] + data[max(0, at - 40) :]
    if kind == 4:
        return data[:at] + data[at + rng.randrange(1, 40) :]
    return data + data[:at]
