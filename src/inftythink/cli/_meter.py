"""Progress of long work on standard error: a bar in a terminal, otherwise about twenty lines."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Meter:
    """Shows how much is done, of ``total``; ``done`` was done before. A context manager."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total, self._before, self._told = total, done, done
        self._began = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not console.is_dumb_terminal:
            text = TextColumn("{task.fields[text]}")
            columns = (BarColumn(), MofNCompleteColumn(), text, TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, redirect_stdout=False)
            self._task = self._bar.add_task("", total=total, completed=done, text="")

    def update(self, done: int, text: str) -> None:
        """Show that ``done`` are done, and a text beside it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif done - self._told >= max(1, self._total // 20) or done == self._total:
            self._told = done
            print(f"{done}/{self._total} {text}{self._left(done)}", file=sys.stderr, flush=True)

    def _left(self, done: int) -> str:
        """Return the time left, at the pace so far."""
        if done in (self._before, self._total):
            return ""
        seconds = (time.monotonic() - self._began) / (done - self._before) * (self._total - done)
        return f" · {seconds:,.0f} s left" if seconds < 600 else f" · {seconds / 60:,.0f} min left"

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
