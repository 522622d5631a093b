"""The model that ships, on a real vLLM server: the same rounds and the same answers as in this process.

``INFTYTHINK_VLLM_PYTHON`` is an interpreter that has vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from inftythink.backends.base import Sampling
from inftythink.backends.connect import SHIPPED
from inftythink.backends.openai import OpenAI
from inftythink.backends.transformers import Transformers
from inftythink.lab.evaluate import Setup, policy_of
from inftythink.lab.problems import problems
from inftythink.protocol import Trajectory
from inftythink.reasoner import Reasoner
from inftythink.tasks.puzzle import families, grade
from tests.engines.server import Server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("running")]

WINDOW = 128
SERVER = Server(str(SHIPPED))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The server, for all tests here."""
    if "INFTYTHINK_VLLM_PYTHON" not in os.environ:
        pytest.fail("these tests start a server of the model that ships: set INFTYTHINK_VLLM_PYTHON")
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    command = [os.environ["INFTYTHINK_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", SERVER.model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(WINDOW), "--max-num-seqs", "16", "--enforce-eager"]
    command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "1024"]
    with SERVER.started(command, port, log, {"VLLM_CPU_KVCACHE_SPACE": "1"}):
        yield


async def test_it_gives_the_same_answers_as_in_this_process() -> None:
    renderer = SERVER.renderer
    asked = [
        sized
        for family in families()
        for sized in problems(family, (1, 4), 5, renderer=renderer, window=WINDOW, seed=3)
    ]
    policy = policy_of(Setup(), asked, renderer)

    async def solve(backend: OpenAI | Transformers) -> list[Trajectory]:
        async with Reasoner(backend, "summary", policy, Sampling(0.0)) as reasoner:
            return await reasoner.solve_many(sized.problem for sized in asked)

    here = await solve(Transformers(str(SHIPPED), renderer))
    there = await solve(OpenAI(SERVER.url, renderer=renderer))
    assert [t.conclusion for t in there] == [t.conclusion for t in here]
    assert [[r.summary for r in t.rounds] for t in there] == [[r.summary for r in t.rounds] for t in here]
    assert sum(bool(grade(t.problem.question, t.conclusion).correct) for t in there) >= len(asked) - 2
