"""A scripted server in a process of its own, so that it can be killed: ``python -m tests.faults.server PORT``.

``--failing SHARE --seed N`` makes it fail that share of requests, in every way there is; ``--model FOLDER`` has it
sample from a model, and take weights as vLLM does. For tests only.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.faults.runs import ENVIRONMENT, ROOT, replies
from tests.servers import FakeServer, Fault

BURST = 6
"""Requests in a row that are told that there are too many."""


class Chance:
    """Takes the place of ``FakeServer.faults``: what goes wrong with the next request, drawn from a seed."""

    def __init__(self, share: float, seed: int, kinds: tuple[str, ...]) -> None:
        self._rng, self._share, self._kinds = random.Random(seed), share, kinds
        self._burst = 0
        self.drawn: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> Fault | None:
        kind = "429" if self._burst else self._rng.choice(self._kinds) if self._rng.random() < self._share else ""
        self.drawn[kind or "answered"] += 1
        if kind != "429":
            return FAULTS[kind] if kind else None
        self._burst = BURST if not self._burst else self._burst - 1
        return FAULTS[kind]


FAULTS = {
    "429": Fault("status", 429, headers={"Retry-After": "0.05"}),
    "500": Fault("status", 500),
    "503": Fault("status", 503, body="upstream is away", headers={"Retry-After": "0"}),
    "drop": Fault("drop"),
    "short": Fault("short"),
    "garbage": Fault("garbage", body="<html>sign in</html>"),
    "nothing": Fault("garbage", body=""),
    "stall": Fault("stall"),
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class ServerProcess:
    """The server while it runs; ``kill`` and ``start`` as often as one likes, at one address."""

    def __init__(self, *arguments: str) -> None:
        self.port, self._arguments = free_port(), arguments
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "tests.faults.server", str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT)
        while True:
            assert self._process.poll() is None, "the server did not start"
            try:
                httpx.get(f"{self.url}/models", timeout=60).raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


async def serve(chosen: argparse.Namespace) -> None:
    """Serve until this process is killed."""
    server: Any
    if chosen.model is not None:
        from tests.train.vllm import FakeVllm

        server = FakeVllm(chosen.model)
    else:
        server = FakeServer("openai")
        server.reply, server.token_seconds = replies, chosen.token_seconds
    if chosen.failing:
        server.faults = Chance(chosen.failing, chosen.seed, tuple(FAULTS))
    server.port = chosen.port
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--failing", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--token-seconds", type=float, default=0.0003)
    parser.add_argument("--model", type=Path)
    asyncio.run(serve(parser.parse_args()))
