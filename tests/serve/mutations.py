"""Broken and strange requests from a seed: bodies, headers, paths, and clients that leave. For tests only."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from dataclasses import dataclass
from typing import Any

ASK = [{"role": "user", "content": "What is 6 * 7?"}]
BASES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", {"model": "fake", "messages": ASK, "stream": True}),
    (
        "POST",
        "/v1/chat/completions",
        {
            "messages": [{"role": "system", "content": [{"type": "text", "text": "be brief"}]}, *ASK],
            "temperature": 0.5,
            "n": 2,
            "stop": ["END"],
            "stream_options": {"include_usage": True},
            "inftythink": {"eta": 50, "max_rounds": 3, "carry": "none", "policy": {"interval": [2, 9]}},
        },
    ),
    ("POST", "/v1/chat/completions", {"messages": ASK, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("POST", "/v1/responses", {"input": ASK, "instructions": "be brief", "reasoning": {"effort": "low"}}),
    ("POST", "/v1/responses", {"input": "hi", "stream": True, "max_output_tokens": 9}),
    ("POST", "/v1/completions", {"prompt": "hi", "stream": True}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/fake", None),
    ("GET", "/openapi.json", None),
    ("GET", "/health", None),
    ("GET", "/metrics", None),
]
_NAMES = (
    "model messages input prompt stream n stop seed temperature top_p top_k max_tokens max_completion_tokens eta gamma "
    "max_output_tokens reasoning reasoning_effort reasoning_field inftythink policy interval carry max_rounds on_cut "
    "tools functions response_format text logprobs top_logprobs logit_bias stream_options include_usage role content "
    "type refusal tool_calls instructions previous_response_id background conversation effort audio metadata user x"
)
NAMES = _NAMES.split()
WORDS = ["", " ", "user", "assistant", "tool", "text", "image_url", "input_image", "refusal", "json_object", "fake"]
WORDS += ["none", "high", "both", "think-tags", "summary", "tail", "</think>", "<summary>", "\u2028", "🙂", "é" * 3000]
NUMBERS: list[Any] = [0, -1, 1, 2, 16, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, 1e-308, 3.0, True, False]
RAW = ["NaN", "-Infinity", "1e999", '"\\ud800"', '"\\udc00\\ud800"', "1" * 5000, '{"a":1,"a":[2]}', "'x'", "\x00", ""]
HEADERS = [
    b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=utf-16",
    b"Content-Type: \xff\xfe",
    b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 3",
    b"Content-Length: -1",
    b"Content-Length: 99999999999",
    b"Content-Length: 1e3",
    b"Expect: 100-continue",
    b"Host: evil.example",
    b"Host: [::1]:x:y",
    b"Host: \xe9",
    b"Authorization: Bearer \xff",
    b"Authorization: Bearer",
    b"Origin: null",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Range: bytes=0-",
    b"X-Long: " + b"x" * 20_000,
    b" folded: yes",
    b"No-Colon",
]
PATHS = ["/", "//v1/models", "/v1/models/", "/v1/models/%00", "/v1/models/%ff%fe", "/v1/models/../../etc/passwd"]
PATHS += ["/v1/chat/completions/", "/v1/chat/completions?x=%zz&y", "/v1/chat%2fcompletions", "/V1/MODELS", "/é", "*"]
PATHS += ["http://evil.example/v1/models", "/v1/models/" + "a" * 30_000, "/v1/embeddings", "/v1/models/fake#x", "x"]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "QUERY", "P\x00T"]


class Raw(str):
    """JSON, or what is none, to be sent as it stands."""


@dataclass
class Mutated:
    """What is sent, and whether the client leaves without reading."""

    data: bytes
    leaves: bool


def mutated(seed: int) -> Mutated:
    """Return the request of a seed."""
    rng = random.Random(seed)
    method, path, body = copy.deepcopy(rng.choice(BASES))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        body = _change(rng, body)
    content = b"" if body is None else _write(body).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        content = _tear(rng, content)
    path = rng.choice(PATHS) if rng.random() < 0.08 else path
    method = rng.choice(METHODS) if rng.random() < 0.08 else method
    version = rng.choice(("1.0", "2.0", "9.9", "", "1.1\x00")) if rng.random() < 0.03 else "1.1"
    lines = [f"{method} {path} HTTP/{version}".encode(), b"Host: localhost", b"Connection: close"]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(content)]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(HEADERS))
    if rng.random() < 0.05:
        del lines[rng.randrange(len(lines))]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if rng.random() < 0.03:
        head = _tear(rng, head)
    return Mutated(head + content, leaves=rng.random() < 0.1)


def _change(rng: random.Random, value: Any) -> Any:
    """Change something somewhere in a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.1:
            del value[name]
        elif kind < 0.4:
            value[rng.choice(NAMES)] = _strange(rng)
        else:
            value[name] = _change(rng, value[name])
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value * rng.choice((0, 2, 50))
        value[at] = _change(rng, value[at])
        return value
    return _strange(rng)


def _strange(rng: random.Random) -> Any:
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return Raw(rng.choice(RAW))
    if kind == 3:
        depth = rng.choice((1, 3, 100, *range(880, 1010, 5), 20_000))
        return Raw('{"a":' * depth + "1" + "}" * depth if rng.random() < 0.5 else "[" * depth + "]" * depth)
    if kind == 4:
        return [_strange(rng) for _ in range(rng.randrange(4))] if rng.random() < 0.7 else []
    if kind == 5:
        return {rng.choice(NAMES): _strange(rng) for _ in range(rng.randrange(4))} if rng.random() < 0.7 else {}
    return None


def _write(value: Any) -> str:
    """Write JSON, with what stands as it is."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_write(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(value)


def _tear(rng: random.Random, data: bytes) -> bytes:
    """Cut, repeat, or change some bytes."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(3)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + 1 :]
    return data[:at] + data[max(0, at - 50) :]


async def send(host: str, port: int, request: Mutated, patience: float) -> bytes:
    """Send a request and return the answer; nothing when the client leaves or the server waits for more."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = bytearray()
    try:
        writer.write(request.data)
        await writer.drain()
        if not request.leaves:
            while piece := await asyncio.wait_for(reader.read(65536), patience):
                answer += piece
    except (ConnectionError, asyncio.TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return bytes(answer)
