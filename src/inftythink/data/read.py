"""Reading reasoning traces: rows from files or the Hugging Face Hub, and one trace from a row of any usual layout.

``read_files`` streams raw rows with their place; ``to_trace`` makes a ``Trace`` of one, or a ``Reject`` that says why
not. Line ends are LF in a trace: CR LF becomes LF (how a file was saved is no part of a thought).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inftythink.data.thoughts import TAGS, Parts, Refusal, Tags, parts, read_assistant, unwrap, without_thought
from inftythink.errors import InputError, UsageError, missing
from inftythink.protocol.types import Role

FIELDS = ("problem", "reasoning", "conclusion", "answer", "id")
"""What ``mapping`` may name a column for."""

_LINES = (".jsonl", ".ndjson", ".json")
_ENDINGS = tuple(f"{ending}{gz}" for ending in (*_LINES, ".parquet") for gz in ("", ".gz"))
_BATCH = 64  # rows of Parquet in memory at once: a row can be a megabyte
_UNEVEN = 1.25
_HUB_NAME = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")

_MESSAGES = ("messages", "conversations", "conversation")
_PROBLEMS = ("question", "problem", "prompt", "instruction", "query")
# A thought belongs to the conclusion of the same author, so the published pairs come before the general names.
_PAIRS = (
    ("deepseek_reasoning", ("deepseek_solution", "deepseek_attempt")),
    ("deepseek_thinking_trajectory", ("deepseek_attempt",)),
    ("gemini_thinking_trajectory", ("gemini_attempt",)),
    ("thinking_trajectories", ("attempt",)),
)
_REASONINGS = (
    *("reasoning", "reasoning_content", "thinking", "thought", "thoughts", "cot", "chain_of_thought"),
    *(reasoning for reasoning, _ in _PAIRS),
)
_WRITTEN = ("conclusion", "response", "completion", "output", "generation", "attempt", "deepseek_attempt", "solution")
_ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "ground_truth_solution")
_IDS = ("id", "uuid", "problem_id", "question_id", "idx")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """A problem, the thoughts about it (``reasoning``), and what was concluded; no white space around any of them.

    ``answer`` is the reference answer, ``source`` where the row came from, ``context`` the turns before the problem as
    ``(role, text)`` pairs, a system prompt among them.
    """

    id: str
    problem: str
    reasoning: str
    conclusion: str
    answer: str | None = None
    source: str = ""
    context: tuple[tuple[Role, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not used: ``stage`` that refused it, a stable slug ``reason``, and ``detail`` for people."""

    id: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """A raw record with its place: ``"file:line"``, ``"file:row"`` in Parquet, ``"name:row"`` on the Hub; from 1."""

    place: str
    data: dict[str, Any]


def read_files(
    source: str | Path, *, split: str = "train", config: str | None = None, shard: tuple[int, int] = (0, 1)
) -> Iterator[Row | Reject]:
    """Stream the rows of a file, of all files below a folder (sorted by path), or of a Hugging Face data set.

    Files end in .jsonl, .ndjson, .json (one object a line) or .parquet, gzipped (.gz) or not; others in a folder are
    passed over. ``split`` and ``config`` are for data sets of the Hub. With ``shard=(rank, world)`` only every
    ``world``-th row is read, starting at ``rank``; where there are enough files for it to be even, every shard reads
    files of its own instead. Shards are disjoint and make up everything, in a fixed order.
    A line that is no JSON object becomes a ``Reject``. Raises ``InputError`` for what is missing, empty, damaged or of
    an unknown kind, ``UsageError`` for an impossible shard, ``MissingDependencyError`` without pyarrow or datasets.
    """
    rank, world = shard
    if not 0 <= rank < world:
        raise UsageError(f"shard {rank} of {world} does not exist: give 0 <= rank < world")
    path = Path(source)
    if path.exists():
        files = _files(path)
        own = _whole_files([file.stat().st_size for file in files], world)
        if own is not None:
            return _from_files([file for file, owner in zip(files, own, strict=True) if owner == rank], 0, 1)
        return _from_files(files, rank, world)
    if _HUB_NAME.fullmatch(str(source)) and not str(source).endswith(_ENDINGS):
        return read_hub(str(source), split=split, config=config, shard=shard)
    raise InputError(
        f"{source}: no such file or folder. Give a {_endings()} file, a folder of them, or a data set's name"
    )


