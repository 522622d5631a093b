"""The in-process backend of training: no threads, so that equal weights and seeds give equal tokens to the bit.

``backends.transformers`` decodes in a thread of its own, and which requests share a step depends on time; sums of
floats then differ in their last bits, and now and then a token. Here decoding takes turns with whoever waits for it: a
step is made when all that was told has been acted on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inftythink.backends.transformers import Transformers, _Job, _Worker
from inftythink.render import Renderer

_SETTLED = 5
"""Rounds of the event loop in which a completion is handed out and the next request made (it takes three)."""


class InTurns(Transformers):
    """Generates with a model of this process, always the same batches in the same order.

    ``max_batch`` and ``max_cache_tokens`` are those of ``Transformers``.
    """

    def __init__(self, model: Any, renderer: Renderer, *, max_batch: int, max_cache_tokens: int) -> None:
        super().__init__(model, renderer, max_batch=max_batch, max_cache_tokens=max_cache_tokens)
        self._parts = model, renderer, max_batch, max_cache_tokens

    async def start(self) -> None:
        """Get ready. Raises ``BackendFatalError`` for a model whose rows cannot be batched."""
        if self._worker is None:
            self._worker = _Turns(*self._parts)

    async def aclose(self) -> None:
        """Give up what is still asked for. The model stays loaded."""
        worker, self._worker = self._worker, None
        if isinstance(worker, _Turns):
            worker.stop()


class _Turns(_Worker):
    """The worker, but never started: a task of the event loop makes its turns."""

    _task: asyncio.Task[None] | None = None

    def submit(self, job: _Job) -> None:
        """Add a request, and see to it that turns are made."""
        super().submit(job)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._turns())

    def stop(self) -> None:
        """Make no more turns."""
        if self._task is not None:
            self._task.cancel()
        self._batch.clear()

    async def _turns(self) -> None:
        """Make turns until nobody waits."""
        while True:
            for _ in range(_SETTLED):
                await asyncio.sleep(0)
            if self._inbox.empty() and not self._waiting and not self._running:
                return
            self.turn()


@contextmanager
def ready(model: Any) -> Iterator[Any]:
    """Make a model that is being trained ready to generate: evaluation mode, keys and values cached; then undo it."""
    training, attention, cached = model.training, model.config._attn_implementation, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        yield model
    finally:
        model.config.use_cache = cached
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
        model.train(training)
