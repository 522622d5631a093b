"""A real inference server for the tests: started if need be, waited for, and opened in both modes."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path

from inftythink.backends.openai import OpenAI
from inftythink.render import Renderer
from tests.backends.conformance import Case

SHORT = "What is the capital of France? Answer with one word."


class Server:
    """One server of the model in folder ``model``; ``url`` is empty until there is one."""

    def __init__(self, model: str, url: str = "") -> None:
        self.model, self.url = model, url

    @cached_property
    def renderer(self) -> Renderer:
        """The model's tokenizer and template."""
        return Renderer.load(self.model)

    @property
    def cases(self) -> tuple[Case, ...]:
        """What the contract runs on: both modes."""
        decode, encode = lambda ids: self.renderer.decode(ids), lambda text: self.renderer.encode_content(text)
        return (
            Case("completions", self.completions, decode, encode, short=SHORT),
            Case("chat", self.chat, short=SHORT),
        )

    @asynccontextmanager
    async def completions(self) -> AsyncIterator[OpenAI]:
        """A backend that sends token ids."""
        async with opened(OpenAI(self.url, renderer=self.renderer)) as backend:
            yield backend

    @asynccontextmanager
    async def chat(self) -> AsyncIterator[OpenAI]:
        """A backend that sends messages."""
        async with opened(OpenAI(self.url)) as backend:
            yield backend

    @contextmanager
    def started(
        self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Run ``command``, which serves at ``port``, unless a server was named; stop it at the end."""
        if self.url:
            yield
            return
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env={**(environment or {}), **os.environ}
            )
            try:
                wait(process, f"http://127.0.0.1:{port}/health", log)
                self.url = f"http://127.0.0.1:{port}/v1"
                yield
            finally:
                process.terminate()
                process.wait(60)

    def gauges(self, *names: str) -> float:
        """Add up what the server's own metrics say under these names."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))


@asynccontextmanager
async def opened(backend: OpenAI) -> AsyncIterator[OpenAI]:
    """Start a backend, and close it at the end."""
    await backend.start()
    try:
        yield backend
    finally:
        await backend.aclose()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server is up; a server that died shows its last lines."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"no answer within ten minutes: {log.read_text()[-4000:]}")
