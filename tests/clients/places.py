"""Our server in front of what the clients are to be tried on, and how clients are run: each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inftythink.backends.openai import OpenAI
from inftythink.protocol import Policy
from inftythink.reasoner import Reasoner
from inftythink.serve.pool import Upstream
from inftythink.serve.wire import Offer
from tests.serve.places import serving

MODEL = "inftythink"
QUESTION = "How many Collatz steps from 7?"
QUESTIONS = 3
"""How many questions the page's file has."""
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
ADDRESS = "http://localhost:8080"
"""Where the page's server is."""


@dataclass(frozen=True)
class Place:
    """A server for clients: its address, and how many of the page's questions it answers right (None: any number)."""

    url: str
    right: int | None = None


@contextlib.contextmanager
def open_place(upstream: Upstream, policy: Policy, right: int | None = None) -> Iterator[Place]:
    """Serve ``upstream`` under the name of the page's model."""
    with serving(upstream, offer=Offer(model=MODEL, carry=upstream.reasoner.carry, policy=policy)) as served:
        yield Place(served.url, right)


@contextlib.contextmanager
def short_rounds(url: str) -> Iterator[Place]:
    """Serve an engine's chat model with rounds so short that a small model needs several, and few of them."""
    policy = Policy(eta=48, gamma=24, phi=2)
    upstream = Upstream("engine", Reasoner(OpenAI(url, mode="chat"), carry="two_call", policy=policy), url)
    with open_place(upstream, policy) as served:
        yield served


def solved(user: str, begun: str, seed: object) -> str:
    """What a model says that solves Collatz puzzles in two rounds; it takes one step too many from 9."""
    if "discarded" in user:
        return "x is 6."
    if "x is 6." not in user:
        return "thinking about it " * 40
    start = found[-1] if (found := re.findall(r"steps from (\d+)", user)) else "1"
    return f"From {start} it takes {steps(int(start)) + (start == '9')} steps."


def steps(number: int) -> int:
    """How many Collatz steps ``number`` takes to 1."""
    count = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        count += 1
    return count


# -- clients --


def client(script: str, place: Place, timeout: float = 600.0) -> dict[str, Any]:
    """Run a script of this folder with the interpreter that has the clients; return what it prints."""
    command = [os.environ["INFTYTHINK_CLIENTS_PYTHON"], str(Path(__file__).with_name(script)), place.url + "/v1"]
    done = subprocess.run([*command, QUESTION], capture_output=True, text=True, timeout=timeout, env=environment())
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def run_section(name: str, place: Place, folder: Path, timeout: float = 900.0) -> list[str]:
    """Run the code of a section of the page in ``folder``, with the address of ``place``; return what each prints.

    A block after a line that begins with a file's name is that file; the others are commands or programs.
    """
    printed: list[str] = []
    sections = re.split(r"^## ", PAGE.read_text("utf-8").replace(ADDRESS, place.url), flags=re.M)[1:]
    for section in sections:
        for file, language, code in _BLOCK.findall(section):
            if file:
                (folder / file).write_text(code, "utf-8")
            elif section.startswith(name + "\n"):
                printed.append(_run(language, code, folder, timeout))
    assert printed, f"there is nothing to run in section {name}"
    return printed


_BLOCK = re.compile(r"(?:^`([\w.]+)`[^\n]*:\n\n)?^```(\w+)\n(.*?)^```", re.M | re.S)


def _run(language: str, code: str, folder: Path, timeout: float) -> str:
    python = os.environ["INFTYTHINK_CLIENTS_PYTHON"]
    command = ["bash", "-euc", code] if language == "sh" else [python, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, env=environment())
    assert done.returncode == 0, f"{code}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment() -> dict[str, str]:
    """The environment of clients: their own programs first, and no hub."""
    folders = (str(Path(os.environ[f"INFTYTHINK_{name}_PYTHON"]).parent) for name in ("CLIENTS", "LIGHTEVAL"))
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_COLOR": "1"}
    inspect = {"INSPECT_LOG_FORMAT": "json", "INSPECT_DISPLAY": "plain"}
    return {**os.environ, **quiet, **inspect, "PATH": ":".join([*folders, os.environ["PATH"]])}


__all__ = ["MODEL", "QUESTION", "QUESTIONS", "Place", "client", "open_place", "run_section", "solved"]