def read_hub(
    name: str, *, split: str = "train", config: str | None = None, shard: tuple[int, int] = (0, 1)
) -> Iterator[Row]:
    """Stream the rows of whatever ``datasets.load_dataset`` can load by ``name``, without downloading all of it first.

    Raises ``InputError`` when it cannot be loaded, ``MissingDependencyError`` without datasets.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise missing("datasets", "data") from error
    try:
        rows = iter(load_dataset(name, config, split=split, streaming=True))
        for index, row in enumerate(rows):
            if index % shard[1] == shard[0]:
                yield Row(f"{name}:{index + 1}", dict(row))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"data set {name!r} (split {split!r}, config {config!r}) cannot be read: {error}. "
            "Check its name, split and config, and the connection; a local file or folder works without one."
        ) from error


def to_trace(
    row: Row | Mapping[str, Any], *, mapping: Mapping[str, str] | None = None, tags: Tags = TAGS
) -> Trace | Reject:
    """Make a trace of a row.

    Layouts, in order: columns named by ``mapping`` (keys of ``FIELDS``; they win, the others are still detected); turns
    (``messages`` with role and content, ``conversations`` with from and value), the thought between ``tags`` or in a
    field of the turn; columns of their own for problem, thought and conclusion; a problem and a response with tags.
    The id is the row's own, else a digest of the content. Raises ``InputError`` when ``mapping`` names a column that is
    not there; everything else that is wrong is a ``Reject``.
    """
    place, data = (row.place, row.data) if isinstance(row, Row) else ("", dict(row))
    _check(mapping or {}, data, place)
    return _Reader(data, place, dict(mapping or {}), tags).read()


# Files


def _endings() -> str:
    return ", ".join(_ENDINGS)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if not path.name.lower().endswith(_ENDINGS):
            raise InputError(f"{path}: unknown kind of file. Traces are read from {_endings()}")
        return [path]
    found = [p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(_ENDINGS)]
    found = sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))
    if not found:
        raise InputError(f"{path}: the folder has no file that ends in {_endings()}")
    return found


def _whole_files(sizes: Sequence[int], world: int) -> list[int] | None:
    """Return the shard that each file goes to, the largest files first to the shard with the least.

    None where the largest shard would be over ``_UNEVEN`` times the mean: then rows are dealt out, and every shard
    reads through all files.
    """
    if world == 1 or len(sizes) < world:
        return None
    loads, owners = [0] * world, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += sizes[index]
    return owners if max(loads) <= _UNEVEN * sum(loads) / world else None


def _from_files(files: list[Path], rank: int, world: int) -> Iterator[Row | Reject]:
    index = 0
    for path in files:
        rows = _parquet if ".parquet" in path.suffixes[-2:] else _lines
        try:
            index = yield from rows(path, index, rank, world)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: cannot be read to its end ({error}). Get the file again") from error


def _lines(path: Path, index: int, rank: int, world: int) -> Generator[Row | Reject, None, int]:
    """Yield the rows of a file of lines; return the index of the next row."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf").strip()
            if number == 1 and line.startswith(b"["):
                raise InputError(f"{path}: a JSON array, not one object a line. Convert it: jq -c '.[]' {path.name}")
            if not line:
                continue
            if index % world == rank:
                yield _line(line, f"{path}:{number}")
            index += 1
    return index


def _line(line: bytes, place: str) -> Row | Reject:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Reject(place, "read", "broken_json", f"{place}: {error}")
    if not isinstance(data, dict):
        return Reject(place, "read", "not_an_object", f"{place}: a JSON {type(data).__name__} where an object belongs")
    return Row(place, data)


