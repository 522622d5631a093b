"""The stages as datatrove pipeline steps: each takes and yields ``Document`` s whose metadata is one row.

Any datatrove executor can run them (local, Slurm, Ray). A step keeps its books in the output folder::

    DIR/work/<stage>/rejects/00000.jsonl   what the shard rejected, and why
    DIR/work/<stage>/counts/00000.json     {"in", "out", "rejected", ...}; written last, when the shard is whole
    DIR/work/summarise/calls/00000.jsonl   every call to the summariser, so that a killed run repeats none
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from inftythink.backends.base import Backend, Request
from inftythink.data.form import Split, instances, split_of, teach
from inftythink.data.read import Reject, Trace, read_files, to_trace
from inftythink.data.segment import segment
from inftythink.data.summarise import Segmented, Settings, Summarised, Summariser
from inftythink.data.table import Shard, read_rows, shards
from inftythink.data.tokens import load_counter, quicken
from inftythink.errors import InputError
from inftythink.protocol import Completion, Format, Problem
from inftythink.render import Renderer
from inftythink.store import JsonLines, read_json_lines

T = TypeVar("T")


@dataclass
class Books:
    """What one shard of one stage took in, rejected and gave out."""

    folder: Path
    stage: str
    rank: int
    taken: int = 0
    given: int = 0
    rejected: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = self.folder / "work" / self.stage
        self.counts = base / "counts" / f"{self.rank:05d}.json"
        rejects = base / "rejects" / f"{self.rank:05d}.jsonl"
        for path in (self.counts, rejects):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a shard that is run again keeps its books anew
        self._rejects = JsonLines(rejects)
        self._progress = base / "progress" / f"{self.rank:05d}"
        self._progress.parent.mkdir(exist_ok=True)
        self._told = 0.0

    def take(self) -> None:
        """Count a record that came in."""
        self.taken += 1
        now = time.monotonic()
        if now >= self._told + 0.5:
            self._told = now
            self.tell()

    def reject(self, reject: Reject) -> None:
        """Write down a record that goes no further."""
        self.rejected += 1
        self._rejects.append(asdict(reject))

    def tell(self) -> None:
        """Let a progress bar know; it reads ``taken given rejected``."""
        self._progress.write_text(f"{self.taken} {self.given} {self.rejected}")

    def close(self) -> None:
        """Write the counts. Raises ``InputError`` when a record is not accounted for."""
        self._rejects.close()
        self.tell()
        if self.taken != self.given + self.rejected:
            raise InputError(
                f"{self.stage}, shard {self.rank}: {self.taken} records in, but {self.given} out and "
                f"{self.rejected} rejected: some are not accounted for. This is a bug; please report it."
            )
        counts = {"in": self.taken, "out": self.given, "rejected": self.rejected} | self.more
        part = self.counts.with_suffix(".part")
        part.write_text(json.dumps(counts))
        part.replace(self.counts)


class ReadTraces(PipelineStep):  # type: ignore[misc]
    """Read long-reasoning traces of any known layout; what cannot be read goes to the stage's rejects."""

    name = "Traces"
    type = "Reader"

    def __init__(
        self, source: str, output: Path, *, mapping: dict[str, str] | None = None, limit: int = -1, **options: Any
    ):
        """``options`` go to ``read_files`` (split and configuration of a Hugging Face data set)."""
        super().__init__()
        self.source, self.output, self.mapping, self.limit, self.options = source, output, mapping, limit, options

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the shard's traces."""
        books = Books(self.output, "read", rank)
        for row in read_files(self.source, shard=(rank, world_size), **self.options):
            if 0 <= self.limit <= books.taken:
                break
            books.take()
            trace = row if isinstance(row, Reject) else to_trace(row, mapping=self.mapping)
            if isinstance(trace, Reject):
                self.stat_update("rejected", trace.reason)
                books.reject(trace)
                continue
            books.given += 1
            yield Document(text=trace.problem, id=trace.id, metadata={"trace": trace})
        books.close()


