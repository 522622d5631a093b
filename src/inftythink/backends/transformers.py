"""A model in this process, by transformers: no server, continuous batching, token ids and log-probabilities.

One worker thread owns the model. Between two decoding steps finished and cancelled rows leave the batch and waiting
requests join it, as long as there is room: no request waits for another to finish. For throughput on a GPU a server
(vLLM, SGLang) is faster; this backend is for small models, tests, and machines without one.
"""

from __future__ import annotations

import asyncio
import math
import queue
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inftythink.backends._assemble import StopCutter
from inftythink.backends.base import Capabilities, Delta, Request, Sampling
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, InftyThinkError, missing
from inftythink.protocol.types import Completion, Stop
from inftythink.render import Renderer

if TYPE_CHECKING:
    from inftythink.backends._decode import Batch, Drawn, Row

_BROKEN = "\ufffd"
_LONGEST = 32
"""Tokens held back at most while they decode to broken text: garbage, not a character that is about to be complete."""


class Transformers:
    """Generates with a ``transformers`` model in this process. Greedy and seeded requests repeat themselves.

    Args:
        model: A folder or hub name, loaded by ``start``; or a model that is loaded already.
        renderer: Its tokenizer; loaded from ``model`` when that is a name.
        device: ``"auto"`` takes a GPU when there is one.
        dtype: A torch dtype by name; ``"auto"`` is the model's own on a GPU and float32 on a CPU.
        max_batch: Most rows decoded at once.
        max_cache_tokens: Most key-value positions, over all rows, that running requests may come to need (prompt +
            ``max_tokens``). A single request may exceed it.
    """

    def __init__(
        self,
        model: str | Path | Any,
        renderer: Renderer | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 16,
        max_cache_tokens: int = 131_072,
    ) -> None:
        self._source = model
        self._renderer = renderer
        self._device, self._dtype = device, dtype
        self._max_batch, self._max_cache_tokens = max_batch, max_cache_tokens
        self._worker: _Worker | None = None

    @property
    def name(self) -> str:
        """``transformers`` and the model."""
        named = isinstance(self._source, str | Path)
        return f"transformers {self._source if named else type(self._source).__name__}"

    @property
    def capabilities(self) -> Capabilities:
        """All."""
        return Capabilities(prefill=True, token_ids=True, logprobs=True)

    async def start(self) -> None:
        """Load the model and start its thread. Raises ``BackendFatalError`` when it cannot be loaded."""
        if self._worker is not None:
            return
        model = await asyncio.to_thread(self._load)
        if self._renderer is None:
            if not isinstance(self._source, str | Path):
                raise BackendFatalError(f"{self.name}: a model that is loaded already needs its renderer")
            self._renderer = await asyncio.to_thread(Renderer.load, self._source)
        self._worker = _Worker(model, self._renderer, self._max_batch, self._max_cache_tokens)
        self._worker.start()

    async def complete(self, request: Request) -> Completion:
        """Generate once."""
        async with aclosing(self._run(request, streamed=False)) as items:
            item = await anext(items)
        assert isinstance(item, Completion)
        return item

    def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Generate once, piece by piece; the completion comes last."""
        return self._run(request, streamed=True)

    async def aclose(self) -> None:
        """Stop the thread, with an error for whoever still waits. The model stays loaded if it was handed in."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
            await asyncio.to_thread(worker.join)

    async def _run(self, request: Request, streamed: bool) -> AsyncGenerator[Delta | Completion, None]:
        """Hand a request to the worker and pass on what comes back."""
        if self._worker is None:
            raise BackendError(f"{self.name} is not started; call start() first")
        job = _Job(request, streamed, asyncio.get_running_loop())
        self._worker.submit(job)
        try:
            while True:
                item = await job.inbox.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if isinstance(item, Completion):
                    return
        finally:
            job.cancelled = True  # whatever ended this; a finished row has left already

    def _load(self) -> Any:
        """Load the model unless it is one."""
        try:
            import torch
            from transformers import AutoModelForCausalLM
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise missing("transformers", "hf") from error
        if not isinstance(self._source, str | Path):
            return self._source.eval()
        device = ("cuda" if torch.cuda.is_available() else "cpu") if self._device == "auto" else self._device
        dtype: Any = ("float32" if device == "cpu" else "auto") if self._dtype == "auto" else self._dtype
        try:
            disable_progress_bar()  # a bar for each load says nothing to the caller
            model = AutoModelForCausalLM.from_pretrained(
                str(self._source), dtype=dtype if dtype == "auto" else getattr(torch, dtype)
            )
            return model.to(device).eval()
        except Exception as error:
            raise BackendFatalError(f"cannot load the model {str(self._source)!r}: {error}") from error


@dataclass(eq=False)
class _Job:
    """A request on its way through the worker. Only the worker touches it, but for ``cancelled`` and ``inbox``."""

    request: Request
    streamed: bool
    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue[Delta | Completion | Exception] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0


