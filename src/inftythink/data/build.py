"""The stages of data conversion as commands run them: datatrove executors, books, manifest.

    DIR/segments/*.parquet, DIR/summaries/*.parquet, DIR/instances/train|validation/*.parquet
    DIR/rejects.jsonl    every record that went no further: id, stage, reason, detail
    DIR/manifest.json    counts, settings, versions, calls and tokens used
    DIR/.lock            the process that writes the folder, or did last
    DIR/work/            logs, completion markers, books of shards; needed to resume, else of no use

A stage that was interrupted goes on where it was: whole shards are left as they are, and calls to the summariser that
were answered are not made again. A stage that was run with other settings is refused by the name of the setting.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from inftythink import __version__
from inftythink import config as settings
from inftythink.data.table import count_rows, shards
from inftythink.errors import InputError, UsageError, missing
from inftythink.store import read_json_lines

STAGES = ("read", "segment", "summarise", "form")
"""In the order in which records pass through them."""

Progress = Callable[[str, int, int, int], None]
"""Told ``(stage, taken, given, rejected)`` about once a second while a stage runs."""

Make = Callable[[Sequence[Any], int, int, Path], Any]
"""Makes a datatrove executor of steps, tasks, workers at once, and the folder of markers."""


@dataclass(frozen=True)
class StageRun:
    """One run of an executor: its stages, its steps, its settings, and the folder that it writes."""

    stages: tuple[str, ...]
    folder: Path
    config: Any
    steps: Sequence[Any]
    tasks: int
    workers: int

    @property
    def log(self) -> Path:
        """The folder of the executor: markers of tasks that are whole, logs, statistics."""
        return self.folder / "work" / self.stages[-1] / "log"

    def whole(self) -> bool:
        """Tell whether every task has been run to its end."""
        return all((self.log / "completions" / f"{rank:05d}").exists() for rank in range(self.tasks))

    def prepare(self) -> None:
        """Put the settings on record. Raises ``UsageError`` when the folder holds this stage with other ones."""
        self._check_config(self.folder / "work" / self.stages[-1] / "config.yaml")

    def run(self, progress: Progress | None = None, make: Make | None = None) -> None:
        """Run the shards that are not whole yet, on the executor that ``make`` makes (None: on this machine).

        Raises ``UsageError`` when the folder holds this stage with other settings, ``InputError`` when the books do
        not balance.
        """
        self.prepare()
        executor = (make or _local)(self.steps, self.tasks, self.workers, self.log)
        with _watch(self.folder, self.stages, progress):
            executor.run()
        self.check()

    def check(self) -> None:
        """Check the books of the shards that have been run. Raises ``InputError`` when they do not balance."""
        for stage in self.stages:
            check(self.folder, stage, self.tasks)

    def _check_config(self, saved: Path) -> None:
        if saved.exists():
            changes = settings.difference(settings.load_dumped(type(self.config), saved), self.config)
            if changes:
                raise UsageError(
                    f"{self.folder}: refused, its {self.stages[-1]} stage was {'; '.join(changes)}. "
                    "Use another --output, or the same settings."
                )
        saved.parent.mkdir(parents=True, exist_ok=True)
        settings.dump(self.config, saved)


def books(folder: Path, stage: str) -> dict[str, Any]:
    """Return a stage's counts, summed over its shards; empty when the stage was not run here."""
    total: Tally[str] = Tally()
    found = sorted((folder / "work" / stage / "counts").glob("*.json"))
    for path in found:
        total.update(json.loads(path.read_text()))
    return {"in": 0, "out": 0, "rejected": 0} | dict(total) if found else {}


def check(folder: Path, stage: str, tasks: int) -> None:
    """Check that a stage's books balance with what stands in its files.

    Raises ``InputError`` naming the numbers that do not agree.
    """
    found = books(folder, stage)
    kept = len(list((folder / "work" / stage / "counts").glob("*.json")))
    if kept != tasks:
        raise InputError(f"{folder}: {stage} has books for {kept} of {tasks} shards; run the same command again")
    rejects = sum(1 for _ in _rejects(folder, stage))
    if rejects != found["rejected"] or found["in"] != found["out"] + rejects:
        raise InputError(
            f"{folder}: {stage} took {found['in']}, gave {found['out']} and rejected {rejects}: they differ"
        )
    outputs = {"segment": ("segments", "out"), "summarise": ("summaries", "out")}
    if stage in outputs:
        name, column = outputs[stage]
        rows = sum(count_rows(path) for path in shards(folder / name))
        if rows != found[column]:
            raise InputError(f"{folder}/{name}: {rows} rows on disk, {found[column]} in the books")
    if stage == "form":
        for split in ("train", "validation"):
            rows = sum(count_rows(path) for path in shards(folder / "instances" / split))
            if rows != found[split]:
                raise InputError(f"{folder}/instances/{split}: {rows} rows on disk, {found[split]} in the books")


