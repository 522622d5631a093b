"""Run folders: the resolved configuration, a journal of every finished call, and the finished trajectories.

    RUN/config.yaml         the configuration and its digest
    RUN/journal.jsonl       one finished call a line, written before it is acted on
    RUN/trajectories.jsonl  one finished trajectory a line
    RUN/.lock               the process that has the folder open, or had it last

A run that was killed goes on where it was: finished trajectories are left out, and a trajectory that was under way is
replayed through the machine from its calls on record. What a kill can tear is the last line of a file; it is cut off
when the folder is opened again, and the call it held is made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inftythink import config as settings
from inftythink.errors import InputError, UsageError
from inftythink.protocol import Completion, Outcome, Trajectory

Key = tuple[str, int]


class JsonLines:
    """An append-only file of JSON objects, one a line; a line is whole or, after a kill, cut off on opening.

    Raises ``InputError``, with file and line, for a broken line that is not the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = _cut_torn_line(path)
        """How many bytes of a torn last line were cut off."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, data: dict[str, Any]) -> None:
        """Write one line. It survives a kill of this process from here on, and a power cut after ``sync``."""
        line = (json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "surrogatepass")
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError as error:
            # Others of this process may write before it ends, and would go on in the middle of this line.
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise InputError(
                f"{self.path}: cannot write ({error.strerror}). What stands before is safe: free some space "
                "and run the same command again."
            ) from error

    def sync(self) -> None:
        """Have the disk confirm everything written so far."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._fd)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file; nothing when there is no file, and no last line that a kill has torn.

    Raises ``InputError`` naming file and line when one cannot be read.
    """
    if path.exists():
        yield from (data for data, _ in _placed(path))


def _placed(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the objects of a file, each with the byte where its line begins."""
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                data = json.loads(line.decode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return
                raise InputError(f"{path}:{number}: not a line of JSON ({error})") from error
            if not isinstance(data, dict):
                raise InputError(f"{path}:{number}: a JSON object was expected, not {type(data).__name__}")
            yield data, place
            place += len(line)


class RunFolder:
    """A run's folder, open for writing by one process at a time. It is a ``Journal`` for the reasoner.

    Use it as a context manager. ``config`` is the command's configuration (any dataclass of ``config.py``).

    Raises ``UsageError`` when the folder was made with a configuration that differs (naming the fields), when another
    process has it open, or when it holds a run and ``resume`` is False.
    """

    def __init__(self, path: str | os.PathLike[str], config: Any, *, resume: bool = True) -> None:
        self.path = Path(path)
        self._lock = lock(self.path)
        try:
            self._open(config, resume)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, config: Any, resume: bool) -> None:
        saved = self.path / "config.yaml"
        if saved.exists():
            if not resume:
                raise UsageError(f"{self.path}: holds a run already; use another folder")
            changes = settings.difference(settings.load_dumped(type(config), saved), config)
            if changes:
                raise UsageError(f"{self.path}: refused, this run folder was {'; '.join(changes)}. Use another folder.")
        settings.dump(config, saved)
        trajectories = self.path / "trajectories.jsonl"
        torn = _cut_torn_line(trajectories)
        self._done = _drop_failed(trajectories)
        self._trajectories = JsonLines(trajectories)
        self._journal = JsonLines(self.path / "journal.jsonl")
        self.torn_bytes = torn + self._journal.torn
        """Bytes of lines that a kill had torn and that were cut off."""
        self._pending = self._read_journal()

    def _read_journal(self) -> dict[Key, list[Completion]]:
        pending: dict[Key, list[Completion]] = {}
        for entry in read_json_lines(self.path / "journal.jsonl"):
            try:
                key, call = (entry["id"], entry["sample"]), entry["call"]
                if key in self._done:
                    continue
                calls = pending.setdefault(key, [])
                if call == len(calls):
                    calls.append(Completion.from_json(entry["completion"]))
                elif call > len(calls):
                    raise InputError(
                        f"{self.path}/journal.jsonl: call {len(calls)} of {key} is missing before call {call}"
                    )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{self.path}/journal.jsonl: not a journal of this version ({error!r})") from error
        return pending

    @property
    def done(self) -> frozenset[Key]:
        """``(id, sample)`` of every finished trajectory that did not fail."""
        return frozenset(self._done)

    @property
    def resumed_calls(self) -> int:
        """Finished calls of unfinished trajectories, found on opening."""
        return sum(len(calls) for calls in self._pending.values())

    def is_done(self, problem_id: str, sample: int) -> bool:
        """Say whether the trajectory is on record as finished (one that failed is not: it is tried again)."""
        return (problem_id, sample) in self._done

    def replay(self, problem_id: str, sample: int) -> list[Completion]:
        """Return the completions on record for an unfinished trajectory, in order; they are given out once."""
        return self._pending.pop((problem_id, sample), [])

    def record(self, problem_id: str, sample: int, call: int, completion: Completion) -> None:
        """Put a completion on record before it is acted on."""
        entry = {"id": problem_id, "sample": sample, "call": call, "completion": completion.to_json()}
        self._journal.append(entry)

    def finish(self, trajectory: Trajectory) -> None:
        """Put a finished trajectory on record."""
        self._trajectories.append(trajectory.to_json())
        if trajectory.outcome is not Outcome.FAILED:
            self._done.add((trajectory.problem.id, trajectory.sample))

    def trajectories(self) -> Iterator[Trajectory]:
        """Yield the finished trajectories on record."""
        return read_trajectories(self.path)

    def keep_problems(self, problems: Iterable[dict[str, Any]]) -> None:
        """Put what is asked on record, as objects with an ``id``, in ``problems.jsonl``.

        Raises ``UsageError`` when a problem of the same id was another one before: its calls must not be used for this.
        """
        lines = JsonLines(self.path / "problems.jsonl")
        try:
            before = {data["id"]: data for data in read_json_lines(self.path / "problems.jsonl")}
            for problem in problems:
                known = before.get(problem["id"])
                if known is None:
                    lines.append(problem)
                elif known != problem:
                    raise UsageError(
                        f"{self.path}: refused, the problem {problem['id']!r} is another one than when this run was "
                        "started. Use another folder, or give the problem another id."
                    )
        finally:
            lines.close()

    def write_grades(self, grades: Mapping[Key, dict[str, Any]]) -> None:
        """Write grades into the trajectories on record; those without one here are left as they are."""
        self._trajectories.close()
        write_grades(self.path, grades)
        self._trajectories = JsonLines(self.path / "trajectories.jsonl")

    def close(self) -> None:
        """Sync the files and let the folder go."""
        self._journal.close()
        self._trajectories.close()
        os.close(self._lock)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_trajectories(path: str | os.PathLike[str]) -> Iterator[Trajectory]:
    """Yield the trajectories of a run folder, or of a file of them.

    Raises ``InputError`` naming file and line when one cannot be read.
    """
    path = Path(path)
    file = path / "trajectories.jsonl" if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{file}: there is no such file; is this a run folder?")
    for number, data in enumerate(read_json_lines(file), 1):
        try:
            yield Trajectory.from_json(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{file}:{number}: not a trajectory ({error})") from error


def ordered_trajectories(run: Path) -> Iterator[Trajectory]:
    """Yield the trajectories of a run folder by problem and sample, whatever the order in which they ended.

    Only where each stands is held in memory. Raises as ``read_trajectories`` does.
    """
    path = run / "trajectories.jsonl"
    places = sorted(((data["id"], data["sample"]), place) for data, place in _placed(path))
    with path.open("rb") as file:
        for _, place in places:
            file.seek(place)
            yield Trajectory.from_json(json.loads(file.readline()))


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write objects, one a line: the file is whole, or as it was before."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    lines = JsonLines(part)
    for row in rows:
        lines.append(row)
    lines.close()
    part.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file: it is whole, or as it was before."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_grades(run: Path, grades: Mapping[Key, dict[str, Any]]) -> None:
    """Write grades into the trajectories of a run that nobody has open (see ``lock``)."""
    path = run / "trajectories.jsonl"
    graded = (
        data | {"grade": grades.get((data["id"], data["sample"]), data["grade"])} for data in read_json_lines(path)
    )
    write_json_lines(path, graded)


def lock(run: Path) -> int:
    """Make a folder this process's own until the descriptor that is returned is closed, or the process ends.

    Raises ``UsageError`` when another process has it (naming it), or the folder cannot be written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"{run}: cannot be used as a run folder ({error.strerror})") from error
    try:
        # The system's lock counts, not that there is a file: it goes with the process, whatever ends that. On NFS it
        # holds between hosts too (Linux turns it into a lock of the server) unless the mount says nolock, where every
        # host has its own, or local_lock: then nothing but care keeps two hosts from one folder.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # For whoever is refused. A disk that is full does not keep a run from beginning.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode("utf-8", "replace").strip() or "it does not say which"
        os.close(descriptor)
        raise UsageError(
            f"{run}: another run has this folder open ({holder}); wait for it, or use another folder"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"{run}: cannot be locked against a second run ({error.strerror}); use a folder on a file system with locks"
        ) from error
    return descriptor


def _cut_torn_line(path: Path) -> int:
    """Cut a last line off that has no end; return its length in bytes."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
        return size - end


def _drop_failed(path: Path) -> set[Key]:
    """Take failed trajectories out of the file, so that they are tried again; return the keys of the others."""
    done: set[Key] = set()
    failed = 0
    for data in read_json_lines(path):
        try:
            if data["outcome"] == Outcome.FAILED.value:
                failed += 1
            else:
                done.add((data["id"], data["sample"]))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not a file of trajectories ({error!r})") from error
    if failed:
        write_json_lines(path, (data for data in read_json_lines(path) if data["outcome"] != Outcome.FAILED.value))
    return done
