"""Reading the problems of a task: rows of a local file or folder, or of a data set on the Hugging Face Hub.

Unlike training data, of which a damaged record is passed over, the problems of a measurement are read whole or not at
all: everything that is wrong is an ``InputError`` that names the file and the line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inftythink.errors import InputError, UsageError, missing

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Hub:
    """A data set on the Hugging Face Hub, or a local folder as ``datasets`` would load it from there."""

    name: str
    split: str = "test"
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A raw record: its number over all files (from 1), and its place: ``"file:line"``, ``"name:row"`` on the Hub."""

    place: str
    number: int
    data: dict[str, Any]


def read_rows(data: str | None, split: str | None, hub: Hub | None) -> Iterator[Row]:
    """Stream rows of ``data`` (a file, a folder, or a data set's name), else of ``hub``.

    Of a folder, the files that name the configuration and split of ``hub`` are read where there are such, else all.

    Raises:
        UsageError: there is neither ``data`` nor ``hub``.
        InputError: something is missing, damaged, of an unknown kind, or cannot be loaded.
        MissingDependencyError: without datasets or pyarrow.
    """
    if data is None:
        if hub is None:
            raise UsageError("this task has no data of its own: name a file with --data")
        return _from_hub(replace(hub, split=split or hub.split))
    path = Path(data)
    if path.is_dir():
        return _from_files(_files(path, split or (hub.split if hub else None), hub.config if hub else None))
    if path.exists():
        return _from_files([path])
    if _HUB_NAME.fullmatch(data) and not data.lower().endswith(ENDINGS):
        config = hub.config if hub and hub.name == data else None
        return _from_hub(Hub(data, split or (hub.split if hub and hub.name == data else "test"), config))
    raise InputError(f"{data}: no such file or folder. Give a {', '.join(ENDINGS)} file, or a folder of them")


def _from_hub(hub: Hub) -> Iterator[Row]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise missing("datasets", "eval") from error
    try:
        rows = load_dataset(hub.name, hub.config, split=hub.split)
    # Whatever a loader, the network or the Hub raises: there is no data, and the text says why.
    except Exception as error:
        config = f", configuration {hub.config!r}" if hub.config else ""
        raise InputError(
            f"data set {hub.name!r} (split {hub.split!r}{config}) cannot be loaded: {_first_line(error)}. Check the "
            "connection and, where the data set asks for it, accept its terms on its page and log in with `hf auth "
            "login`; a local copy is read with --data FILE"
        ) from error
    for number, row in enumerate(rows, 1):
        yield Row(f"{hub.name}:{number}", number, dict(row))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].rstrip('.')}"


def _files(folder: Path, split: str | None, config: str | None) -> list[Path]:
    found = [p for p in folder.rglob("*") if p.is_file() and p.name.lower().endswith(ENDINGS)]
    found = sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if not found:
        raise InputError(f"{folder}: the folder has no file that ends in {', '.join(ENDINGS)}")
    for name in (config, split):
        found = [p for p in found if name and _names(p.relative_to(folder), name)] or found
    return found


def _names(path: Path, name: str) -> bool:
    """Tell whether a path names a configuration or split: ``main/test-00000-of-00001.parquet`` names both."""
    return name in path.parts[:-1] or re.match(rf"{re.escape(name)}(?![^\W_])", path.name) is not None


def _from_files(files: list[Path]) -> Iterator[Row]:
    number = 0
    for path in files:
        read = {".csv": _csv, ".parquet": _parquet, ".json": _json}.get(path.suffix.lower(), _lines)
        if not path.name.lower().endswith(ENDINGS):
            raise InputError(f"{path}: unknown kind of file. Problems are read from {', '.join(ENDINGS)}")
        try:
            for place, data in read(path):
                number += 1
                if not isinstance(data, dict):
                    raise InputError(f"{place}: a JSON {type(data).__name__} where an object belongs")
                yield Row(place, number, data)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield f"{path}:{number}", _parsed(text, f"{path}:{number}")


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    """Read a JSON array of objects, or one object a line."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"["):
        yield from _lines(path)
        return
    for number, data in enumerate(_parsed(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), str(path)), 1):
        yield f"{path}: item {number}", data


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: no JSON ({error})") from error


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    """Read a CSV file with a header; a record is named by the line that it begins on."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        line = 1
        try:
            columns = rows.fieldnames or ()
            line = rows.line_num + 1
            for data in rows:
                if None in data or None in data.values():
                    raise InputError(f"{path}:{line}: not {len(columns)} fields, as the header names")
                yield f"{path}:{line}", data
                line = rows.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{line}: no CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing("pyarrow", "eval") from error
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
            for data in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", data
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error