_Item = Delta | Completion | Exception


class _Outbox:
    """Sends what a step made to whoever waits for it: each event loop is woken once, not once for every row."""

    def __init__(self) -> None:
        self._items: dict[asyncio.AbstractEventLoop, list[tuple[_Job, _Item]]] = {}

    def put(self, job: _Job, item: _Item) -> None:
        """Add something; ``flush`` sends it."""
        self._items.setdefault(job.loop, []).append((job, item))

    def flush(self) -> None:
        """Send everything."""
        waiting, self._items = self._items, {}
        for loop, items in waiting.items():
            try:
                loop.call_soon_threadsafe(_deliver, items)
            except RuntimeError:  # the event loop is closed: nobody waits any more
                for job, _ in items:
                    job.cancelled = True


def _deliver(items: Sequence[tuple[_Job, _Item]]) -> None:
    """Hand out, on the event loop's thread."""
    for job, item in items:
        job.inbox.put_nowait(item)


class _Answer:
    """What a row has said: tokens in, whole characters out, up to a stop string or the end.

    ``say`` decodes one token; ``show`` takes the deltas of a streamed answer.
    """

    def __init__(
        self, job: _Job, row: Row, renderer: Renderer, say: Callable[[int], str], show: Callable[[_Job, _Item], None]
    ) -> None:
        self.job, self.row = job, row
        self._renderer, self._say, self._show = renderer, say, show
        self._cutter = StopCutter(job.request.stop)
        self._pending: list[int] = []
        self._text: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[float] = []

    def take(self, token: int, logprob: float) -> Completion | None:
        """Add a token; return the completion when it was the last."""
        self._ids.append(token)
        self._logprobs.append(logprob)
        if token in self._renderer.eos_ids:
            return self._finish(Stop.STOP)
        self._pending.append(token)
        self._emit(self._ready())
        if self._cutter.matched is not None:
            return self._finish(Stop.STOP)
        return self._finish(Stop.LENGTH) if len(self._ids) >= self.job.request.max_tokens else None

    def _ready(self) -> str:
        """Return the text of the pending tokens once it ends with a whole character."""
        text = self._say(self._pending[0]) if len(self._pending) == 1 else self._renderer.decode(self._pending)
        if not text.endswith(_BROKEN):
            self._pending = []
            return text
        if len(self._pending) >= _LONGEST:
            head, tail = self._pending[:-4], self._pending[-4:]  # a character has four bytes at most
            if self._renderer.decode(head) + self._renderer.decode(tail) == text:
                self._pending = tail
                return self._renderer.decode(head)
        return ""

    def _emit(self, text: str) -> None:
        text = self._cutter.feed(text) if text else ""
        if text:
            self._text.append(text)
            if self.job.streamed:
                self._show(self.job, Delta(text))

    def _finish(self, stop: Stop) -> Completion:
        if self._cutter.matched is None and self._pending:  # the end came inside a character
            self._emit(self._renderer.decode(self._pending).rstrip(_BROKEN))
            stop = Stop.STOP if self._cutter.matched is not None else stop
        return Completion(
            text="".join(self._text),
            stop=stop,
            stop_text=self._cutter.matched,
            prompt_tokens=len(self.row.prompt_ids),
            completion_tokens=len(self._ids),
            prompt_ids=tuple(self.row.prompt_ids),
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs) if self.job.request.sampling.logprobs else None,
            queue_seconds=self.job.admitted - self.job.submitted,
            seconds=time.perf_counter() - self.job.admitted,
        )


