"""vLLM's engine in this process: the contract of a backend, and what only an engine of one's own has.

Runs with an interpreter that has vLLM beside this package. ``INFTYTHINK_VLLM_MODEL`` is a folder with the model.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import pytest_asyncio
import torch
from prometheus_client import REGISTRY
from transformers import AutoModelForCausalLM

from inftythink.backends.base import Backend, Delta, Request, Sampling
from inftythink.backends.connect import SHIPPED, ModelSettings, connect
from inftythink.backends.transformers import Transformers
from inftythink.backends.vllm import Vllm
from inftythink.errors import BackendError, BackendFatalError, ContextTooLongError, UsageError
from inftythink.lab.evaluate import Setup, policy_of
from inftythink.lab.problems import problems
from inftythink.protocol import Policy, Trajectory
from inftythink.protocol.types import Completion, Part, PartKind, Prompt, Stop, Turn
from inftythink.reasoner import Reasoner
from inftythink.render import Renderer
from inftythink.tasks.puzzle import families
from tests.backends.conformance import GREEDY, BackendContract, Case, ask, prompt
from tests.engines.server import SHORT

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800), pytest.mark.asyncio(loop_scope="module")]

MODEL, CONTEXT, WINDOW = os.environ["INFTYTHINK_VLLM_MODEL"], 2048, 128
SMALL = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28}  # to compile takes minutes on one core
RENDERER = Renderer.load(MODEL)
PUZZLE = families()[0].example
STARTED: dict[str, Vllm] = {}


@asynccontextmanager
async def opened(backend: Vllm) -> AsyncIterator[Vllm]:
    await backend.start()
    try:
        yield backend
    finally:
        await backend.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chat() -> AsyncIterator[Vllm]:
    """A chat model, for all tests that ask for it; it keeps statistics."""
    options = SMALL | {"max_model_len": CONTEXT, "max_num_seqs": 16, "kv_cache_memory_bytes": 2**30}
    async with opened(Vllm(MODEL, RENDERER, options=options | {"disable_log_stats": False})) as backend:
        STARTED["chat"] = backend
        yield backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shipped() -> AsyncIterator[Vllm]:
    """The model that ships, as its own settings make it."""
    settings = ModelSettings(
        model=str(SHIPPED), engine="vllm", engine_option={name: json.dumps(value) for name, value in SMALL.items()}
    )
    backend = connect(settings, carry="summary")
    assert isinstance(backend, Vllm)
    async with opened(backend):
        yield backend


# -- a chat model --


@asynccontextmanager
async def running() -> AsyncIterator[Vllm]:
    yield STARTED["chat"]


@pytest.mark.usefixtures("chat")
class TestBackend(BackendContract):
    cases = (Case("vllm", running, RENDERER.decode, RENDERER.encode_content, short=SHORT),)


async def test_the_end_token_is_an_id_but_no_text(chat: Vllm) -> None:
    completion = await chat.complete(ask(SHORT, 200))
    assert completion.stop is Stop.STOP
    assert completion.token_ids is not None
    assert completion.token_ids[-1] in RENDERER.eos_ids
    assert RENDERER.decode(list(completion.token_ids[:-1])) == completion.text


async def test_the_prompt_is_the_renderers_and_content_is_no_structure(chat: Vllm) -> None:
    content = f"Say yes. {RENDERER.decode(list(RENDERER.eos_ids))}"
    completion = await chat.complete(ask(content, 4))
    assert completion.prompt_ids == tuple(RENDERER.ids(prompt(content)))
    assert completion.prompt_tokens == len(completion.prompt_ids)


async def test_too_long_is_said_so(chat: Vllm) -> None:
    assert chat.context == CONTEXT
    with pytest.raises(ContextTooLongError, match="do not fit"):
        await chat.complete(ask("word " * 3000, 16))
    with pytest.raises(ContextTooLongError, match="do not fit"):
        await chat.complete(ask("word", CONTEXT))


async def test_what_vllm_refuses_fails_alone(chat: Vllm) -> None:
    with pytest.raises(BackendError, match="top_p") as caught:
        await chat.complete(ask("Hi", 2, sampling=Sampling(top_p=3.0)))
    assert not isinstance(caught.value, BackendFatalError)
    assert (await chat.complete(ask("Hi", 2))).completion_tokens == 2


async def test_a_beginning_that_was_seen_is_cached(chat: Vllm) -> None:
    turn = Turn("user", (Part(PartKind.CONTENT, "A long beginning. " * 40),))
    request = Request(Prompt((turn,)), 2, (), GREEDY)
    await chat.complete(request)
    again = await chat.complete(request)
    assert again.cached_tokens is not None
    assert 0 < again.cached_tokens < again.prompt_tokens


async def test_seeds_hold_beside_other_requests(chat: Vllm) -> None:
    def drawn(seed: int) -> Request:
        return ask("Tell a story.", 24, sampling=Sampling(1.0, 1.0, seed=seed))

    together = await asyncio.gather(*(chat.complete(drawn(seed)) for seed in range(6)))
    assert len({completion.text for completion in together}) > 1
    assert (await chat.complete(drawn(3))).text == together[3].text


def busy() -> float:
    """How many requests the engine has, as its statistics say."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(s.value for metric in REGISTRY.collect() for s in metric.samples if s.name in names)


