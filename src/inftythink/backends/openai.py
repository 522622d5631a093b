"""Any server that speaks the OpenAI API: vLLM, SGLang, llama.cpp, and the clouds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal

from inftythink.backends._assemble import Assembler
from inftythink.backends._http import KEY_VARIABLES, Failure, Http, split_url
from inftythink.backends._pace import Pace
from inftythink.backends._retry import Retry
from inftythink.backends._sse import DONE
from inftythink.backends._wire import ENGINES, Dialect, Engine, GarbageError, Piece, Renderer, garbage
from inftythink.backends.base import Capabilities, Delta, Request, Sampling
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, ProtocolError, UsageError
from inftythink.protocol.types import Completion, Part, PartKind, Prompt, Turn

__all__ = ["OpenAI", "Renderer", "Retry"]

Mode = Literal["auto", "completions", "chat"]


class OpenAI:
    """A backend behind HTTP. What each kind of server can do, and how errors are treated: ``docs/backends.md``.

    Args:
        base_url: Where the API lies, for example ``http://localhost:8000/v1`` (``/v1`` may be left out).
        model: The model's name there; None takes the only one that the server offers.
        api_key: The key; None looks at the environment (``INFTYTHINK_API_KEY``, then ``OPENAI_API_KEY``).
        renderer: Writes prompts as token ids (or text); needed for completions.
        mode: ``completions`` sends rendered prompts, ``chat`` messages; ``auto`` completions if there is a renderer.
        engine: What runs behind the URL, when ``/v1/models`` does not show it (a proxy in between).
        max_connections: Requests in flight at most; more wait for their turn.
        timeout: The longest silence of the server in seconds.
        retry: How often, and after what waits, a request is tried again.
        extra: Fields that are put into every request as they are (``{"chat_template_kwargs": {...}}``).
        pace: How fast requests are sent, those that are tried again among them; others may share it.

    Raises:
        UsageError: The settings cannot work together.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        renderer: Renderer | None = None,
        mode: Mode = "auto",
        engine: Engine | Literal["auto"] = "auto",
        max_connections: int = 256,
        timeout: float = 600.0,
        retry: Retry | None = None,
        extra: Mapping[str, Any] | None = None,
        pace: Pace | None = None,
    ) -> None:
        if mode == "completions" and renderer is None:
            raise UsageError("mode 'completions' needs a renderer, which writes the prompt; or use mode 'chat'")
        if max_connections < 1:
            raise UsageError(f"max_connections is {max_connections}; at least 1 is needed")
        self._base_url = split_url(base_url)[0]
        self._model = model
        self._api_key = api_key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
        self._renderer = renderer
        self._completions = mode == "completions" or (mode == "auto" and renderer is not None)
        self._engine = engine
        self._max_connections = max_connections
        self._timeout = timeout
        self._retry = retry or Retry()
        self._extra = dict(extra or {})
        self._pace = pace
        self._quirks: frozenset[str] = frozenset()
        self._context: int | None = None
        self._ids_told = True
        self._dialect = Dialect("other" if engine == "auto" else engine, self._completions)
        self._http: Http | None = None
        self._slots = asyncio.Semaphore(max_connections)

    @property
    def name(self) -> str:
        """For messages: engine, model and address."""
        return f"openai ({self._dialect.engine}) {self._model or '?'} at {self._base_url}"

    @property
    def url(self) -> str:
        """Where the API lies."""
        return self._base_url

    @property
    def engine(self) -> Engine:
        """What runs behind the URL; known after ``start``."""
        return self._dialect.engine

    @property
    def model(self) -> str | None:
        """The model's name on the server; known after ``start``."""
        return self._model

    @property
    def context(self) -> int | None:
        """Tokens that fit the model's window, None when the server does not tell; known after ``start``."""
        return self._context

    @property
    def capabilities(self) -> Capabilities:
        """What this server can do in this mode; known after ``start``."""
        ids = self._dialect.takes_ids and self._ids_told
        return Capabilities(prefill=self._dialect.prefill, token_ids=ids, logprobs=self._dialect.logprobs and ids)

    async def start(self) -> None:
        """Ask the server for its models, and with completions on vLLM or SGLang for one token.

        Raises:
            BackendFatalError: Nothing listens, the key or the model is refused, or ``model`` is needed to choose.
        """
        if self._http is None:
            self._http = Http(self._base_url, self._api_key, self._timeout)
            self._slots = asyncio.Semaphore(self._max_connections)
        try:
            self._choose(await self._list())
            if self._dialect.takes_ids and not self._dialect.native:
                await self._probe()
        except BaseException:
            await self.aclose()
            raise

    async def check(self) -> None:
        """Ask whether the server still has the model. Raises ``BackendFatalError``, or ``BackendError`` for now."""
        names = [str(model["id"]) for model in await self._list()]
        if names and self._model not in names:
            raise BackendFatalError(f"{self._base_url}: no longer offers {self._model!r}, but {', '.join(names)}")

    async def _list(self) -> list[Mapping[str, Any]]:
        """Ask for the models. A server without a list will do when the caller named the model."""
        http = self._open()
        try:
            return _models(await http.get("/models"))
        except Failure as failure:
            if failure.status != 404 or self._model is None:
                raise await self._final(failure, "/models", 1) from failure
            return []
        except GarbageError as error:
            raise BackendFatalError(f"{http.url('/models')}: {error}") from None

    def _choose(self, models: list[Mapping[str, Any]]) -> None:
        """Pick the model; learn engine and context from its card."""
        names = [str(model["id"]) for model in models]
        if self._model is None:
            if len(names) != 1:
                offered = ", ".join(names) or "none"
                raise BackendFatalError(f"{self._base_url}: name the model to use; the server offers: {offered}")
            self._model = names[0]
        card = next((model for model in models if model["id"] == self._model), models[0] if models else {})
        if self._engine == "auto":
            owner = str(card.get("owned_by"))
            self._dialect = Dialect(owner if owner in ENGINES else "other", self._completions)
        context = card.get("max_model_len") or (card.get("meta") or {}).get("n_ctx")
        self._context = context if isinstance(context, int) else None

    async def _probe(self) -> None:
        """Learn whether this version of the engine tells token ids: older ones ignore the field that asks for them."""
        hello = Prompt((Turn("user", (Part(PartKind.CONTENT, "Hi"),)),))
        completion = await self.complete(Request(hello, max_tokens=1, sampling=Sampling(temperature=0.0)))
        self._ids_told = completion.token_ids is not None

    async def complete(self, request: Request) -> Completion:
        """Generate once.

        Streams where only a stream will do; a server that would not tell the stop string is left when one is complete.

        Raises:
            BackendError: The request failed for good; the text names URL, status, message and attempts.
            BackendFatalError: Every request would fail.
            ContextTooLongError: The prompt and ``max_tokens`` do not fit the model's window.
        """
        async with aclosing(self._run(request, self._dialect.must_stream(request), handed_out=False)) as items:
            async for item in items:
                if isinstance(item, Completion):
                    return item
        raise ProtocolError("a request ended without a completion")

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Generate once, piece by piece; tried again only while nothing was handed out. Raises as ``complete``."""
        async with aclosing(self._run(request, True, handed_out=True)) as items:
            async for item in items:
                yield item

    async def aclose(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _run(
        self, request: Request, streamed: bool, handed_out: bool
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Send the request until it succeeds; yield the deltas if ``handed_out``, and the completion last."""
        http, prompt, arrived, seen = self._open(), self._prompt(request), time.perf_counter(), 0
        attempt = 1
        while True:
            used = self._quirks
            try:
                async with self._slots, aclosing(self._attempt(request, prompt, streamed, arrived)) as items:
                    charged = 0 if self._pace is None else await self._pace.enter(request)
                    async for item in items:
                        if isinstance(item, Completion):
                            if self._pace is not None:
                                self._pace.settle(charged, item.prompt_tokens + item.completion_tokens)
                            yield item
                            return
                        if handed_out:
                            seen += len(item.text) + len(item.reasoning)
                            yield item
            except Failure as failure:
                if self._adapt(failure, used):
                    continue
                if seen:
                    failure.retry, failure.text = False, f"{failure.text} (after {seen} characters: not tried again)"
                if not failure.retry or attempt >= self._retry.attempts:
                    raise await self._final(failure, self._dialect.path, attempt) from failure
                wait = self._retry.wait(attempt, failure.wait)
            except GarbageError as error:
                raise BackendError(f"{http.url(self._dialect.path)}: {error}") from None
            await asyncio.sleep(wait)
            attempt += 1

    async def _attempt(
        self, request: Request, prompt: str | list[int] | None, streamed: bool, arrived: float
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Send the request once. What came before it (slots, failed attempts) counts as queueing."""
        began = time.perf_counter()
        assembler = Assembler(request, self._renderer, streamed)
        body = self._body(request, prompt, streamed)
        async with aclosing(self._open().post(self._dialect.path, body, streamed)) as objects:
            async for data in objects:
                delta = assembler.add(Piece(done=True) if data == DONE else self._dialect.read(data))
                if delta is not None:
                    yield delta
                if assembler.cut and not self._dialect.tells_stop:
                    break
        if not assembler.ended and not assembler.cut:
            raise Failure(BackendError, "the connection was closed in the middle of the stream", retry=True)
        yield assembler.finish(began - arrived, time.perf_counter() - began)

    def _open(self) -> Http:
        """The session. Raises ``ProtocolError`` outside ``start`` and ``aclose``."""
        if self._http is None:
            raise ProtocolError("the backend is not open: await start() before the first request")
        return self._http

    def _prompt(self, request: Request) -> str | list[int] | None:
        """Render the prompt; None for chat. Raises ``ContextTooLongError`` when it cannot fit."""
        if not self._dialect.completions or self._renderer is None:
            return None
        if not self._dialect.takes_ids:
            return self._renderer.text(request.prompt)
        ids = self._renderer.ids(request.prompt)
        # vLLM would quietly lower max_tokens, and the round would look as if the model had used up its limit.
        if self._context is not None and len(ids) + request.max_tokens > self._context:
            raise ContextTooLongError(
                f"{self._base_url}: {len(ids)} prompt tokens and max_tokens {request.max_tokens} do not fit the "
                f"context of {self._context}. Ask for fewer tokens, or start the server with a longer context"
            )
        return ids

    def _body(self, request: Request, prompt: str | list[int] | None, streamed: bool) -> dict[str, Any]:
        """Build the request's JSON, with what this server turned out to need."""
        body = self._dialect.body(request, self._model or "", prompt, streamed)
        if "max_tokens" in self._quirks:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if "stream_options" in self._quirks:
            body.pop("stream_options", None)
        return body | self._extra

    def _adapt(self, failure: Failure, used: frozenset[str]) -> bool:
        """Whether the server refused a field of the request that we can do without: then leave it out from now on."""
        if failure.status not in (400, 422):
            return False
        refused = {name for name in ("max_tokens", "stream_options") if name in failure.text} - used
        if "max_completion_tokens" not in failure.text:
            refused.discard("max_tokens")
        self._quirks |= refused
        return bool(refused)

    async def _final(self, failure: Failure, path: str, attempts: int) -> BackendError:
        """Build the error to raise; for an unknown model it lists the models that there are."""
        http = self._open()
        text = f"{http.url(path)}: {failure.text}"
        if failure.unknown_model and path != "/models":
            try:
                names = [str(model["id"]) for model in _models(await http.get("/models"))]
                text += f". Asked for {self._model!r}; the server offers: {', '.join(names) or 'none'}"
            except (Failure, BackendError):
                text += f". Asked for {self._model!r}; the server lists no models"
        return failure.kind(text + (f" [{attempts} attempts]" if attempts > 1 else ""))


def _models(listed: object) -> list[Mapping[str, Any]]:
    """Read the answer of ``/v1/models``. Raises ``GarbageError``."""
    cards = listed.get("data") if isinstance(listed, Mapping) else None
    if not isinstance(cards, list) or not all(isinstance(card, Mapping) and "id" in card for card in cards):
        raise garbage("the server's list of models cannot be read", listed)
    return cards
