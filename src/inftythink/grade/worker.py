"""The process that grades for a ``GradePool``.

It is sent ``("module:function", Ask)``, answers None once the grader is loaded (its clock starts then), and then the
grade; in place of either it may answer with the trouble as text. Graders run in the main thread, where signals work.
"""

from __future__ import annotations

import importlib
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from inftythink._process import end_with
from inftythink.grade.base import Ask, Grade, Grader

MEMORY = 4 << 30
"""Bytes of address space that a worker may use: a number with a billion digits ends as a MemoryError."""


def main(descriptor: int, parent: int) -> None:
    """Grade what comes over a descriptor until the other side hangs up; end with the process ``parent``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    _limit_memory()
    loaded: dict[str, Grader] = {}
    with Connection(descriptor) as connection:
        while True:
            try:
                name, ask = connection.recv()
            except EOFError:
                return
            trouble = None if name in loaded else _load(name, loaded)
            connection.send(trouble)
            if trouble is None:
                connection.send(_grade(loaded[name], ask))


def _load(name: str, loaded: dict[str, Grader]) -> str | None:
    def load() -> None:
        module, _, function = name.partition(":")
        grader: Grader = getattr(importlib.import_module(module), function)
        getattr(grader, "prepare", lambda: None)()
        loaded[name] = grader

    return _trouble(load)


def _grade(grader: Grader, ask: Ask) -> Grade | str:
    answers: list[object] = []
    if (trouble := _trouble(lambda: answers.append(grader(ask)))) is not None:
        return trouble
    answer = answers[0]
    return answer if isinstance(answer, Grade) else f"TypeError: it returned {type(answer).__name__}, not a Grade"


def _trouble(call: Callable[[], object]) -> str | None:
    """Return what a call raised as text, None when it went well."""
    try:
        call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # math-verify's TimeoutException is no Exception
        return f"{type(error).__name__}: {error}"[:500]
    return None


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    with suppress(ValueError, OSError):  # not every system can limit it
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
