"""Graders that misbehave, for the tests of the pool: a worker finds them by their names."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

from inftythink.grade.base import Ask, Grade, limits


def echo(ask: Ask) -> Grade:
    """Right when conclusion and gold are the same; the worker's process id is in what it extracted."""
    return Grade(ask.conclusion == ask.gold, str(os.getpid()))


def slow_echo(ask: Ask) -> Grade:
    """Take so long that another worker takes the next one."""
    time.sleep(1.0)
    return echo(ask)


def hang(ask: Ask) -> Grade:
    """Grade, or hang where no Python code runs and no alarm interrupts, when the conclusion says so."""
    if ask.conclusion == "hang":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        ctypes.PyDLL(None).sleep(3600)  # PyDLL keeps the interpreter's lock: no thread of the worker goes on either
    return echo(ask)


def misbehave(ask: Ask) -> Any:
    """Do what the conclusion says."""
    match ask.conclusion:
        case "raise":
            raise ValueError("no such thing")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "complain":
            print("something broke", file=sys.stderr, flush=True)
            os._exit(7)
        case "nothing":
            return None
        case "memory":
            return Grade(True, str(len(bytearray(64 << 30))))
        case "interrupt":
            raise BaseException("not an Exception")
        case "child":
            child = subprocess.Popen(["sleep", "3600"])
            with open(str(ask.data["file"]), "w") as file:
                file.write(f"{os.getpid()} {child.pid}")
            time.sleep(3600)
    return Grade(True, ask.conclusion)


@limits(timeout=0.2)
def impatient(ask: Ask) -> Grade:
    time.sleep(3600)
    raise AssertionError


def loading() -> None:
    time.sleep(1.0)


@limits(prepare=loading)
def slow_to_load(ask: Ask) -> Grade:
    return Grade(True)