def _parquet(path: Path, index: int, rank: int, world: int) -> Generator[Row | Reject, None, int]:
    """Yield the rows of a Parquet file; return the index of the next row."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing("pyarrow", "data") from error
    number = 0
    with _seekable(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH):
                mine = [i for i in range(batch.num_rows) if (index + number + i) % world == rank]
                for i, data in zip(mine, batch.take(pa.array(mine, pa.int64())).to_pylist(), strict=True):
                    yield Row(f"{path}:{number + i + 1}", data)
                number += batch.num_rows
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: not a readable Parquet file ({error}). Get the file again") from error
    return index + number


@contextmanager
def _seekable(path: Path) -> Iterator[Any]:
    """Open a Parquet file; a gzipped one is unpacked to disk first, for its index stands at the end."""
    if path.suffix.lower() != ".gz":
        yield path
        return
    with gzip.open(path, "rb") as packed, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(packed, file)
        file.seek(0)
        yield file


# Rows


def _check(mapping: Mapping[str, str], data: Mapping[str, Any], place: str) -> None:
    if unknown := sorted(set(mapping) - set(FIELDS)):
        raise InputError(f"--map knows {', '.join(FIELDS)}; not {', '.join(unknown)}")
    if absent := sorted(set(mapping.values()) - set(data)):
        where = f"{place}: " if place else ""
        raise InputError(
            f"{where}no column {', '.join(absent)} as named by --map; there are: {', '.join(map(str, data))}"
        )


class _Unreadable(Exception):
    """A refusal on its way to becoming a ``Reject``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class _Reader:
    """One row being read."""

    data: Mapping[str, Any]
    place: str
    mapping: dict[str, str]
    tags: Tags

    def read(self) -> Trace | Reject:
        try:
            context, problem, found = self._layout()
            if isinstance(found, Refusal):
                raise _Unreadable(found.reason, found.detail)
            if not problem.strip():
                raise _Unreadable("empty_problem", "there is no question")
            answer = self._answer()
            everything = [problem, found.reasoning, found.conclusion, answer or "", *(text for _, text in context)]
            _encodable(everything)
        except _Unreadable as error:
            where = f"{self.place}: " if self.place else ""
            return Reject(self._id(self.data), "read", error.reason, where + error.detail)
        problem = problem.strip()
        return Trace(
            id=self._id([problem, found.reasoning, found.conclusion]),
            problem=problem,
            reasoning=found.reasoning,
            conclusion=found.conclusion,
            answer=answer,
            source=self._first(("source",)) or self.place,
            context=context,
        )

    def _layout(self) -> tuple[tuple[tuple[Role, str], ...], str, Parts | Refusal]:
        """Return the context, the problem, and the thought with its conclusion."""
        context: tuple[tuple[Role, str], ...] = ()
        problem: str | None = None
        found: Parts | Refusal | None = None
        turns = next((self.data[name] for name in _MESSAGES if self.data.get(name)), None)
        if turns is not None and not {"problem", "reasoning"} <= set(self.mapping):
            context, problem, found = self._turns(turns)
        if system := self._first(("system",)):
            context = (("system", system), *context)
        problem = self._first((), "problem") or problem or self._first(_PROBLEMS)
        untagged = isinstance(found, Refusal) and found.reason == "no_think_tags"
        if found is None or {"reasoning", "conclusion"} & set(self.mapping) or (untagged and self._first(_REASONINGS)):
            found = self._columns(problem or "", found)
        if problem is None or found is None:
            raise _Unreadable(
                "unknown_layout", f"no known layout in the columns {', '.join(map(str, self.data))}; use --map"
            )
        return context, problem, found

    def _turns(self, turns: Any) -> tuple[tuple[tuple[Role, str], ...], str, Parts | Refusal]:
        read = [_turn(turn) for turn in _listed(turns)]
        if not read or read[-1][0] != "assistant":
            raise _Unreadable("no_assistant_turn", "the last turn is not the assistant's")
        users = [i for i, (role, _, _) in enumerate(read) if role == "user"]
        if not users:
            raise _Unreadable("no_user_turn", "no turn is the user's")
        if any(role == "assistant" for role, _, _ in read[users[-1] : -1]):
            raise _Unreadable("several_assistant_turns", "the assistant has several turns after the last question")
        last = users[-1]
        context = tuple(
            (role, without_thought(text, self.tags) if role == "assistant" else text) for role, text, _ in read[:last]
        )
        problem, (_, text, thought) = read[last][1], read[-1]
        if not thought:
            return context, problem, read_assistant(text, problem, self.tags)
        if any(closing in text for _, closing in self.tags):
            raise _Unreadable("two_thoughts", "the turn has a thought in a field of its own and another between tags")
        return context, problem, parts(unwrap(thought, self.tags), text)

    def _columns(self, problem: str, turn: Parts | Refusal | None) -> Parts | Refusal | None:
        """Read thought and conclusion from columns of their own; what a turn said fills what is not there."""
        reasoning, name = self._named(_REASONINGS, "reasoning")
        partners = next((written for pair, written in _PAIRS if pair == name), ())
        conclusion, _ = self._named((*partners, *_WRITTEN, *_ANSWERS), "conclusion")
        if reasoning is None:
            if isinstance(turn, Parts):
                return parts(turn.reasoning, conclusion or turn.conclusion)
            return read_assistant(conclusion, problem, self.tags) if conclusion is not None else turn
        if "conclusion" not in self.mapping and turn is not None:
            conclusion = turn.conclusion if isinstance(turn, Parts) else self._said() or conclusion
        thought = unwrap(reasoning, self.tags)
        if any(mark in thought for pair in self.tags for mark in pair):
            whole = read_assistant(reasoning, problem, self.tags)
            if isinstance(whole, Parts) or conclusion is None:
                return whole
        return parts(thought, conclusion or "")

    def _said(self) -> str | None:
        turns = next((self.data[name] for name in _MESSAGES if self.data.get(name)), None)
        return None if turns is None else _turn(_listed(turns)[-1])[1]

    def _answer(self) -> str | None:
        answer = self._first(_ANSWERS, "answer")
        return answer.strip() or None if answer else None

    def _id(self, content: Any) -> str:
        own = self._first(_IDS, "id")
        if own is not None and own.strip():
            return own
        # Rows without an id get the same one on every run and every machine.
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _first(self, names: tuple[str, ...], field: str = "") -> str | None:
        return self._named(names, field)[0]

    def _named(self, names: tuple[str, ...], field: str = "") -> tuple[str | None, str]:
        """Return the text of the mapped column, else of the first of ``names`` that holds something, and its name."""
        if field in self.mapping:
            names = (self.mapping[field],)
        for name in names:
            value = self.data.get(name)
            if value is not None and value != "" and value != []:
                return _text(value), name
        return None, ""


