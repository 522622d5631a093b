"""A model on vLLM's engine, without a server: its batching and its prefix cache, token ids in and out.

vLLM computes in processes of its own, which belong to this one: they end with it, at ``aclose`` or when it is
cancelled while it loads. Read in the sources of vLLM 0.10.2, 0.12.0, 0.16.0 and 0.32.0, run with 0.32.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import inspect
import itertools
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inftythink.backends._assemble import Assembler
from inftythink.backends._wire import Piece
from inftythink.backends.base import Capabilities, Delta, Request
from inftythink.errors import (
    BackendError,
    BackendFatalError,
    ContextTooLongError,
    InftyThinkError,
    UsageError,
    missing,
)
from inftythink.protocol.types import Completion, Stop
from inftythink.render import Renderer

CPU_CACHE = 4 * 2**30
"""Bytes of key-value cache on a CPU when nothing is said: vLLM would take nearly all memory of the machine."""

REFUSED = {
    "model": "it is named by itself",
    "skip_tokenizer_init": "the engine needs its tokenizer to find stop strings",
    "tokens_only": "the engine needs its tokenizer to find stop strings",
}
"""Engine options that cannot be, each with its reason."""

_SHUTDOWN = 30.0
"""Seconds that the engine's processes get to end by themselves."""

_ENDS = {"stop": Stop.STOP, "length": Stop.LENGTH}


