"""Steps that are quick to load in a process of their own, and misbehave on demand."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from inftythink.data.steps import Books
from inftythink.data.table import Shard
from inftythink.errors import InputError


class Keep(PipelineStep):
    """A stage without a tokenizer, that takes its time: each trace is one segment."""

    name, type = "Keep", "test"

    def __init__(self, output: Path, seconds: float = 0.0) -> None:
        super().__init__()
        self.output, self.seconds = output, seconds

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        books = Books(self.output, "segment", rank)
        with (self.output / "begun").open("a") as begun:
            begun.write(f"{rank} {os.getpid()} {os.getppid()}\n")
        with Shard(self.output / "segments" / f"{rank:05d}.parquet", "segments") as shard:
            for document in data:
                books.take()
                time.sleep(self.seconds)
                one = document.metadata["trace"]
                row = {"id": one.id, "problem": one.problem, "segments": [one.reasoning], "segment_tokens": [1]}
                shard.write(row)
                books.given += 1
                yield document
        books.close()


class Die(PipelineStep):
    """What the system does to a process that takes too much memory."""

    name, type = "Die", "test"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from ()


class Fail(PipelineStep):
    """A task that says what is wrong."""

    name, type = "Fail", "test"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        raise InputError(f"task {rank} says what is wrong")
        yield
