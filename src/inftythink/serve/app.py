"""The server: HTTP only. ``wire.py`` reads requests, ``drive.py`` has them answered, ``chat.py`` writes answers."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inftythink.protocol import CARRIES, make_carry
from inftythink.serve.chat import Choice, Head, report
from inftythink.serve.drive import Driver
from inftythink.serve.events import DONE, data, dump, sent
from inftythink.serve.fields import Refused
from inftythink.serve.flow import EventStream, Flow, Put
from inftythink.serve.metrics import Metrics
from inftythink.serve.passing import Answer, send_on
from inftythink.serve.pool import Gate, Pool
from inftythink.serve.responses import ResponseWriter
from inftythink.serve.schema import openapi
from inftythink.serve.told import Piece, Teller
from inftythink.serve.turns import Turns
from inftythink.serve.wire import (
    Asked,
    Offer,
    check_model,
    plain_chat,
    plain_responses,
    read_chat,
    read_response,
)

log = logging.getLogger("inftythink.serve")
T = TypeVar("T")

NEVER = 1e9
"""Seconds of silence before a comment in what must not have one."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Settings:
    """How the server behaves.

    ``keys``: those that are let in; none lets everyone in. ``local``: only requests that name this machine by a
    loopback name are answered, so that no web page can reach the server through a name of its own.
    ``slots`` trajectories run at once, ``queue`` more wait. ``keep_alive``: seconds of silence before a comment.
    ``timeout``: most seconds of a trajectory. ``stall``: seconds after which a client that does not read is given up.
    ``body_limit``: most bytes of a request. ``origins``: web pages that may call it (CORS). ``refuse`` says why a
    question cannot be asked. ``log_content``: questions and answers are logged.
    """

    keys: tuple[str, ...] = ()
    local: bool = False
    slots: int = 64
    queue: int = 256
    keep_alive: float = 10.0
    timeout: float = 3600.0
    stall: float = 60.0
    body_limit: int = 8 * 2**20
    origins: tuple[str, ...] = ()
    refuse: Callable[[str], str | None] | None = None
    log_content: bool = False