class SegmentTraces(PipelineStep):  # type: ignore[misc]
    """Cut the reasoning of traces into segments of at most ``eta`` tokens."""

    name = "Segment"
    type = "InftyThink"

    def __init__(self, output: Path, tokenizer: str, eta: int, partition: str = "greedy"):
        super().__init__()
        self.output, self.tokenizer, self.eta, self.partition = output, tokenizer, eta, partition

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write ``segments/<rank>.parquet``; yield its rows."""
        books, counter = Books(self.output, "segment", rank), load_counter(self.tokenizer)
        with Shard(self.output / "segments" / f"{rank:05d}.parquet", "segments") as shard:
            for document in data or ():
                books.take()
                trace: Trace = document.metadata["trace"]
                done = segment(trace.reasoning, self.eta, counter, self.partition)  # type: ignore[arg-type]
                if isinstance(done, Reject):
                    self.stat_update("rejected", done.reason)
                    books.reject(Reject(trace.id, "segment", done.reason, done.detail))
                    continue
                row = {
                    "id": trace.id,
                    "problem": trace.problem,
                    "answer": trace.answer,
                    "context": json.dumps(trace.context, ensure_ascii=False),
                    "segments": done.segments,
                    "segment_tokens": done.tokens,
                    "conclusion": trace.conclusion,
                    "source": trace.source,
                }
                books.given += 1
                shard.write(row)
                self.stat_update("segments", value=len(done.segments))
                yield Document(text=trace.problem, id=trace.id, metadata=row)
        books.close()


class ReadShard(PipelineStep):  # type: ignore[misc]
    """Read the rows of an earlier stage: task ``rank`` takes the files ``rank``, ``rank + world_size``, ...

    ``files``: how many there are once that stage is whole; fewer are refused, for the tasks would take other ones.
    """

    name = "Rows"
    type = "Reader"

    def __init__(self, folder: Path, stage: str, files: int | None = None):
        super().__init__()
        self.folder, self.stage, self.files = folder, stage, files

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the shard's rows."""
        found = shards(self.folder / self.stage)
        if self.files is not None and len(found) != self.files:
            there = f"{len(found)} of {self.files} files are there"
            raise InputError(f"{self.folder / self.stage}: {there}: the stage before is not whole")
        for path in found[rank::world_size]:
            for row in read_rows(path, self.stage):
                yield Document(text=row["problem"], id=row["id"], metadata=row)


Connect = Callable[[], tuple[Backend, Backend | None]]
"""Makes the summariser's backend, and the judge's if there is one; called in the process that uses them."""


