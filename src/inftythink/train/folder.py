"""The output folder of a run: claimed by its settings, whole once its figures are there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inftythink import config as settings
from inftythink.errors import InftyThinkError, InputError, UsageError
from inftythink.store import lock as take

R = TypeVar("R", bound="Result")


@dataclass(frozen=True)
class Result:
    """Where the model is, the closing figures of the run, and its curve: entries with a ``step`` and figures."""

    path: Path
    metrics: dict[str, Any]
    history: list[dict[str, float]]

    def write(self, output: Path) -> None:
        """Write the figures last: they say that the run is whole."""
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        (output / "history.jsonl").write_text(lines, encoding="utf-8")
        part = output / "metrics.json.part"
        part.write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
        part.replace(output / "metrics.json")

    @classmethod
    def read(cls: type[R], output: Path) -> R:
        """Return the result of a run that was finished. Raises ``InputError`` when its files are not whole."""
        try:
            metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
            lines = (output / "history.jsonl").read_text(encoding="utf-8").splitlines()
            return cls(output / "model", metrics, [json.loads(line) for line in lines])
        except (OSError, ValueError) as error:
            raise InputError(f"{output}: the files of a finished run cannot be read ({error})") from error


@contextmanager
def claimed(config: Any, first: bool) -> Iterator[None]:
    """Have ``config.output`` as the folder of this run, in all its processes; the ``first`` of them keeps others out.

    Raises ``UsageError`` when another's settings are there, or another run is at work there; ``InputError`` for what
    fails because the disk is full, in libraries whose errors do not say so.
    """
    lock = _claim(config) if first else None
    try:
        yield
    except (InftyThinkError, OSError):
        raise
    except Exception as error:
        if (why := _unwritable(config.output)) is None:
            raise
        raise InputError(
            f"{config.output}: cannot write ({why}). Checkpoints before stay as they are: free some space and run the "
            "same command again."
        ) from error
    finally:
        if lock is not None:
            os.close(lock)


def _claim(config: Any) -> int:
    lock = take(config.output)
    try:
        saved = config.output / "config.yaml"
        if saved.exists():
            changes = settings.difference(settings.load_dumped(type(config), saved), config)
            if changes:
                raise UsageError(f"{config.output}: refused, this run was {'; '.join(changes)}. Use another --output.")
        settings.dump(config, saved)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unwritable(folder: Path, size: int = 2**20) -> str | None:
    """Say why no more can be written to a folder, None when it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(size))
    except OSError as error:
        return error.strerror
    return None


def last_checkpoint(output: Path) -> str | None:
    """Return the newest whole checkpoint of a run, None without one.

    What a kill left half written is passed over: the trainer's state, which is written last, cannot be read there.
    """
    found = (output / "checkpoints").glob("checkpoint-*")
    for each in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((each / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(each)
    return None
