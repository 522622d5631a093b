"""Processes that end as they should: workers with the one that started them, commands when they are told to."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the system kill this process when the thread that started it ends (Linux); elsewhere do nothing.

    Else a worker whose ``parent`` was killed would go on writing, beside the workers of the run that is started anew.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")


@contextmanager
def terminable() -> Iterator[list[int]]:
    """Let SIGTERM, with which clusters announce the end, end the work as Ctrl-C does; the list tells if it came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
        yield came
        return

    def told(number: int, frame: FrameType | None) -> None:
        came.append(number)
        # What waits in an event loop is ended by the handler that the loop has put there for Ctrl-C.
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # started in the background, where Ctrl-C is ignored
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