def write_manifest(folder: Path, last: str, source: Path | None = None, **more: Any) -> dict[str, Any]:
    """Write ``rejects.jsonl`` and ``manifest.json`` of a folder; return the manifest.

    ``last`` is the stage that has just become whole. ``source`` is the folder of the stages before, when it is another
    one; its rejects and counts are taken over. Raises ``InputError`` when a record got lost between two stages.
    """
    source = None if source is None or source.resolve() == folder.resolve() else source
    before = {} if source is None else read_manifest(source)
    stages = {s: dict(v) for s, v in before.get("stages", {}).items()}
    stages |= {stage: found for stage in STAGES if (found := books(folder, stage))}
    stages = _whole(stages, last)
    chain = [stages[stage] for stage in STAGES if stage in stages]
    for first, second in pairwise(chain):
        if first["out"] != second["in"]:
            raise InputError(f"{folder}: a stage gave {first['out']} records, the next took {second['in']}")
    _merge_rejects(folder, source)
    old = read_manifest(folder) if (folder / "manifest.json").exists() else {}
    manifest = before | old | {key: value for key, value in more.items() if value is not None}
    manifest |= {
        "counts": {
            "in": chain[0]["in"],
            "out": chain[-1]["out"],
            "rejected": sum(stage["rejected"] for stage in chain),
        },
        "stages": stages,
        "usage": {
            key: value for key, value in stages.get("summarise", {}).items() if key.endswith(("calls", "tokens"))
        },
        "digests": before.get("digests", {}) | _digests(folder),
        "versions": _versions(),
    }
    counts = manifest["counts"]
    if counts["in"] != counts["out"] + counts["rejected"]:
        raise InputError(
            f"{folder}: {counts['in']} in, {counts['out']} out, {counts['rejected']} rejected: they differ"
        )
    part = folder / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / "manifest.json")
    return manifest


def _whole(stages: dict[str, Any], last: str) -> dict[str, Any]:
    """Leave out the stages behind ``last`` whose books are not whole: an earlier run of them was interrupted."""
    kept: dict[str, Any] = {}
    before: dict[str, Any] | None = None
    for stage in (stage for stage in STAGES if stage in stages):
        behind = STAGES.index(stage) > STAGES.index(last)
        if behind and (before is None or before["out"] != stages[stage]["in"]):
            break
        kept[stage] = before = stages[stage]
    return kept


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest. Raises ``InputError`` when there is none, saying what makes one."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: no manifest.json here; make the folder with 'inftythink data segment' or 'data build'"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    return dict(found)


def _merge_rejects(folder: Path, source: Path | None) -> None:
    """Write the rejects of all stages: those of the folder before first, then those that were made here."""
    part = folder / "rejects.jsonl.part"
    with part.open("w", encoding="utf-8") as merged:
        before = [] if source is None else [read_json_lines(source / "rejects.jsonl")]
        for rejects in (*before, *(_rejects(folder, stage) for stage in STAGES)):
            for reject in rejects:
                merged.write(json.dumps(reject, ensure_ascii=False) + "\n")
    part.replace(folder / "rejects.jsonl")


def _rejects(folder: Path, stage: str) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "work" / stage / "rejects").glob("*.jsonl")):
        yield from read_json_lines(path)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted((folder / "work").glob("*/config.yaml")):
        import yaml

        found[path.parent.name] = str(yaml.safe_load(path.read_text(encoding="utf-8"))[settings.DIGEST])
    return found


def _versions() -> dict[str, str]:
    found = {"inftythink": __version__, "python": platform.python_version()}
    for package in ("datatrove", "pyarrow", "tokenizers", "transformers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _local(steps: Sequence[Any], tasks: int, workers: int, log: Path) -> Any:
    try:
        from inftythink.data.executor import LocalExecutor
    except ImportError as error:
        raise missing("datatrove", "data") from error
    return LocalExecutor(steps, tasks, workers, log)


@contextlib.contextmanager
def _watch(folder: Path, stages: Sequence[str], progress: Progress | None) -> Iterator[None]:
    """Report what the shards say of themselves, about once a second, and once at the end."""
    if progress is None:
        yield
        return
    over = threading.Event()

    def report() -> None:
        for stage in stages:
            numbers = [0, 0, 0]
            for path in (folder / "work" / stage / "progress").glob("*"):
                for index, number in enumerate(path.read_text().split()):
                    numbers[index] += int(number)
            progress(stage, *numbers)

    def loop() -> None:
        while not over.wait(0.5):
            report()

    thread = threading.Thread(target=loop, name="inftythink-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        report()
