"""Rounds sampled by vLLM's engine on the device that trains: no server, and no second GPU.

Every process has an engine of its own, on its own device. The weights of an update go through a folder, once; the
engine then loads them in the place of its own. TRL's colocated mode hands them over one by one inside the process; that
cannot work on a CPU, where vLLM keeps them packed, so it could not be tried here, and this could.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from inftythink.backends.base import Backend, Capabilities, Delta, Request
from inftythink.backends.vllm import Vllm
from inftythink.errors import UsageError
from inftythink.protocol import Completion
from inftythink.render import Renderer
from inftythink.train.rl_settings import RlConfig

if TYPE_CHECKING:
    from inftythink.train.rl_trainer import RoundsTrainer

T = TypeVar("T")

SHARE = 0.3
"""Of a GPU's memory, for the engine's weights and cache, when nothing is said; the rest is for training."""

_DEVICES = "CUDA_VISIBLE_DEVICES"


class Colocated:
    """Samples with an engine of this process's own, which stays loaded from step to step.

    Raises:
        MissingDependencyError: vLLM is not installed.
        UsageError: The engine cannot be given these weights, or an engine option is wrong.
        BackendFatalError: The engine cannot be started.
    """

    def __init__(self, config: RlConfig, trainer: RoundsTrainer, renderer: Renderer) -> None:
        from inftythink.train.export import number_type

        if config.lora.rank and trainer.is_fsdp_enabled:
            raise UsageError("LoRA over FSDP: its weights cannot be merged for a colocated engine; let a server sample")
        self._trainer = trainer
        self._dtype = number_type(trainer, config.model, config.lora)
        self._folder = (config.sampler.folder or config.output / "weights").resolve()
        device = trainer.accelerator.device
        own: dict[str, Any] = {"max_num_seqs": config.max_batch}
        own |= {"gpu_memory_utilization": SHARE} if device.type == "cuda" else {}
        self._engine = Vllm(
            str(config.model.path),
            renderer,
            dtype=str(self._dtype).removeprefix("torch."),
            options=own | config.sampler.engine,
        )
        self._thread = _Thread()
        with _sees_only(device.index if device.type == "cuda" else None):
            self._thread.run(self._engine.start())

    def update(self) -> None:
        """Give the engine the weights as they are now."""
        from inftythink.train.export import save_all

        save_all(self._trainer, self._folder, self._dtype)
        self._trainer.accelerator.wait_for_everyone()
        self._thread.run(self._engine.reload(self._folder))
        self._trainer.accelerator.wait_for_everyone()  # before the next update writes to the folder

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """Return the engine, as a backend that any event loop can use."""
        yield _Elsewhere(self._engine, self._thread)

    def close(self) -> None:
        """End the engine's processes."""
        self._thread.run(self._engine.aclose())
        self._thread.stop()


@contextmanager
def _sees_only(index: int | None) -> Iterator[None]:
    """Let processes that are started here see one GPU, the one with that number among those that this process sees."""
    before = os.environ.get(_DEVICES)
    if index is not None:
        os.environ[_DEVICES] = before.split(",")[index] if before else str(index)
    try:
        yield
    finally:
        if index is not None:
            os.environ.pop(_DEVICES)
            os.environ |= {} if before is None else {_DEVICES: before}


class _Thread:
    """An event loop in a thread: an engine lives on one loop, and every step of training samples on another."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inftythink-engine", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there while the loop that asks goes on; it is cancelled with whoever waits."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def stop(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Elsewhere:
    """A backend that runs on the loop of another thread, started and closed by whoever made it."""

    def __init__(self, backend: Backend, thread: _Thread) -> None:
        self._backend, self._thread = backend, thread

    @property
    def name(self) -> str:
        """Its name."""
        return self._backend.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._backend.capabilities

    async def start(self) -> None:
        """Do nothing: it runs."""

    async def aclose(self) -> None:
        """Do nothing: it goes on for the next step."""

    async def complete(self, request: Request) -> Completion:
        """Generate once; raises as the backend does."""
        return await self._thread.wait(self._backend.complete(request))

    async def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Generate once, in one piece."""
        yield await self.complete(request)