class Vllm:
    """Generates with vLLM's ``AsyncLLM``. Greedy and seeded requests repeat themselves as far as vLLM's kernels do.

    ``VLLM_LOGGING_LEVEL`` in the environment says what vLLM tells of itself, on standard error; here that is errors
    only. A program that uses this class where vLLM spawns its processes (always on a CPU) needs the usual
    ``if __name__ == "__main__":``.

    Args:
        model: A folder or hub name.
        renderer: Its tokenizer; loaded from ``model`` when None.
        dtype: A number type by name; ``"auto"`` is vLLM's choice on a GPU and float32 on a CPU.
        options: Arguments of vLLM's ``AsyncEngineArgs`` by name: ``{"max_model_len": 8192}``. They win over what is
            chosen here.
    """

    def __init__(
        self,
        model: str | Path,
        renderer: Renderer | None = None,
        *,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._renderer = str(model), renderer
        self._dtype, self._options = dtype, dict(options or {})
        self._engine: Any = None
        self._numbers = itertools.count()
        self._live: set[str] = set()

    @property
    def name(self) -> str:
        """``vllm`` and the model."""
        return f"vllm {self._model}"

    @property
    def capabilities(self) -> Capabilities:
        """All."""
        return Capabilities(prefill=True, token_ids=True, logprobs=True)

    @property
    def context(self) -> int | None:
        """Tokens that fit the model's window; known after ``start``."""
        return None if self._engine is None else int(self._engine.model_config.max_model_len)

    async def start(self) -> None:
        """Load the model and start the engine's processes.

        Raises:
            MissingDependencyError: vLLM is not installed.
            UsageError: An option is none of vLLM's, or one that cannot be.
            BackendFatalError: The engine cannot be started.
        """
        if self._engine is not None:
            return
        before = multiprocessing.active_children()
        loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        try:
            engine = await asyncio.shield(loading)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and loading may take minutes: without its process it ends at once.
            while not (await asyncio.wait({loading}, timeout=0.5))[0]:
                _kill_engines(before)
            if loading.exception() is None:
                await asyncio.to_thread(_shut_down, loading.result())
            raise
        # vLLM asks its engine for this at the first request, and a request that waits for it when the engine ends would
        # wait forever.
        try:
            await engine.get_supported_tasks()
        except BaseException:  # cancelled, or dead already: nobody else knows of it yet
            await asyncio.to_thread(_shut_down, engine)
            raise
        self._engine = engine

    async def complete(self, request: Request) -> Completion:
        """Generate once.

        Raises:
            BackendError: The engine refused the request.
            BackendFatalError: The engine has died.
            ContextTooLongError: The prompt and ``max_tokens`` do not fit the model's window.
        """
        async with aclosing(self._run(request, streamed=False)) as items:
            item = await anext(items)
        assert isinstance(item, Completion)
        return item

    def stream(self, request: Request) -> AsyncGenerator[Delta | Completion, None]:
        """Generate once, piece by piece; the completion comes last. Raises as ``complete``."""
        return self._run(request, streamed=True)

    async def aclose(self) -> None:
        """End the engine's processes, with an error for whoever still waits."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        await engine.abort(list(self._live))
        if engine.output_handler is not None:
            engine.output_handler.cancel()  # it would take the end of the engine for its death
            await asyncio.gather(engine.output_handler, return_exceptions=True)
        await asyncio.to_thread(_shut_down, engine)
        await asyncio.sleep(0)  # vLLM closes its sockets on this loop

    async def reload(self, folder: Path) -> None:
        """Load other weights of the same shapes in the place of the model's, from safetensors in ``folder``.

        Raises ``BackendFatalError`` when the engine cannot.
        """
        engine = self._engine
        try:
            await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            # What was computed with the weights before is of no use.
            dropped = await engine.reset_prefix_cache()
        except Exception as error:
            raise BackendFatalError(f"{self.name}: cannot load the weights in {folder}: {error}") from error
        if dropped is False:  # vLLM before 0.12 returns nothing
            raise BackendFatalError(f"{self.name}: requests are running on the weights that were to be replaced")

    async def _run(self, request: Request, streamed: bool) -> AsyncGenerator[Delta | Completion, None]:
        """Hand a request to the engine and pass on what comes back."""
        engine, renderer = self._engine, self._renderer
        if engine is None or renderer is None:
            raise BackendError(f"{self.name} is not started; call start() first")
        began, ids = time.perf_counter(), self._ids(request, renderer)
        assembler = Assembler(request, renderer, streamed)
        number = f"inftythink-{next(self._numbers)}"
        self._live.add(number)
        try:
            drawn = engine.generate(_prompt(ids), _sampling(request, renderer.eos_ids, streamed), number)
            async with aclosing(drawn) as outputs:
                async for output in outputs:
                    delta = assembler.add(read(output, self.name))
                    if streamed and delta is not None:
                        yield delta
            completion = assembler.finish(0.0, time.perf_counter() - began)
            if self._engine is not engine and completion.stop is Stop.ABORT:
                raise BackendError(f"{self.name} was closed")
            yield completion
        except InftyThinkError:
            raise
        except Exception as error:
            raise self._told(error, engine) from error
        finally:
            self._live.discard(number)
            if not assembler.ended:
                with contextlib.suppress(Exception):  # of a dead engine; what is raised says so
                    # vLLM does not take back what is cancelled while it is handed over.
                    await engine.abort(number)

    def _ids(self, request: Request, renderer: Renderer) -> list[int]:
        """Render the prompt. Raises ``ContextTooLongError``, for vLLM would quietly lower ``max_tokens``."""
        ids, context = renderer.ids(request.prompt), self.context
        if context is not None and len(ids) + request.max_tokens > context:
            raise ContextTooLongError(
                f"the prompt has {len(ids)} tokens and {request.max_tokens} more are asked for: they do not fit the "
                f"window of {context} (engine option max_model_len)"
            )
        return ids

    def _told(self, error: Exception, engine: Any) -> BackendError:
        """Return the error to raise for one of vLLM's."""
        if self._engine is not engine:
            return BackendError(f"{self.name} was closed")
        if engine.errored:
            return BackendFatalError(f"{self.name}: the engine has died; what it said is on standard error")
        cause = error.__cause__ or error  # vLLM's EngineGenerateError says nothing itself
        return BackendError(f"{self.name}: {type(cause).__name__}: {cause}")

    def _load(self) -> Any:
        """Start the engine (in a thread: it takes long)."""
        if find_spec("vllm") is None:
            raise missing("vllm", "vllm")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        if self._renderer is None:
            self._renderer = Renderer.load(self._model)
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.async_llm import AsyncLLM

            check_options(self._options, [field.name for field in dataclasses.fields(AsyncEngineArgs)])
            arguments = engine_arguments(self._model, self._dtype, self._options, current_platform.is_cpu())
            with _apart():
                # As a server, since vLLM's defaults for it suit many requests at once.
                return AsyncLLM.from_engine_args(
                    AsyncEngineArgs(**arguments), usage_context=UsageContext.OPENAI_API_SERVER
                )
        except InftyThinkError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise BackendFatalError(f"cannot load the model {self._model!r} with vLLM: {text}") from error


def check_options(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ``UsageError`` for engine options that are none of ``known``, or that cannot be."""
    for name in options:
        if name in REFUSED:
            raise UsageError(f"engine option {name}: it cannot be set, {REFUSED[name]}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see the arguments of vllm serve, with _ for -"
            raise UsageError(f"engine option {name}: vLLM has none of this name; {hint}")


def engine_arguments(model: str, dtype: str, options: Mapping[str, Any], cpu: bool) -> dict[str, Any]:
    """Return the arguments of vLLM's ``AsyncEngineArgs``; ``options`` win over what is chosen here.

    Log-probabilities are those of the distribution that was drawn from. vLLM's default would be those at temperature 1.
    """
    chosen: dict[str, Any] = {"model": model, "dtype": dtype, "logprobs_mode": "processed_logprobs"}
    chosen |= {"disable_log_stats": True, "use_tqdm_on_load": False}
    if cpu:
        # The build for CPUs dies on a request with a seed whose prompt is processed in several chunks.
        chosen["enable_chunked_prefill"] = False
        if dtype == "auto":
            chosen["dtype"] = "float32"
        if "gpu_memory_utilization" not in options and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            chosen["kv_cache_memory_bytes"] = CPU_CACHE
    return chosen | dict(options)


def sampling_arguments(request: Request, eos_ids: Iterable[int]) -> dict[str, Any]:
    """Return the arguments of vLLM's ``SamplingParams``.

    They are spelled out where vLLM would fill gaps by itself. The end of a sequence is what the renderer says it is.
    """
    sampling = request.sampling
    return {
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": sampling.seed,
        "stop": [text for text in request.stop if text],
        "stop_token_ids": sorted(eos_ids),
        "skip_special_tokens": False,
        "logprobs": 0 if sampling.logprobs else None,
    }


def read(output: Any, who: str) -> Piece:
    """Read one of vLLM's ``RequestOutput`` s: what is new since the one before, or a whole answer.

    Raises ``BackendError`` for a log-probability that is not a number.
    """
    (new,) = output.outputs
    ids, reason = tuple(new.token_ids), new.finish_reason
    stop = None if reason is None else _ENDS.get(reason, Stop.ABORT)
    logprobs = None if new.logprobs is None else tuple(at[i].logprob for i, at in zip(ids, new.logprobs, strict=True))
    if any(map(math.isnan, logprobs or ())):
        raise BackendError(f"{who}: the model's probabilities are not finite (NaN); try another dtype")
    return Piece(
        text=new.text,
        ids=ids,
        logprobs=logprobs,
        stop=stop,
        matched=new.stop_reason if isinstance(new.stop_reason, str) else None,
        error=f"{who} ended the request with finish_reason {reason!r}" if stop is Stop.ABORT else None,
        prompt_ids=tuple(output.prompt_token_ids),
        prompt_tokens=len(output.prompt_token_ids),
        cached_tokens=output.num_cached_tokens,
    )


def _sampling(request: Request, eos_ids: Iterable[int], streamed: bool) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    kind = RequestOutputKind.DELTA if streamed else RequestOutputKind.FINAL_ONLY
    return SamplingParams(**sampling_arguments(request, eos_ids), output_kind=kind)


def _prompt(ids: list[int]) -> Any:
    """Return token ids as vLLM takes them; versions that have no ``tokens_input`` take the bare ids."""
    import vllm.inputs

    make = getattr(vllm.inputs, "tokens_input", None)
    return {"prompt_token_ids": ids} if make is None else make(ids)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, and that print to standard error.

    Ctrl-C is for this process, which ends them when it has come to its end; and its own output may be someone's data.
    """
    sys.stdout.flush()
    kept, blocked = os.dup(1), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.dup2(2, 1)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.dup2(kept, 1)
        os.close(kept)


def _kill_engines(spared: Collection[Any]) -> None:
    """Kill the engines that were started since there were only the processes ``spared``."""
    for process in multiprocessing.active_children():
        if process not in spared and process.name.startswith("EngineCore"):
            process.kill()


def _shut_down(engine: Any) -> None:
    """End an engine's processes. Newer versions of vLLM can be told how long that may take."""
    if "timeout" in inspect.signature(engine.shutdown).parameters:
        engine.shutdown(timeout=_SHUTDOWN)
    else:
        engine.shutdown()