class _Worker(threading.Thread):
    """The thread that owns the model: admits, steps, and hands out what was drawn. Outlives every request's failure."""

    def __init__(self, model: Any, renderer: Renderer, max_batch: int, max_cache_tokens: int) -> None:
        super().__init__(name="inftythink-transformers", daemon=True)
        from inftythink.backends._decode import Batch

        self._batch: Batch = Batch(model)
        self._model, self._renderer = model, renderer
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._max_batch, self._max_cache_tokens = max_batch, max_cache_tokens
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: deque[_Answer] = deque()
        self._running: dict[int, _Answer] = {}  # by id() of the row
        self._closing = threading.Event()
        self._outbox = _Outbox()
        self._say = lru_cache(maxsize=None)(lambda token: renderer.decode([token]))  # most tokens are whole characters

    def submit(self, job: _Job) -> None:
        """Add a request (any thread)."""
        self._inbox.put(job)

    def close(self) -> None:
        """Ask the thread to end after the step it is in (any thread)."""
        self._closing.set()
        self._inbox.put(None)

    def turn(self) -> None:
        """Take what came in, draw one token for every running sequence, and hand out what is new."""
        self._receive()
        self._leave(a for a in self._running.values() if a.job.cancelled)
        self._admit()
        if self._running:
            try:
                drawn = self._batch.step()
            except Exception as error:
                self._fail_running(error)
            else:
                self._hand_out(drawn)
        self._outbox.flush()

    def run(self) -> None:
        """Work until closed."""
        while not self._closing.is_set():
            self.turn()
        self._receive()
        for answer in (*self._waiting, *self._running.values()):
            self._outbox.put(answer.job, BackendError("the transformers backend was closed"))
        self._outbox.flush()
        self._batch.clear()

    def _receive(self) -> None:
        """Take in what arrived; wait for something when there is nothing to do."""
        idle = not (self._waiting or self._running or self._closing.is_set())
        while idle or not self._inbox.empty():
            job = self._inbox.get()
            idle = False
            if job is None or job.cancelled:
                continue
            try:
                row = self._row(job.request)
                self._waiting.append(_Answer(job, row, self._renderer, self._say, self._outbox.put))
            except BackendError as error:
                self._outbox.put(job, error)
            except Exception as error:
                self._outbox.put(job, _told("cannot render the prompt", error))

    def _row(self, request: Request) -> Row:
        """Check a request and render its prompt. Raises ``BackendError``."""
        from inftythink.backends._decode import Row

        _check(request.sampling, request.max_tokens)
        ids = self._renderer.ids(request.prompt)
        if not ids:
            raise BackendError("the prompt is empty")
        if self._limit is not None and len(ids) + request.max_tokens > self._limit:
            raise ContextTooLongError(
                f"the prompt has {len(ids)} tokens and {request.max_tokens} more are asked for; "
                f"the model's context window is {self._limit}"
            )
        highest = self._model.get_input_embeddings().num_embeddings
        if max(ids) >= highest or min(ids) < 0:
            raise BackendError(f"the prompt holds token {max(ids)}; the model has {highest}: not its own tokenizer?")
        return Row(ids, request.max_tokens, request.sampling, random.Random(request.sampling.seed))

    def _admit(self) -> None:
        """Let waiting requests join, first come first served, while there is room."""
        fresh: list[_Answer] = []
        reserved = [answer.row.reserved for answer in self._running.values()]
        while self._waiting and len(reserved) < self._max_batch:
            if self._waiting[0].job.cancelled:
                self._waiting.popleft()
                continue
            reserved.append(self._waiting[0].row.reserved)
            if max(reserved) * len(reserved) > self._max_cache_tokens and len(reserved) > 1:
                break
            fresh.append(self._waiting.popleft())
        if not fresh:
            return
        by_row = {id(answer.row): answer for answer in fresh}
        for rows in self._batch.groups(answer.row for answer in fresh):
            answers = {id(row): by_row[id(row)] for row in rows}
            for answer in answers.values():
                answer.job.admitted = time.perf_counter()
            try:
                drawn = self._batch.admit(rows)
            except Exception as error:
                for answer in answers.values():
                    self._outbox.put(answer.job, _told("cannot compute the prompt", error))
            else:
                self._running |= answers
                self._hand_out(drawn)
            self._outbox.flush()

    def _hand_out(self, drawn: Sequence[Drawn]) -> None:
        """Give each row its token; rows that ended leave."""
        ended: list[tuple[_Answer, Completion | BackendError]] = []
        for one in drawn:
            answer = self._running[id(one.row)]
            if math.isnan(one.logprob):
                error = BackendError("the model's probabilities are not finite (NaN); try another dtype")
                ended.append((answer, error))
                continue
            completion = answer.take(one.token, one.logprob)
            if completion is not None:
                ended.append((answer, completion))
        self._leave(answer for answer, _ in ended)
        for answer, item in ended:
            self._outbox.put(answer.job, item)

    def _leave(self, answers: Any) -> None:
        """Take rows out of the batch."""
        gone = list(answers)
        for answer in gone:
            del self._running[id(answer.row)]
        self._batch.drop(answer.row for answer in gone)

    def _fail_running(self, error: Exception) -> None:
        """A step failed: all its rows are lost, later requests are not."""
        for answer in self._running.values():
            self._outbox.put(answer.job, _told("the model failed while generating", error))
        self._running.clear()
        self._batch.clear()
        if self._model.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def _check(sampling: Sampling, max_tokens: int) -> None:
    """Refuse settings that mean nothing."""
    if max_tokens < 1:
        raise BackendError(f"max_tokens is {max_tokens}; it must be at least 1")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or sampling.top_k < 0:
        raise BackendError(
            f"cannot sample with temperature {sampling.temperature}, top_p {sampling.top_p}, top_k {sampling.top_k}: "
            "temperature and top_k are at least 0, top_p is in (0, 1]"
        )


def _told(what: str, error: Exception) -> BackendError:
    """Return an error for the request, with its cause. Own errors keep their text."""
    text = str(error) if isinstance(error, InftyThinkError) else f"{type(error).__name__}: {error}"
    told = BackendError(f"{what}: {text}")
    told.__cause__ = error
    return told
