"""A real HTTP server that speaks the OpenAI API the way the engines do, with faults on demand. For tests only.

Its "model" is a function of the prompt (``reply``), its tokenizer knows bytes and a few longer pieces, so that
characters and stop strings are split over tokens.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import hashlib
import json
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from inftythink.protocol.types import Prompt

EOS = 256
SPECIAL = {256: "<|end|>", 257: "<|system|>", 258: "<|user|>", 259: "<|assistant|>"}
ROLES = {257: "system", 258: "user", 259: "assistant"}
LONGER = ["</", "summary", ">\n", "ing ", " the", "🙂 "]
PIECES = {300 + i: text.encode() for i, text in enumerate(LONGER)}
WORDS = ["so", "we", "add", "the", "numbers", "carrying", "one,", "naïve", "推理", "🙂", "then", "</summary>\nhence"]


def encode(text: str) -> list[int]:
    """Bytes, and the longer pieces where they fit. Never a special id."""
    data, ids, at = text.encode(), [], 0
    while at < len(data):
        match = next((i for i, piece in PIECES.items() if data.startswith(piece, at)), None)
        ids.append(data[at] if match is None else match)
        at += 1 if match is None else len(PIECES[match])
    return ids


def token_bytes(token: int) -> bytes:
    if token in SPECIAL:
        return SPECIAL[token].encode()
    return PIECES[token] if token in PIECES else bytes([token])


def decode(ids: list[int]) -> str:
    return b"".join(map(token_bytes, ids)).decode("utf-8", "replace")


class ByteRenderer:
    """Renders prompts for the server below: roles are special ids, content is bytes."""

    def ids(self, prompt: Prompt) -> list[int]:
        ids: list[int] = []
        for turn in prompt.turns:
            ids.append(next(i for i, role in ROLES.items() if role == turn.role))
            for part in turn.parts:
                ids += part.ids if part.ids is not None else encode(part.text)
            ids.append(EOS)
        ids.append(259)
        for part in prompt.prefill:
            ids += part.ids if part.ids is not None else encode(part.text)
        return ids

    def text(self, prompt: Prompt) -> str:
        return decode(self.ids(prompt))

    def decode(self, ids: list[int]) -> str:
        return decode(list(ids))


def reply(user: str, seed: object = None) -> str:
    """What the model says: an echo after ``Repeat: ``, else about 60 words drawn from the prompt's hash."""
    if "Repeat: " in user:
        return user.split("Repeat: ", 1)[1]
    digest = hashlib.sha256(f"{user}|{seed}".encode()).digest()
    rng = random.Random(digest)
    return " ".join(rng.choice(WORDS) for _ in range(60)) + "."


def answer(user: str, begun: str, seed: object = None) -> str:
    """The reply, or the rest of it when the turn was begun with its beginning."""
    whole = reply(user, seed)
    return whole[len(begun) :] if whole.startswith(begun) else reply(user + begun, seed)


@dataclass
class Fault:
    """What goes wrong with one request. ``kind``: status, drop, garbage, short, reset, eof, error, stall, choice."""

    kind: str
    status: int = 500
    body: str = '{"error": {"message": "injected", "type": "server_error", "code": 500}}'
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 3
    """Chunks of a stream before the fault."""
    choice: dict[str, Any] = field(default_factory=dict)
    """Fields that replace those of the (last) choice."""


@dataclass
class Step:
    text: str
    ids: list[int]
    logprobs: list[float]


class Generation:
    """Token by token, as the engines do it: stop strings are looked for after every token, and trimmed."""

    def __init__(self, text: str, limit: int, stop: list[str], trim: bool = True, show_end: bool = False) -> None:
        self.source, self.limit, self.stop = [*encode(text), EOS], limit, stop
        self.trim, self.show_end = trim, show_end
        self.text, self.ids, self.reason, self.matched = "", [], "length", None
        self.sent = 0

    def steps(self) -> Iterator[Step]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        held = max((len(s) for s in self.stop), default=1) - 1 if self.trim else 0
        for token in self.source[: self.limit]:
            self.ids.append(token)
            if token == EOS:
                self.reason = "stop"
                self.text += SPECIAL[EOS] if self.show_end else ""
            else:
                self.text += decoder.decode(token_bytes(token))
            hit = next((s for s in self.stop if s in self.text), None)
            if hit is not None:
                self.text = self.text[: self.text.index(hit)] if self.trim else self.text
                self.reason, self.matched = "stop", hit
            over = self.reason == "stop" or len(self.ids) == self.limit
            end = len(self.text) if over else max(self.sent, len(self.text) - held)
            new, self.sent = self.text[self.sent : end], max(self.sent, end)
            yield Step(new, [token], [-0.01 * (token % 7)])
            if over:
                return


