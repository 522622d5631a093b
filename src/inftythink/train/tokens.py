"""Rows on disk: token ids and where the loss falls, written once and mapped into memory by every process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inftythink._process import end_with
from inftythink.data.form import split_of
from inftythink.data.table import read_rows, shards
from inftythink.errors import InputError
from inftythink.render import Renderer, Template
from inftythink.train.rows import CarryName, Rejected, Row, rows_of

SPLITS = ("train", "validation")
_NAMES = ("ids", "trained", "ends")


class TokenRows:
    """Rows as flat arrays; ``lengths`` (int64) has the tokens of each.

    A part is three arrays: all ids (int32), whether the loss falls on each (bool), and where each row ends (int64).
    """

    def __init__(self, parts: Sequence[Sequence[NDArray[Any]]]) -> None:
        self.parts = [tuple(part) for part in parts]
        lengths = [np.diff(ends, prepend=0) for _, _, ends in self.parts]
        self.lengths: NDArray[np.int64] = np.concatenate([*lengths, np.empty(0, np.int64)])
        self._first = np.cumsum([0, *(len(part) for part in lengths)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __add__(self, other: TokenRows) -> TokenRows:
        return TokenRows([*self.parts, *other.parts])

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return int(self.lengths.sum())

    @property
    def trained_tokens(self) -> int:
        """On how many of them the loss falls."""
        return sum(int(np.count_nonzero(trained)) for _, trained, _ in self.parts)

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``(input_ids, labels)`` of a row, of one length; labels are -100 where no loss falls."""
        which = int(np.searchsorted(self._first, index, side="right")) - 1
        ids, trained, ends = self.parts[which]
        end = int(ends[index - self._first[which]])
        start = end - int(self.lengths[index])
        row: NDArray[np.int64] = ids[start:end].astype(np.int64)
        return row, np.where(trained[start:end], row, -100)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> TokenRows:
        """Hold rows in memory."""
        ids, labels, end, ends = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0, []
        for row in rows:
            ids.append(np.asarray(row.input_ids, np.int32))
            labels.append(np.asarray(row.labels, np.int32))
            end += len(row.input_ids)
            ends.append(end)
        return cls([(np.concatenate(ids), np.concatenate(labels) != -100, np.asarray(ends, np.int64))])

    def save(self, stem: Path) -> None:
        """Write the rows as ``STEM.ids.npy``, ``STEM.trained.npy`` and ``STEM.ends.npy``; they must be of one part."""
        (part,) = self.parts
        stem.parent.mkdir(parents=True, exist_ok=True)
        for name, array in zip(_NAMES, part, strict=True):
            np.save(f"{stem}.{name}.npy", array)

    @classmethod
    def load(cls, folder: Path) -> TokenRows:
        """Map all that was saved in a folder into memory, in the order of the names."""
        stems = sorted(str(path)[: -len(".ids.npy")] for path in folder.glob("*.ids.npy"))
        return cls([[np.load(f"{stem}.{name}.npy", mmap_mode="r") for name in _NAMES] for stem in stems])


@dataclass(frozen=True)
class Encoding:
    """How records become rows; sent to the processes that do it. ``tokenizer`` is a folder."""

    tokenizer: Path
    template: Template
    options: dict[str, Any]
    eos_ids: tuple[int, ...]
    carry: CarryName
    eta: int
    max_length: int
    instruction: str
    validation: float
    seed: int

    def renderer(self) -> Renderer:
        """Load the tokenizer."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        return Renderer(tokenizer, template=self.template, template_options=self.options, eos_ids=self.eos_ids)


def encode_folder(folder: Path, output: Path, encoding: Encoding, workers: int) -> list[dict[str, Any]]:
    """Turn a folder of converted data into rows below ``output/train`` and ``output/validation``.

    Returns the rejects as JSON objects. Raises ``InputError`` when the folder holds no converted data.
    """
    jobs = [(path, split, output, encoding) for path, split in _inputs(folder, encoding.carry)]
    if workers > 1 and len(jobs) > 1:
        with ProcessPoolExecutor(min(workers, len(jobs)), initializer=end_with, initargs=(os.getpid(),)) as pool:
            done = list(pool.map(_encode_shard, *zip(*jobs, strict=True)))
    else:
        done = [_encode_shard(*job) for job in jobs]
    return [reject for rejects in done for reject in rejects]


def _inputs(folder: Path, carry: CarryName) -> list[tuple[Path, str | None]]:
    """Return the shards of a folder with their split; None where the split is still to be made."""
    found: list[tuple[Path, str | None]] = [
        (path, split) for split in SPLITS for path in shards(folder / "instances" / split)
    ]
    if not found and carry != "summary":
        found = [(path, None) for path in shards(folder / "segments")]
    if not found:
        needed = "instances" if carry == "summary" else "instances or segments"
        raise InputError(f"{folder}: holds no {needed}; make them with 'inftythink data build' (or 'data form')")
    return found


def _encode_shard(path: Path, split: str | None, output: Path, encoding: Encoding) -> list[dict[str, Any]]:
    """Write the rows of one shard; return its rejects."""
    renderer = encoding.renderer()
    rejects: list[dict[str, Any]] = []
    for name in SPLITS if split is None else (split,):
        records = read_rows(path, "instances" if split else "segments")
        if split is None:
            records = (r for r in records if split_of(r["problem"], encoding.validation, encoding.seed) == name)
        rows = _accepted(records, renderer, encoding, rejects, name)
        TokenRows.of(rows).save(output / name / path.stem)
    return rejects


def _accepted(
    records: Iterable[dict[str, Any]], renderer: Renderer, encoding: Encoding, rejects: list[dict[str, Any]], split: str
) -> Iterator[Row]:
    """Yield the rows of records; put what was rejected into ``rejects``."""
    limits = {"eta": encoding.eta, "max_length": encoding.max_length}
    for row in rows_of(records, renderer, encoding.carry, instruction=encoding.instruction, **limits):
        if isinstance(row, Rejected):
            rejects.append(row.to_json() | {"split": split})
        else:
            yield row