class SummariseSegments(PipelineStep):  # type: ignore[misc]
    """Have a model write the summaries; up to ``concurrency`` traces at once."""

    name = "Summarise"
    type = "InftyThink"

    def __init__(self, output: Path, tokenizer: str, connect: Connect, settings: Settings, concurrency: int = 64):
        super().__init__()
        self.output, self.tokenizer, self.connect = output, tokenizer, connect
        self.settings, self.concurrency = settings, concurrency

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write ``summaries/<rank>.parquet``, in the order of the segments; yield its rows."""
        books = Books(self.output, "summarise", rank)
        with Shard(self.output / "summaries" / f"{rank:05d}.parquet", "summaries") as shard:
            for row in iterate(self._rows(data or (), books, rank)):
                shard.write(row)
                self.stat_update("summaries", value=len(row["summaries"]))
                yield Document(text=row["problem"], id=row["id"], metadata=row)
        books.close()

    async def _rows(self, data: Iterable[Document], books: Books, rank: int) -> AsyncIterator[dict[str, Any]]:
        backend, judge = self.connect()
        calls = _Calls(self.output / "work" / "summarise" / "calls" / f"{rank:05d}.jsonl")
        summariser = Summariser(backend, load_counter(self.tokenizer), self.settings, judge)
        try:
            await backend.start()
            if judge is not None:
                await judge.start()

            async def one(numbered: tuple[int, Document]) -> tuple[dict[str, Any], Summarised | Reject]:
                number, document = numbered
                books.take()
                row = document.metadata
                trace = Segmented(problem_of(row), tuple(row["segments"]))
                return row, await summariser.summarise(trace, calls.of(number))

            async for row, done in in_order(enumerate(data), one, self.concurrency):
                if isinstance(done, Reject):
                    self.stat_update("rejected", done.reason)
                    books.reject(done)
                else:
                    books.given += 1
                    yield row | {"summaries": done.summaries, "summary_tokens": done.tokens, "attempts": done.attempts}
                books.more = asdict(summariser.usage)
        finally:
            calls.close()
            await backend.aclose()
            if judge is not None:
                await judge.aclose()


class FormInstances(PipelineStep):  # type: ignore[misc]
    """Form the training instances, split by question, with the tokenizer's own chat template."""

    name = "Form"
    type = "InftyThink"

    def __init__(self, output: Path, tokenizer: str, *, eta: int, gamma: int, template: str = "auto",
                 validation: float = 0.01, seed: int = 0, instruction: str = "", jsonl: bool = False):  # fmt: skip
        super().__init__()
        self.output, self.tokenizer, self.template = output, tokenizer, template
        self.eta, self.gamma, self.validation, self.seed = eta, gamma, validation, seed
        self.instruction, self.jsonl = instruction, jsonl

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write ``instances/train|validation/<rank>.parquet``; yield a document for each trace formed."""
        books = Books(self.output, "form", rank)
        renderer = Renderer.load(self.tokenizer, template=self.template)  # type: ignore[arg-type]
        quicken(renderer, self.tokenizer)
        fmt = Format(instruction=self.instruction)
        books.more = {"instances": 0, "train": 0, "validation": 0}
        name, base = f"{rank:05d}.parquet", self.output / "instances"
        with (
            Shard(base / "train" / name, "instances", self.jsonl) as train,
            Shard(base / "validation" / name, "instances", self.jsonl) as validation,
        ):
            into: dict[Split, Shard] = {"train": train, "validation": validation}
            for document in data or ():
                books.take()
                row = document.metadata
                taught = teach(problem_of(row), row["segments"], row["summaries"], row["conclusion"], fmt)
                if isinstance(taught, Reject):
                    self.stat_update("rejected", taught.reason)
                    books.reject(taught)
                    continue
                books.given += 1
                split = split_of(row["problem"], self.validation, self.seed)
                made = instances(taught, fmt, renderer)
                for instance in made:
                    into[split].write(instance | {"source": row["source"], "eta": self.eta, "gamma": self.gamma})
                books.more["instances"] += len(made)
                books.more[split] += len(made)
                self.stat_update("instances", value=len(made))
                yield document
        books.close()


def problem_of(row: dict[str, Any]) -> Problem:
    """Return the problem of a row of segments or summaries."""
    context = tuple((role, text) for role, text in json.loads(row["context"] or "[]"))
    return Problem(row["id"], row["problem"], row["answer"], context)


class _Calls:
    """The calls of a shard on record, by ``(record, segment, attempt, kind)``."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(path)
        self._known = {tuple(entry["key"]): entry["completion"] for entry in read_json_lines(path)}

    def of(self, number: int) -> Callable[[tuple[int, int, str], Backend, Request], Any]:
        """Return the way to ask for record ``number``: from the record of calls, else from the backend."""

        async def ask(key: tuple[int, int, str], backend: Backend, request: Request) -> Completion:
            known = self._known.pop((number, *key), None)
            if known is not None:
                return Completion.from_json(known)
            completion = await backend.complete(request)
            self._lines.append({"key": [number, *key], "completion": completion.to_json()})
            return completion

        return ask

    def close(self) -> None:
        self._lines.close()


async def in_order(source: Iterable[Any], work: Callable[[Any], Any], concurrency: int) -> AsyncIterator[Any]:
    """Apply an async function to items, ``concurrency`` at once; yield the results in the order of the items.

    A slow item lets others run on, up to eight times ``concurrency`` of them: memory stays bounded.
    """
    slots = asyncio.Semaphore(concurrency)
    waiting: deque[asyncio.Task[Any]] = deque()
    iterator = iter(source)

    async def bounded(item: Any) -> Any:
        async with slots:
            return await work(item)

    try:
        while True:
            while len(waiting) < 8 * concurrency and (item := next(iterator, None)) is not None:
                waiting.append(asyncio.create_task(bounded(item)))
            if not waiting:
                return
            result = await waiting[0]
            waiting.popleft()
            yield result
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def iterate(source: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over an async iterator from code that is not async, with an event loop of its own.

    The loop stands still while the consumer holds an item; when the consumer stops early, the work is cancelled.
    """
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(_next(source))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(_close(source))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)


async def _close(source: AsyncIterator[Any]) -> None:
    if isinstance(source, AsyncGenerator):
        await source.aclose()