class FakeServer:
    """``async with FakeServer("vllm") as server: OpenAI(server.url)``. Flavours: vllm, sglang, llamacpp, openai.

    ``faults`` are used up one by one by POST requests, ``model_faults`` by GET /v1/models. ``open`` counts requests
    that the server is working on, ``requests`` keeps the bodies, ``reasoning`` names the field for thoughts
    (everything before ``</think>``). ``odd_stream`` writes CRLF, comments and several data lines, cut at random.
    """

    def __init__(self, flavour: str = "vllm", models: tuple[str, ...] = ("fake",), context: int | None = None) -> None:
        self.flavour, self.models, self.context = flavour, models, context
        self.faults: deque[Fault | None] = deque()
        self.model_faults: deque[Fault] = deque()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.open = self.peak = 0
        self.connections: set[Any] = set()
        self.token_seconds = 0.0
        self.reasoning: str | None = None
        self.odd_stream = False
        self.usage = True
        self.reply = answer
        self.refuse: tuple[str, ...] = ()
        """Names of fields that this server refuses with status 400, as api.openai.com does."""
        self.key: str | None = None
        self.url, self.port = "", 0

    async def __aenter__(self) -> FakeServer:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._handle)
        app.router.add_post("/v1/chat/completions", self._handle)
        if self.flavour == "llamacpp":
            app.router.add_post("/completion", self._handle)
        # Engines notice that a client is gone; so does this server.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def idle(self, seconds: float = 5.0) -> bool:
        """Wait until no request is open."""
        for _ in range(int(seconds / 0.01)):
            if not self.open:
                return True
            await asyncio.sleep(0.01)
        return False

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if self.model_faults:
            fault = self.model_faults.popleft()
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "Incorrect API key provided", "invalid_api_key")
        owner = self.flavour if self.flavour in ("vllm", "sglang", "llamacpp") else "system"
        cards = [{"id": name, "object": "model", "owned_by": owner} for name in self.models]
        if self.context and self.flavour == "vllm":
            cards = [card | {"max_model_len": self.context} for card in cards]
        return web.json_response({"object": "list", "data": cards})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.peak = max(self.peak, self.open)
        self.connections.add(request.transport)
        try:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.paths.append(request.path)
            fault = self.faults.popleft() if self.faults else None
            refused = self._refusal(request, body, fault)
            return refused if refused is not None else await self._generate(request, body, fault)
        finally:
            self.open -= 1

    def _refusal(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.Response | None:
        """An error instead of an answer."""
        if fault is not None and fault.kind == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault is not None and fault.kind == "status":
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        if fault is not None and fault.kind == "garbage":
            return web.Response(text=fault.body, content_type="text/html")
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "Incorrect API key provided", "invalid_api_key")
        if body.get("model") not in self.models:
            return _error(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")
        for name in self.refuse:
            if name in body:
                hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
                return _error(
                    400, f"Unsupported parameter: '{name}' is not supported with this model.{hint}", "unsupported"
                )
        return None

    def _conversation(self, path: str, body: dict[str, Any]) -> tuple[str, str, int]:
        """Return the last user text, the begun assistant text, and the prompt's length in tokens."""
        if path.endswith("chat/completions"):
            turns = [(message["role"], message["content"]) for message in body["messages"]]
            continued = body.get("continue_final_message") or self.flavour == "llamacpp"
            begun = turns.pop()[1] if turns[-1][0] == "assistant" and continued else ""
            length = sum(len(encode(text)) + 2 for _, text in turns) + len(encode(begun))
        else:
            prompt = body["prompt"]
            if isinstance(prompt, list) and self.flavour == "openai":
                raise web.HTTPBadRequest(text='{"error": {"message": "prompt must be a string"}}')
            ids = prompt if isinstance(prompt, list) else _parse(prompt)
            turns, current = [], []
            for token in ids:
                if token in ROLES:
                    current = []
                    turns.append((ROLES[token], current))
                elif token != EOS:
                    current.append(token)
            turns = [(role, decode(list(part))) for role, part in turns]
            begun, length = turns.pop()[1], len(ids)
        return "\n".join(text for role, text in turns if role == "user"), begun, length

    async def _generate(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        user, begun, length = self._conversation(request.path, body)
        seed = body.get("seed") if body.get("temperature") else None
        limit = body.get("n_predict", body.get("max_completion_tokens", body.get("max_tokens", 16)))
        if self.context and length >= self.context:
            return _error(400, *_too_long(self.flavour, length, self.context))
        # SGLang leaves the stop string, the rest of its token and the end token in the text when it is asked to.
        trim = not body.get("no_stop_trim")
        show_end = not trim and body.get("skip_special_tokens") is False
        generation = Generation(self.reply(user, begun, seed), limit, body.get("stop") or [], trim, show_end)
        dialect = _Native() if request.path == "/completion" else _Wire(self, request.path, body)
        dialect.prompt_tokens, dialect.prompt_ids = length, body.get("prompt")
        if body.get("stream"):
            return await self._stream(request, generation, dialect, fault)
        steps = []
        for step in generation.steps():
            steps.append(step)
            if self.token_seconds:
                await asyncio.sleep(self.token_seconds)
        if fault is not None and fault.kind == "stall":
            await asyncio.sleep(3600)
        data = dialect.whole(generation, steps)
        if fault is not None and fault.kind == "choice":
            _replace(data["choices"][0], fault.choice)
        if fault is not None and fault.kind == "short":
            return await self._short(request, json.dumps(data).encode())
        return web.json_response(data)

    async def _short(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        """Break off in the middle of a whole answer."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(raw[: len(raw) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _stream(
        self, request: web.Request, generation: Generation, dialect: _Wire | _Native, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        rng, count = random.Random(0), 0
        async for data in self._chunks(generation, dialect):
            if fault is not None and count == fault.after:
                if fault.kind == "stall":
                    await asyncio.sleep(3600)
                if fault.kind == "reset":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if fault.kind == "eof":
                    return response
                if fault.kind == "error":
                    await response.write(f"data: {fault.body}\n\n".encode())
                    return response
            if fault is not None and fault.kind == "choice":
                for choice in data.get("choices", []):
                    _replace(choice, fault.choice if choice["finish_reason"] else {})
            count += 1
            raw = _event(data, self.odd_stream)
            while raw:
                size = rng.randint(1, 9) if self.odd_stream else len(raw)
                await response.write(raw[:size])
                raw = raw[size:]
        if dialect.says_done:
            await response.write(b"data: [DONE]\r\n\r\n" if self.odd_stream else b"data: [DONE]\n\n")
        return response

    async def _chunks(self, generation: Generation, dialect: _Wire | _Native) -> AsyncIterator[dict[str, Any]]:
        for step in generation.steps():
            for data in dialect.chunk(generation, step):
                yield data
            if self.token_seconds:
                await asyncio.sleep(self.token_seconds)
        for data in dialect.last(generation):
            yield data


class _Wire:
    """The OpenAI layout, with vLLM's own fields where the server is one."""

    says_done = True

    def __init__(self, server: FakeServer, path: str, body: dict[str, Any]) -> None:
        self.server, self.body = server, body
        self.chat = path.endswith("chat/completions")
        self.ids = server.flavour in ("vllm", "sglang") and bool(body.get("return_token_ids"))
        self.prompt_tokens, self.prompt_ids = 0, None
        self.first, self.thought, self.waiting = True, True, ""

    def _choice(self, generation: Generation, text: str, over: bool, delta: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": generation.reason if over else None}
        if self.server.flavour == "vllm":
            choice["stop_reason"] = generation.matched if over else None
        if self.server.flavour == "sglang":
            ended = EOS if generation.reason == "stop" else None
            choice["matched_stop"] = (generation.matched or ended) if over else None
        if not self.chat:
            return choice | {"text": text}
        name = self.server.reasoning
        if name is None:
            return choice | {"delta" if delta else "message": {"role": "assistant", "content": text}}
        if not delta:
            thought, closed, rest = text.partition("</think>")
            return choice | {"message": {"role": "assistant", "content": rest if closed else None, name: thought}}
        return choice | {"delta": self._split(text, over, name)}

    def _split(self, text: str, over: bool, name: str) -> dict[str, Any]:
        """A reasoning parser: the thought goes to a field of its own until its closing tag."""
        if not self.thought:
            return {"content": text}
        self.waiting += text
        before, closed, rest = self.waiting.partition("</think>")
        if closed:
            self.thought, self.waiting = False, ""
            return {name: before, "content": rest}
        keep = 0 if over else min(len("</think>") - 1, len(before))
        out, self.waiting = before[: len(before) - keep], before[len(before) - keep :]
        return {name: out, "content": None}

    def _extras(self, choice: dict[str, Any], ids: list[int], logprobs: list[float]) -> None:
        if self.ids:
            choice["token_ids"] = ids
            if self.first and isinstance(self.prompt_ids, list):
                choice["prompt_token_ids"] = self.prompt_ids
        if self.body.get("logprobs") is not None and not self.chat:
            choice["logprobs"] = {"token_logprobs": logprobs, "tokens": [decode([i]) for i in ids]}
        self.first = False

    def _usage(self, generation: Generation) -> dict[str, Any]:
        usage: dict[str, Any] = {"prompt_tokens": self.prompt_tokens, "completion_tokens": len(generation.ids)}
        if self.server.flavour == "vllm":
            usage["prompt_tokens_details"] = {"cached_tokens": self.prompt_tokens // 2}
        return usage

    def whole(self, generation: Generation, steps: list[Step]) -> dict[str, Any]:
        choice = self._choice(generation, generation.text, True, False)
        self._extras(choice, generation.ids, [p for step in steps for p in step.logprobs])
        data: dict[str, Any] = {"id": "x", "choices": [choice]}
        return data | {"usage": self._usage(generation)} if self.server.usage else data

    def chunk(self, generation: Generation, step: Step) -> list[dict[str, Any]]:
        over = generation.reason == "stop" or len(generation.ids) == generation.limit
        choice = self._choice(generation, step.text, over, True)
        self._extras(choice, step.ids, step.logprobs)
        return [{"id": "x", "choices": [choice]}]

    def last(self, generation: Generation) -> list[dict[str, Any]]:
        asked = (self.body.get("stream_options") or {}).get("include_usage")
        return [{"id": "x", "choices": [], "usage": self._usage(generation)}] if asked and self.server.usage else []


class _Native:
    """llama.cpp's ``/completion``: a stream skips the ids of tokens that end inside a character."""

    says_done = False

    def __init__(self) -> None:
        self.prompt_tokens, self.prompt_ids = 0, None

    def _final(self, generation: Generation, text: str, ids: list[int]) -> dict[str, Any]:
        kind = "limit" if generation.reason == "length" else "word" if generation.matched else "eos"
        return {
            "content": text,
            "tokens": ids,
            "stop": True,
            "stop_type": kind,
            "stopping_word": generation.matched or "",
            "tokens_predicted": len(generation.ids),
            "tokens_evaluated": self.prompt_tokens,
            "timings": {"cache_n": self.prompt_tokens // 2},
        }

    def whole(self, generation: Generation, steps: list[Step]) -> dict[str, Any]:
        return self._final(generation, generation.text, generation.ids)

    def chunk(self, generation: Generation, step: Step) -> list[dict[str, Any]]:
        inside = not step.text and step.ids[0] > 127 and step.ids[0] < 256
        return [] if inside else [{"content": step.text, "tokens": step.ids, "stop": False}]

    def last(self, generation: Generation) -> list[dict[str, Any]]:
        return [self._final(generation, "", [])]


def _replace(choice: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        choice[name] = choice[name] | value if isinstance(value, dict) and isinstance(choice.get(name), dict) else value


def _event(data: dict[str, Any], odd: bool) -> bytes:
    if not odd:
        return f"data: {json.dumps(data)}\n\n".encode()
    lines = json.dumps(data, indent=1, ensure_ascii=False).split("\n")
    return (": keep-alive\r\n\r\n" + "".join(f"data: {line}\r\n" for line in lines) + "id: 7\r\n\r\n").encode()


def _parse(text: str) -> list[int]:
    """A text prompt: special tokens' texts become their ids."""
    ids: list[int] = []
    while text:
        found = [(text.index(special), token) for token, special in SPECIAL.items() if special in text]
        at, token = min(found, default=(len(text), -1))
        ids += encode(text[:at])
        if token < 0:
            break
        ids.append(token)
        text = text[at + len(SPECIAL[token]) :]
    return ids


def _error(status: int, message: str, code: str | int) -> web.Response:
    return web.json_response(
        {"error": {"message": message, "type": "invalid_request_error", "code": code}}, status=status
    )


def _too_long(flavour: str, length: int, context: int) -> tuple[str, str | int]:
    if flavour == "llamacpp":
        text = f"request ({length} tokens) exceeds the available context size ({context} tokens), try increasing it"
        return text, "exceed_context_size_error"
    text = (
        f"This model's maximum context length is {context} tokens. However, your prompt contains {length} input tokens"
    )
    return text, 400 if flavour == "vllm" else "context_length_exceeded"


@contextlib.contextmanager
def in_thread(server: FakeServer) -> Iterator[FakeServer]:
    """Run the server on a loop of its own thread: for code under test that starts its own event loop."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def main() -> None:
        async with server:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
