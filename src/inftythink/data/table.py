"""Columns of the Parquet files, and how shards are written: whole, or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inftythink.errors import InputError, missing

ROWS, CHARACTERS = 1024, 2**22
"""Most rows, and about the most characters, that are held in memory before they are written as one row group.

A writer keeps what it knows of each group until the file is closed: over a million rows, groups of few rows, or with
the least and the largest value of every text, are hundreds of megabytes.
"""
_READ = 64  # rows that are turned into objects at once: traces are long


def schema(stage: str) -> Any:
    """Return the ``pyarrow.Schema`` of ``"segments"``, ``"summaries"`` or ``"instances"``."""
    pa = _arrow()
    text, texts, count, counts = pa.string(), pa.list_(pa.string()), pa.int32(), pa.list_(pa.int32())
    segments = {
        "id": text,
        "problem": text,
        "answer": text,
        "context": text,
        "segments": texts,
        "segment_tokens": counts,
        "conclusion": text,
        "source": text,
    }
    summaries = segments | {"summaries": texts, "summary_tokens": counts, "attempts": counts}
    message = pa.struct({"role": text, "content": text})
    instances = {
        "id": text,
        "round": count,
        "rounds": count,
        "prompt": text,
        "completion": text,
        "messages": pa.list_(message),
        "prompt_tokens": count,
        "completion_tokens": count,
        "problem": text,
        "answer": text,
        "history": text,
        "thought": text,
        "summary": text,
        "conclusion": text,
        "source": text,
        "eta": count,
        "gamma": count,
    }
    return pa.schema(list({"segments": segments, "summaries": summaries, "instances": instances}[stage].items()))


class Shard:
    """One output file, written under another name until it is whole.

    ``jsonl`` writes a file of JSON lines beside it. Use it as a context manager: on an error nothing is put in place.
    """

    def __init__(self, path: Path, stage: str, jsonl: bool = False) -> None:
        from pyarrow import parquet

        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.rows = path, 0
        self._schema = schema(stage)
        self._part = path.with_name(path.name + ".part")
        with self._named():
            self._writer = parquet.ParquetWriter(self._part, self._schema, compression="zstd", write_statistics=False)
        self._batch: list[dict[str, Any]] = []
        self._characters = 0
        self._lines = path.with_suffix(".jsonl") if jsonl else None
        self._text = open(f"{self._lines}.part", "w", encoding="utf-8") if jsonl else None  # noqa: SIM115 - closed in __exit__

    def write(self, row: dict[str, Any]) -> None:
        """Add a row; columns that the stage does not have are left out."""
        row = {name: row.get(name) for name in self._schema.names}
        self._batch.append(row)
        self._characters += sum(map(_length, row.values()))
        self.rows += 1
        if self._text is not None:
            self._text.write(json.dumps(row, ensure_ascii=False) + "\n")
        if len(self._batch) >= ROWS or self._characters >= CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        pa = _arrow()
        if self._batch:
            with self._named():
                self._writer.write_table(pa.Table.from_pylist(self._batch, self._schema))
            self._batch, self._characters = [], 0

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have errors of the disk say which file they are about: Arrow's do not."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self._part)
            raise

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._flush()
        with self._named():
            self._writer.close()
        if self._text is not None:
            self._text.close()
        if kind is None:
            self._part.replace(self.path)
            if self._lines is not None:
                Path(f"{self._lines}.part").replace(self._lines)


def read_rows(path: Path, stage: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one shard, a row group at a time.

    Raises ``InputError`` when the file is not a Parquet file with the stage's columns.
    """
    pa = _arrow()
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            lacking = [name for name in schema(stage).names if name not in file.schema_arrow.names]
            if lacking:
                raise InputError(f"{path}: lacks the columns {', '.join(lacking)}; is it a file of {stage}?")
            for batch in file.iter_batches(batch_size=_READ):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error


def count_rows(path: Path) -> int:
    """Return the number of rows of a shard, from its footer."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def shards(folder: Path) -> list[Path]:
    """Return the finished shards of a folder, in order."""
    return sorted(folder.glob("*.parquet"))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(map(_length, value)) if isinstance(value, list) else 0


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise missing("pyarrow", "data") from error
    return pyarrow
