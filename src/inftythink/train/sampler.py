"""Where rounds are sampled: the seam, and the model of the training process behind it.

The backend has no threads, so that equal weights and seeds give equal tokens to the bit. ``backends.transformers``
decodes in a thread of its own, and which requests share a step depends on time; sums of floats then differ in their
last bits, and now and then a token. Here decoding takes turns with whoever waits for it: a step is made when all that
was told has been acted on.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from inftythink.backends.base import Backend
from inftythink.backends.transformers import Transformers, _Job, _Worker
from inftythink.errors import UsageError
from inftythink.render import Renderer

if TYPE_CHECKING:
    from inftythink.train.rl_trainer import RoundsTrainer

_SETTLED = 5
"""Rounds of the event loop in which a completion is handed out and the next request made (it takes three)."""


class Sampler(Protocol):
    """Where rounds come from. All processes call its methods, in the same order."""

    def update(self) -> None:
        """Take over the weights as they are now: called once per update that is sampled with, not once per round."""
        ...

    def backend(self) -> AbstractContextManager[Backend]:
        """Return a backend, not started yet, that has the weights of the last ``update``."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...


class InProcess:
    """Samples with the model that is trained; where FSDP2 divides it, with a whole copy in every process.

    A share alone cannot sample: a pass through it is a pass of all processes together, and these make as many steps as
    their own trajectories need. The arguments are those of ``InTurns``.

    Raises ``UsageError`` for weights that are divided in another way.
    """

    def __init__(self, trainer: RoundsTrainer, renderer: Renderer, *, max_batch: int, max_cache_tokens: int) -> None:
        self._trainer, self._renderer = trainer, renderer
        self._max_batch, self._max_cache_tokens = max_batch, max_cache_tokens
        self._copy: Any = None
        _check_division(trainer)

    def update(self) -> None:
        """Fill the copy, where there is one."""
        if self._trainer.is_fsdp_enabled:
            self._copy = _fill(self._copy, self._model(), self._trainer.args.bf16)

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """Return the backend, with the model made ready."""
        with ready(self._model() if self._copy is None else self._copy) as model:
            yield InTurns(model, self._renderer, max_batch=self._max_batch, max_cache_tokens=self._max_cache_tokens)

    def close(self) -> None:
        """Do nothing: the model is the trainer's."""

    def _model(self) -> Any:
        model = self._trainer.accelerator.unwrap_model(self._trainer.model_wrapped)
        return model.get_base_model() if hasattr(model, "get_base_model") else model


def _check_division(trainer: RoundsTrainer) -> None:
    """Refuse weights that cannot be made whole in every process here."""
    state = trainer.accelerator.state
    zero = state.deepspeed_plugin is not None and state.deepspeed_plugin.zero_stage == 3
    old = trainer.is_fsdp_enabled and state.fsdp_plugin.fsdp_version != 2
    if zero or old or (trainer.is_fsdp_enabled and hasattr(trainer.model, "get_base_model")):
        raise UsageError(
            "the weights are divided among processes, and none can sample with its share (but for FSDP2 without LoRA, "
            "where each gets a copy): launch with 'accelerate launch --multi_gpu', where every GPU holds the whole "
            "model, or let a server sample (--sampler server --base-url URL)"
        )


def _fill(whole: Any, divided: Any, bf16: bool) -> Any:
    """Copy divided weights into ``whole``, a model that is made if it is None; all processes do so together."""
    import torch
    from torch.distributed.tensor import DTensor
    from transformers import AutoModelForCausalLM

    if whole is None:
        settings = copy.deepcopy(divided.config)
        whole = AutoModelForCausalLM.from_config(
            settings, dtype=torch.bfloat16 if bf16 else divided.dtype, attn_implementation=settings._attn_implementation
        ).to(divided.device)
    with torch.no_grad():
        for (name, part), weight in zip(divided.named_parameters(), whole.parameters(), strict=True):
            assert part.shape == weight.shape, name
            weight.copy_(part.full_tensor() if isinstance(part, DTensor) else part)
    return whole


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