class Server:
    """The application of a pool; ``app`` is what an ASGI server runs, ``drain`` ends it in time."""

    def __init__(self, pool: Pool, offer: Offer, settings: Settings | None = None) -> None:
        self.pool, self.settings = pool, settings or Settings()
        self.metrics, self.gate = Metrics(), Gate(self.settings.slots, self.settings.queue)
        self._base, self._born = offer, int(time.time())
        self._digests = [hashlib.sha256(key.encode()).digest() for key in self.settings.keys]
        self._flows: set[Flow] = set()
        self._turns = Turns()
        self._offered: tuple[Any, Offer] = (None, offer)
        self._closing = False
        self._driver = Driver(pool, self.gate, self.metrics, self.settings.timeout, self.settings.log_content)
        routes: list[tuple[str, str, str, Callable[[Request], Awaitable[Response]], bool]] = [
            ("POST", "/v1/chat/completions", "chat", self._in_turn(self._chat), True),
            ("POST", "/v1/responses", "responses", self._in_turn(self._responses), True),
            ("POST", "/v1/completions", "completions", self._in_turn(self._completions), True),
            ("GET", "/v1/models", "models", self._models, True),
            ("GET", "/v1/models/{name:path}", "models", self._model, True),
            ("GET", "/health", "health", self._health, False),
            ("GET", "/metrics", "metrics", self._metrics, True),
            ("GET", "/openapi.json", "openapi", self._openapi, True),
        ]
        cors = Middleware(
            CORSMiddleware, allow_origins=self.settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
        self.app = Starlette(
            routes=[
                Route(path, self._endpoint(name, work, keyed), methods=[verb])
                for verb, path, name, work, keyed in routes
            ],
            middleware=[cors] if self.settings.origins else [],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, Exception: _bug},
        )
        self.app.router.redirect_slashes = False  # a redirect would repeat whatever Host the client sent

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.pool.start()
        try:
            yield
        finally:
            await self.drain(0)
            await self.pool.aclose()

    @property
    def streams(self) -> int:
        """How many answers are being made or sent."""
        return len(self._flows)

    async def drain(self, seconds: float) -> None:
        """Take nothing more; let what runs end for so long, then end it with an error of its own."""
        self._closing = True
        end = time.monotonic() + seconds
        while any(not flow.stalled for flow in self._flows) and time.monotonic() < end:
            await asyncio.sleep(0.05)
        for flow in list(self._flows):
            flow.abort(Refused(503, "the server is shutting down", code="shutting_down"))

    # -- endpoints --

    def _endpoint(
        self, name: str, work: Callable[[Request], Awaitable[Response]], keyed: bool
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return ``work`` behind the check of the key; what it refuses becomes a response."""

        async def endpoint(request: Request) -> Response:
            try:
                if keyed:
                    self._authorise(request)
                response = await work(request)
            except Refused as refused:
                headers = {"Retry-After": str(refused.retry)} if refused.retry is not None else None
                response = JSONResponse(refused.body(), refused.status, headers)
            except ClientDisconnect:
                response = Response(status_code=499)
            self.metrics.requests.labels(name, str(response.status_code)).inc()
            return response

        return endpoint

    def _in_turn(self, work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return ``work`` that waits for its turn, so that many that begin do not delay those that run."""

        async def wait(request: Request) -> Response:
            await self._turns.take()
            return await work(request)

        return wait

    def _authorise(self, request: Request) -> None:
        host = re.sub(r":\d*$", "", request.headers.get("host", ""))
        if self.settings.local and host.lower() not in LOOPBACK:
            raise Refused(403, "without a key only requests to localhost are answered", code="wrong_host")
        if not self._digests:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = hashlib.sha256((key if kind.lower() == "bearer" else "").strip().encode("utf-8", "replace")).digest()
        # Every key is compared, each in constant time: how long it takes tells nothing.
        if not sum(hmac.compare_digest(given, known) for known in self._digests):
            raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        if (why := plain_chat(body)) is not None:
            return await self._pass(request, body, "/chat/completions", why)
        asked = read_chat(body, self.offer)
        self._admit(asked)
        head = Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), self.model)
        if asked.stream:
            flow = self._flow(request, lambda put: self._stream_chat(put, asked, head), _chat_broken)
            return await self._streamed(flow)
        return await self._whole(request, lambda: self._whole_chat(asked, head))

    async def _responses(self, request: Request) -> Response:
        body = await self._body(request)
        if (why := plain_responses(body)) is not None:
            return await self._pass(request, body, "/responses", why)
        asked = read_response(body, self.offer)
        self._admit(asked)
        writer = ResponseWriter(asked, f"resp_{uuid.uuid4().hex}", int(time.time()), self.model)
        if asked.stream:
            flow = self._flow(
                request,
                lambda put: self._stream_response(put, asked, writer),
                lambda refused: _events(writer.fail(refused)),
            )
            return await self._streamed(flow)
        return await self._whole(request, lambda: self._whole_response(asked, writer))

    async def _completions(self, request: Request) -> Response:
        return await self._pass(request, await self._body(request), "/completions", "/v1/completions")

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["name"] != self.model:
            raise Refused(404, f"there is one model: {self.model!r}", code="model_not_found", param="model")
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self._born, "owned_by": "inftythink"}

    async def _health(self, request: Request) -> Response:
        there = bool(self.pool.healthy()) and not self._closing
        listed = [{"healthy": each.healthy, "running": each.running} for each in self.pool.upstreams]
        status = "ok" if there else "shutting down" if self._closing else "no upstream answers"
        return JSONResponse({"status": status, "upstreams": listed}, 200 if there else 503)

    async def _metrics(self, request: Request) -> Response:
        self.metrics.in_flight.set(self.gate.running)
        self.metrics.waiting.set(self.gate.waiting)
        for number, upstream in enumerate(self.pool.upstreams, 1):
            self.metrics.healthy.labels(str(number)).set(upstream.healthy)
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self.offer))

    # -- requests --

    @property
    def offer(self) -> Offer:
        """What requests may ask for, as far as the upstreams that were started can do it."""
        able = [each.reasoner.backend.capabilities for each in self.pool.upstreams if each.started]
        known = (self.model, able)
        if known != self._offered[0]:  # it changes when an upstream starts, and is asked for by every request
            carries = [(name, make_carry(name, self._base.policy)) for name in CARRIES]
            can = tuple(
                name
                for name, carry in carries
                if all(
                    (a.prefill or not carry.needs_prefill) and (a.token_ids or not carry.needs_token_ids) for a in able
                )
            )
            self._offered = known, dataclasses.replace(self._base, model=self.model, carries=can)
        return self._offered[1]

    @property
    def model(self) -> str:
        """The model's name for clients; without one in the settings, what an upstream calls it."""
        names = (getattr(each.reasoner.backend, "model", None) for each in self.pool.upstreams if each.started)
        return self._base.model or next((name for name in names if name), "inftythink")

    async def _body(self, request: Request) -> dict[str, Any]:
        """Read the request's JSON object. Raises ``Refused``."""
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if not kind.endswith("json"):
            raise Refused(415, "send the request as application/json")
        limit, size, chunks = self.settings.body_limit, 0, []
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise Refused(413, f"the request is larger than {limit} bytes", code="request_too_large")
            chunks.append(chunk)
        try:
            value = json.loads(b"".join(chunks), parse_constant=_no_constant)
            # Half a surrogate pair could not be sent on, and neither could 1e999, which is read as infinite.
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise Refused(400, "the request is no JSON", code="invalid_json") from None
        if not isinstance(value, dict):
            raise Refused(400, "the request is to be a JSON object", code="invalid_json")
        return value

    def _admit(self, asked: Asked) -> None:
        """Raise ``Refused`` for what cannot be answered now, or never."""
        refuse = self.settings.refuse
        if refuse is not None and (why := refuse(asked.problem.question)) is not None:
            raise Refused(400, why, code="not_answerable", param="messages")
        self._open(asked.samples)

    def _open(self, samples: int = 1) -> None:
        if self._closing:
            raise Refused(503, "the server is shutting down", code="shutting_down")
        self.pool.choose()
        self.gate.check(samples)

    # -- responses --

    def _flow(
        self,
        request: Request,
        make: Callable[[Put], Coroutine[Any, Any, None]],
        broken: Callable[[Refused], bytes],
        comments: bool = True,
    ) -> Flow:
        keep_alive = self.settings.keep_alive if comments else NEVER
        flow = Flow(request.receive, make, broken, keep_alive, self.settings.stall)
        self._flows.add(flow)
        return flow

    async def _begun(self, flow: Flow) -> bool:
        """Wait for the first of a flow; False when the client left before. Raises ``Refused``."""
        begun = False
        try:
            begun = await flow.begin()
        finally:
            if not begun:
                await flow.stop()
                self._flows.discard(flow)
        return begun

    async def _streamed(self, flow: Flow) -> Response:
        if not await self._begun(flow):
            return Response(status_code=499)
        return EventStream(flow, lambda: self._flows.discard(flow))

    async def _whole(self, request: Request, make: Callable[[], Awaitable[Mapping[str, Any]]]) -> Response:
        async def write(put: Put) -> None:
            await put(sent(dump(await make())))

        flow = self._flow(request, write, lambda refused: b"", comments=False)
        if not await self._begun(flow):
            return Response(status_code=499)
        return Response(await self._rest(flow), media_type="application/json")

    async def _rest(self, flow: Flow) -> bytes:
        """Read a flow whose only chunk was waited for."""
        try:
            return await flow.read() or b""
        finally:
            await flow.stop()
            self._flows.discard(flow)

    async def _pass(self, request: Request, body: dict[str, Any], path: str, why: str) -> Response:
        """Pass a request through to an upstream, without iteration."""
        check_model(body, self.offer)
        self._open()
        upstream, answer = self.pool.choose(), Answer()
        if upstream.url is None:
            raise Refused(400, f"{why} needs an upstream server; this model runs in the server's process", param=why)

        async def make(put: Put) -> None:
            await self.gate.enter()
            try:
                work = send_on(self.pool.session, upstream, body, path, answer, put, lambda: flow.commented)
                await asyncio.wait_for(work, self.settings.timeout)
            except asyncio.TimeoutError:
                raise Refused(504, f"not done within {self.settings.timeout:g} seconds", code="timeout") from None
            finally:
                self.gate.leave()

        flow = self._flow(request, make, _chat_broken, comments=body.get("stream") is True)
        if not await self._begun(flow):
            return Response(status_code=499)
        if answer.streamed or flow.commented:
            return EventStream(flow, lambda: self._flows.discard(flow))
        return Response(await self._rest(flow), answer.status, answer.headers, media_type="application/json")

    # -- answers --

    async def _stream_chat(self, put: Put, asked: Asked, head: Head) -> None:
        tellers: dict[int, Teller] = {}

        async def one(index: int) -> None:
            choice, role = Choice(asked, keep=False), {"role": "assistant"}

            async def sink(piece: Piece) -> None:
                nonlocal role
                if delta := choice.feed(piece):
                    delta, role = {**role, **delta}, {}
                    await put(head.event(index, delta))

            teller = tellers[index] = await self._driver.drive(asked, index, sink)
            if delta := {**role, **choice.close(teller)}:
                await put(head.event(index, delta))
            last = head.chunk(index, {}, choice.finish_reason)
            if len(tellers) == asked.samples and not asked.include_usage:
                last["inftythink"] = report([tellers[n] for n in sorted(tellers)])
            await put(data(last))

        await _together([one(index) for index in range(asked.samples)])
        if asked.include_usage:
            await put(data(head.usage_chunk([tellers[n] for n in sorted(tellers)])))
        await put(DONE)

    async def _whole_chat(self, asked: Asked, head: Head) -> dict[str, Any]:
        async def one(index: int) -> Choice:
            choice = Choice(asked, keep=True)

            async def sink(piece: Piece) -> None:
                choice.feed(piece)

            choice.close(await self._driver.drive(asked, index, sink))
            return choice

        return head.whole(await _together([one(index) for index in range(asked.samples)]))

    async def _stream_response(self, put: Put, asked: Asked, writer: ResponseWriter) -> None:
        begun = False

        async def sink(piece: Piece) -> None:
            nonlocal begun
            first = [] if begun else writer.begin()
            begun = True
            if events := [*first, *writer.feed(piece)]:
                await put(_events(events))

        teller = await self._driver.drive(asked, 0, sink)
        await put(_events([*([] if begun else writer.begin()), *writer.close(teller)]))

    async def _whole_response(self, asked: Asked, writer: ResponseWriter) -> dict[str, Any]:
        async def sink(piece: Piece) -> None:
            writer.feed(piece)

        writer.close(await self._driver.drive(asked, 0, sink))
        return writer.response


async def _together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all at once; when one fails, end the others."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chat_broken(refused: Refused) -> bytes:
    return data(refused.body()) + DONE


def _events(events: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(data(event, event["type"]) for event in events)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


async def _http_error(request: Request, error: Exception) -> Response:
    """Say in OpenAI's shape that there is no such endpoint, or not with this method."""
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.scope['path']}: {error.detail}"
    return JSONResponse(Refused(error.status_code, text).body(), error.status_code, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    return JSONResponse(Refused(500, "the server failed; this is a bug", code="internal_error").body(), 500)