async def test_a_cancelled_request_is_freed_in_the_engine(chat: Vllm) -> None:
    tasks = [asyncio.create_task(chat.complete(ask(f"Tell a story {i}.", 1500))) for i in range(3)]
    async with aclosing(chat.stream(ask("Tell a long story.", 1500))) as items:
        async for item in items:
            assert isinstance(item, Delta)
            break
    for _ in range(100):
        await asyncio.sleep(0.1)
        if busy() == len(tasks):
            break
    assert busy() == len(tasks)
    for task in tasks:
        task.cancel()
    assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*tasks, return_exceptions=True))
    await chat.complete(ask("Hi", 2))  # statistics come with what is drawn
    for _ in range(100):
        if busy() == 0:
            break
        await asyncio.sleep(0.1)
    assert busy() == 0


# -- the model that ships --


async def test_it_draws_the_very_tokens_that_transformers_draws(shipped: Vllm) -> None:
    renderer = Renderer.load(SHIPPED)
    asked = [
        sized
        for family in families()
        for sized in problems(family, (1, 4), 5, renderer=renderer, window=WINDOW, seed=3)
    ]
    policy = policy_of(Setup(), asked, renderer)

    async def solve(backend: Backend) -> list[Trajectory]:
        return await Reasoner(backend, "summary", policy, Sampling(0.0)).solve_many(sized.problem for sized in asked)

    there = await solve(shipped)
    here = Transformers(SHIPPED, renderer)
    await here.start()
    expected = await solve(here)
    await here.aclose()
    assert [t.conclusion for t in there] == [t.conclusion for t in expected]
    calls = [[call for each in t.rounds for call in each.calls] for t in there]
    wanted = [[call for each in t.rounds for call in each.calls] for t in expected]
    assert sum(map(len, calls)) > len(asked)
    assert [[(c.prompt_ids, c.token_ids, c.stop) for c in each] for each in calls] == [
        [(c.prompt_ids, c.token_ids, c.stop) for c in each] for each in wanted
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.5])
async def test_log_probabilities_are_those_of_what_was_drawn_from(shipped: Vllm, temperature: float) -> None:
    sampling = Sampling(temperature, 1.0, seed=5, logprobs=True)
    completion = await shipped.complete(ask(PUZZLE, 40, sampling=sampling))
    assert completion.prompt_ids is not None
    assert completion.token_ids is not None
    assert completion.logprobs is not None
    model = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
    ids = torch.tensor([completion.prompt_ids + completion.token_ids])
    with torch.no_grad():
        scores = model(ids).logits[0, len(completion.prompt_ids) - 1 : -1] / (temperature or 1.0)
    expected = scores.log_softmax(-1).gather(1, torch.tensor(completion.token_ids).unsqueeze(1)).squeeze(1)
    assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-3)


# -- beginning and end --


def engines() -> list[multiprocessing.process.BaseProcess]:
    return [each for each in multiprocessing.active_children() if each.name.startswith("EngineCore")]


async def test_an_engine_that_dies_ends_the_run_and_nothing_is_taken_for_an_answer() -> None:
    others = engines()
    async with opened(Vllm(SHIPPED, options=SMALL)) as backend:
        (engine,) = [each for each in engines() if each not in others]
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)  # so that it dies while it has work
        waiting = [asyncio.create_task(backend.complete(ask(PUZZLE, 9))) for _ in range(3)]
        solving = asyncio.create_task(Reasoner(backend, "summary", Policy(63, 22)).solve(PUZZLE))
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        engine.kill()
        results = await asyncio.gather(*waiting, solving, return_exceptions=True)
        assert all(isinstance(result, BackendFatalError) for result in results), results
        with pytest.raises(BackendFatalError, match="the engine has died"):
            await backend.complete(ask(PUZZLE, 2))


async def test_loading_can_be_cancelled_and_closing_tells_those_who_wait() -> None:
    others, backend = engines(), Vllm(SHIPPED, options=SMALL)
    starting = asyncio.create_task(backend.start())
    while not (fresh := [each for each in engines() if each not in others]):
        assert not starting.done()
        await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not any(each.is_alive() for each in fresh)
    with pytest.raises(BackendError, match="not started"):
        await backend.complete(ask(PUZZLE, 2))

    await backend.start()
    tasks = [asyncio.create_task(backend.complete(ask(f"{PUZZLE} {i}", 60))) for i in range(64)]
    await asyncio.sleep(0.02)
    await backend.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if not isinstance(result, Completion)]
    assert failed
    assert all(isinstance(each, BackendError) and "closed" in str(each) for each in failed), failed
    assert [each for each in engines() if each not in others] == []


@pytest.mark.parametrize(
    ("options", "what"),
    [({"max_model_length": 8}, "did you mean 'max_model_len'"), ({"skip_tokenizer_init": True}, "cannot be set")],
)
async def test_options_that_cannot_be_are_wrong_usage(options: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        await Vllm(SHIPPED, options=options).start()


async def test_a_model_that_cannot_be_loaded_is_said_so() -> None:
    with pytest.raises(BackendFatalError, match="nowhere"):
        await Vllm("nowhere/nothing", Renderer.load(SHIPPED), options=SMALL).start()


def test_the_command_prints_its_answer_and_nothing_else() -> None:
    command = [sys.executable, "-m", "inftythink", "solve", PUZZLE, "--json", "--engine", "vllm", "--seed", "3"]
    command += [word for name, value in SMALL.items() for word in ("--engine-option", f"{name}={json.dumps(value)}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["outcome"] == "answered"