def _turn(turn: Any) -> tuple[Role, str, str]:
    """Return role, text and thought (empty when it has no field of its own) of one turn."""
    if not isinstance(turn, Mapping):
        raise _Unreadable("unknown_layout", f"a turn is a {type(turn).__name__}, not an object with role and content")
    name = str(turn.get("role", turn.get("from", ""))).lower()
    if name not in _ROLES:
        raise _Unreadable("unknown_role", f"a turn of role {name!r}: a trace has system, user and assistant turns only")
    thought = next((turn[key] for key in ("reasoning_content", "reasoning", "thinking") if turn.get(key)), "")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        thinking = [p for p in content if isinstance(p, Mapping) and p.get("type") in ("thinking", "reasoning")]
        thought = thought or "".join(_text(p.get("thinking") or p.get("text") or "") for p in thinking)
        content = [p for p in content if p not in thinking]
    return _ROLES[name], _text(content), _text(thought)


def _listed(turns: Any) -> list[Any]:
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except ValueError as error:
            raise _Unreadable("unknown_layout", f"the turns are a text that is no JSON: {error}") from error
    if not isinstance(turns, list):
        raise _Unreadable("unknown_layout", f"the turns are a {type(turns).__name__}, not a list")
    return turns


def _text(value: Any) -> str:
    """Return a column's value as text, its line ends as LF. A list (of texts, turns or parts) is joined."""
    if value is None:
        return ""
    if isinstance(value, list):
        pieces = [
            piece.get("text", piece.get("content", "")) if isinstance(piece, Mapping) else piece for piece in value
        ]
        return "\n".join(_text(piece) for piece in pieces)
    return str(value).replace("\r\n", "\n")


def _encodable(texts: list[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _Unreadable(
                "invalid_unicode", f"half a surrogate pair at character {error.start}: {error}"
            ) from error
