"""What is fuzzed: each target draws an input from a seed, and checks what has to hold for every input at all.

An input is a JSON object, so that one that once broke something can be kept in ``corpus.jsonl``. For tests only.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from inftythink.backends._assemble import Assembler
from inftythink.backends._http import Failure, _event, _json
from inftythink.backends._sse import Event, Parser
from inftythink.backends._wire import ENGINES, Dialect, GarbageError, Piece
from inftythink.backends.base import Request
from inftythink.config import option
from inftythink.data.read import Reject, Row, Trace, read_files, to_trace
from inftythink.errors import InftyThinkError, InputError, ProtocolError
from inftythink.protocol import (
    CARRIES,
    Completion,
    Done,
    Generate,
    Machine,
    Outcome,
    Place,
    Policy,
    Problem,
    Stop,
    Tags,
    Trajectory,
    make_carry,
    make_format,
)
from inftythink.protocol.live import Live
from inftythink.protocol.types import Part, PartKind, Prompt, Turn
from inftythink.render import Renderer
from inftythink.serve.fields import Refused
from inftythink.serve.wire import Offer, plain_chat, plain_responses, read_chat, read_response
from inftythink.store import RunFolder, read_trajectories
from tests import tiny
from tests.fuzz.texts import cuts, mutated, pieces, text, torn
from tests.protocol.test_stream import read

Input = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """``draw`` makes an input, ``check`` raises when something does not hold. ``share`` is its part of the inputs."""

    draw: Callable[[random.Random], Input]
    check: Callable[..., None]
    share: float


# -- the reader of rounds --

TAGS = Tags()
PLACES = tuple(Place)
_TAG = re.compile(r"<\\*/?(?:think|summary|history)>")


def draw_round(rng: random.Random) -> Input:
    whole = text(rng, 14)
    return {"text": whole, "start": rng.randrange(len(PLACES)), "cuts": cuts(rng, len(whole))}


def check_round(text: str, start: int, cuts: list[int]) -> None:
    """Any cutting gives the same; no character is lost but tags and white space; escaping can be undone."""
    events, place, after = read(text, PLACES[start])
    assert read(text, PLACES[start], cuts) == (events, place, after)
    kept = "\0\0".join([event.text for event in events] + [after])
    assert _bare(kept).replace("\0\0", "") == _bare(text).replace("\0\0", "")
    escaped = TAGS.escape(text)
    assert TAGS.unescape(escaped) == text


def _bare(text: str) -> str:
    """The text without tags, then without white space."""
    return "".join(_TAG.sub("", text).split())


# -- whole trajectories --

PROBLEM = Problem("p", "Q <think>", "42", (("system", "S"),))


def draw_trajectory(rng: random.Random) -> Input:
    low, high = sorted((rng.randrange(1, 30), rng.randrange(1, 30)))
    policy = {
        "eta": rng.randrange(1, 60),
        "gamma": rng.randrange(1, 20),
        "phi": rng.randrange(1, 5),
        "budget": rng.choice((None, None, rng.randrange(1, 200))),
        "interval": rng.choice((None, None, (low, high))),
        "on_cut": rng.choice(("summarise", "stop")),
        "on_limit": rng.choice(("answer", "stop")),
    }
    said = [
        [text(rng, 8), rng.choice("sssllla"), rng.randrange(1, 61), rng.choice((None, None, None, text(rng, 4)))]
        for _ in range(rng.randrange(1, 9))
    ]
    return {"carry": rng.choice(CARRIES), "policy": policy, "said": said}


_STOPS = {"s": Stop.STOP, "l": Stop.LENGTH, "a": Stop.ABORT}


def check_trajectory(carry: str, policy: Input, said: list[list[Any]]) -> None:
    """Whatever a model says, a trajectory ends, within its limits, and comes back from JSON as it was."""
    limits = Policy(**policy | {"interval": policy["interval"] and tuple(policy["interval"])})
    fmt = make_format(carry)
    try:
        machine = Machine(PROBLEM, fmt, make_carry(carry, limits), limits)
    except ProtocolError:
        assert limits.budget is not None or carry == "tail"
        return
    live = Live(fmt)
    for number in range(10_000):
        step = machine.next()
        if isinstance(step, Done):
            break
        live.begin(step)
        completion = _completion(step, said[number % len(said)])
        for piece in (completion.text[:3], completion.text[3:]):
            live.feed(piece)
        live.end(completion)
        machine.receive(completion)
    else:
        raise AssertionError("the trajectory had no end")
    live.finish()
    made = step.trajectory
    assert len(made.rounds) <= limits.phi + 1  # one more to be made to answer
    assert made.conclusion is None or made.outcome is Outcome.ANSWERED
    assert (made.reason is None) == (made.outcome is Outcome.ANSWERED)
    # Not as ASCII: two halves of a surrogate pair that stand together would come back as one character.
    assert Trajectory.from_json(json.loads(json.dumps(made.to_json(), ensure_ascii=False))) == made


def _completion(asked: Generate, said: list[Any]) -> Completion:
    content, stop, tokens, reasoning = said
    count = min(tokens, asked.max_tokens)
    for string in asked.stop:  # a backend ends at the first stop string
        if string in content:
            content, stop = content[: content.index(string) + len(string)], "s"
    return Completion(
        content, _STOPS[stop], reasoning, prompt_tokens=9, completion_tokens=count, token_ids=tuple(range(count)),
        error="x" if stop == "a" else None,
    )  # fmt: skip


# -- streams of events --

FIELDS = (b"data: ", b"data:", b"data", b"event: error", b"event:x", b"error: {}", b": hm", b"id: 1", b"retry: 3", b"")
VALUES = (b'{"a": 1}', b"[DONE]", "推理".encode(), b"\xf0\x9f", b"\xff", b" x", b"x:y", b"\x00", b"\xef\xbb\xbf", b"")
ENDS = (b"\n", b"\n", b"\n\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b"")


def draw_events(rng: random.Random) -> Input:
    lines = [rng.choice(FIELDS) + rng.choice(VALUES) + rng.choice(ENDS) for _ in range(rng.randrange(9))]
    data = (b"\xef\xbb\xbf" if rng.random() < 0.1 else b"") + b"".join(lines)
    return {"data": data.decode("latin-1"), "cuts": cuts(rng, len(data))}


def check_events(data: str, cuts: list[int]) -> None:
    """Any cutting gives the events of the whole, and those are what the rules, written the plain way, say."""
    raw = data.encode("latin-1")
    found = [_stream(pieces(raw, places)) for places in ([], cuts)]
    assert found[0] == found[1] == _plainly(raw)


def _stream(chunks: list[bytes]) -> list[Event]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


def _plainly(raw: bytes) -> list[Event]:
    events: list[Event] = []
    kind, data = "", list[str]()
    for line in [*re.split(rb"\r\n|\n|\r", raw.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            events += [Event(kind or "message", "\n".join(data))] if data else []
            kind, data = "", []
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value[1:] if value[:1] == " " else value
        data += [value] if name in ("data", "error") else []
        kind = "error" if name == "error" else value if name == "event" else kind
    return events


# -- answers of servers --

CHOICE = {
    "index": 0,
    "text": "so <b>",
    "finish_reason": "stop",
    "stop_reason": None,
    "token_ids": [5, 6],
    "matched_stop": 3,
}
CHOICE |= {"logprobs": {"token_logprobs": [-0.5, -1], "tokens": ["a", "b"]}, "prompt_token_ids": [1]}
CHAT = {"message": {"role": "assistant", "content": "so", "reasoning": "hm"}, "delta": {"reasoning_content": "hm"}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
NATIVE = {
    "content": "so",
    "tokens": [5],
    "stop": True,
    "stop_type": "word",
    "stopping_word": "\n",
    "timings": {"cache_n": 1},
}
NATIVE |= {"tokens_evaluated": 3, "tokens_predicted": 2}
ANSWER = {"id": "x", "choices": [CHOICE | CHAT], "usage": USAGE, "timings": {"cache_n": 1}, "error": None} | NATIVE
NAMES = (*ANSWER, *CHOICE, *CHAT, *USAGE, "reasoning_content", "content", "code", "message", "type", "param", "detail")
ASKED = Request(Prompt((Turn("user", (Part(PartKind.CONTENT, "Q"),)),)), 16, ("</summary>", "\n\n"))


def draw_answer(rng: random.Random) -> Input:
    data: Any = ANSWER
    for _ in range(rng.randrange(4)):
        data = mutated(rng, data, NAMES)
    status = rng.choice((200, 200, 200, 200, 400, 401, 404, 422, 429, 500, 503))
    raw = json.dumps(data)
    if rng.random() < 0.1:
        raw = torn(rng, raw.encode("utf-8", "replace")).decode("latin-1")
    return {"raw": raw, "status": status, "engine": rng.randrange(len(ENGINES)), "completions": rng.random() < 0.5}


def check_answer(raw: str, status: int, engine: int, completions: bool) -> None:
    """An answer is read, or refused as what it is: a failure, or garbage."""
    dialect = Dialect(ENGINES[engine], completions)
    for parse in (lambda: _json(status, {}, raw.encode("utf-8", "replace")), lambda: _event(Event("message", raw))):
        with suppress(Failure, GarbageError):
            piece = dialect.read(parse())
            assert isinstance(piece, Piece)
            assembler = Assembler(ASKED, None, streamed=False)
            assembler.add(piece)
            done = assembler.finish(0.0, 0.0)
            assert Completion.from_json(json.loads(json.dumps(done.to_json(), ensure_ascii=False))) == done


def draw_pieces(rng: random.Random) -> Input:
    whole, stop = text(rng, 12), [string for string in ("</think>", "\n\n", "<", "ab") if rng.random() < 0.4]
    return {"text": whole, "cuts": cuts(rng, len(whole)), "stop": stop}


def check_pieces(text: str, cuts: list[int], stop: list[str]) -> None:
    """Any cutting gives the same text, which is all up to the end of the stop string that is complete first."""
    request = replace(ASKED, stop=tuple(stop))
    made = []
    for places in ([], cuts):
        assembler, seen = Assembler(request, None, streamed=True), ""
        for piece in pieces(text, places):
            delta = assembler.add(Piece(text=piece))
            seen += delta.text if delta is not None else ""
        delta = assembler.add(Piece(stop=Stop.STOP))
        seen += delta.text if delta is not None else ""
        done = assembler.finish(0.0, 0.0)
        assert seen == done.text
        made.append((done.text, done.stop_text))
    assert made[0] == made[1]
    if made[0][1] is None:
        assert made[0][0].rstrip("\ufffd") == text.rstrip("\ufffd")
    else:
        assert text.startswith(made[0][0])
        assert made[0][0].endswith(made[0][1])


# -- requests to our server --

OFFER = Offer(model="m", carry="two_call", policy=Policy(eta=400, gamma=100, phi=8), top_rounds=50, top_samples=4)


@cache
def _whole_request() -> dict[str, Any]:
    from tests.serve.test_wire import WHOLE

    return WHOLE


def draw_request(rng: random.Random) -> Input:
    body: Any = _whole_request()
    for _ in range(rng.randrange(1, 5)):
        body = mutated(rng, body, tuple(_whole_request()))
    return {"body": body if isinstance(body, dict) else {"messages": body}}


def check_request(body: Input) -> None:
    """A request is read, and then a trajectory can begin; or it is refused in OpenAI's words."""
    for plain, taken in ((plain_chat, read_chat), (plain_responses, read_response)):
        try:
            if plain(body) is None:
                asked = taken(body, OFFER)
                fmt = make_format(asked.carry)
                Machine(asked.problem, fmt, make_carry(asked.carry, asked.policy), asked.policy)
        except Refused as refused:
            if not 400 <= refused.status < 500 or "message" not in json.loads(json.dumps(refused.body()))["error"]:
                raise AssertionError(refused.body()) from refused


# -- traces --

SAID = "<think>\nSo.\n\nHence.\n</think>\n\nThe answer is \\boxed{4}."
TURNS = (("system", "s"), ("user", "Q"), ("assistant", SAID))
ROW = {"id": "a", "messages": [{"role": role, "content": said} for role, said in TURNS], "answer": "4", "source": "x"}
HARMONY = "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
ROWS: tuple[dict[str, Any], ...] = (
    ROW,
    {"uuid": 7, "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": SAID}]},
    {"problem": "Q", "reasoning": "So.\n\nHence.", "solution": "4", "ground_truth": ["4"]},
    {"question": "Q", "deepseek_thinking_trajectory": "So.", "deepseek_attempt": "4", "system": "s"},
    {
        "prompt": "Q",
        "response": "<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
    },
)
COLUMNS = (*dict.fromkeys(name for row in ROWS for name in row), "role", "content", "thinking", "type", "value")


def draw_trace(rng: random.Random) -> Input:
    row: Any = rng.choice(ROWS)
    for _ in range(rng.randrange(4)):
        row = mutated(rng, row, COLUMNS)
    row = row if isinstance(row, dict) else {"messages": row}
    return {"row": row, "text": text(rng) + rng.choice(("", SAID)) + text(rng, 4)}


def check_trace(row: Input, text: str) -> None:
    """A row is a trace, whole and in text that can be written, or a reject with its reason."""
    for one in (row, {"id": "x", "problem": "Q", "response": text}):
        made = to_trace(Row("here:1", one))
        if isinstance(made, Reject):
            assert made.reason
            assert made.detail
            continue
        assert made.problem.strip()
        assert made.reasoning.strip()
        assert made.conclusion.strip()
        "".join((made.problem, made.reasoning, made.conclusion)).encode()
        assert made.id


def draw_file(rng: random.Random) -> Input:
    ends = (b"\n", b"\n", b"\r\n", b"\n\n")
    data = b"".join(json.dumps(rng.choice(ROWS)).encode() + rng.choice(ends) for _ in range(rng.randrange(5)))
    return {"data": (torn(rng, data) if rng.random() < 0.8 else data).decode("latin-1")}


def check_file(data: str) -> None:
    """Every line that is not blank is a row or a reject, over any number of shards."""
    raw = data.encode("latin-1")
    path = _folder() / "traces.jsonl"
    path.write_bytes(raw)
    try:
        rows = list(read_files(path))
    except InputError:
        assert raw.removeprefix(b"\xef\xbb\xbf").strip().startswith(b"[")
        return
    lines = [line for line in raw.split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").strip()]
    assert len(rows) == len(lines)
    assert sum(isinstance(to_trace(row), Trace | Reject) for row in rows if isinstance(row, Row)) <= len(rows)
    assert sum(len(list(read_files(path, shard=(rank, 3)))) for rank in range(3)) == len(rows)


# -- renderers --

TOKENIZERS = (*tiny.CHAT, *tiny.METASPACE, *tiny.BASE)


@lru_cache
def _renderer(name: str) -> Renderer:
    return Renderer(tiny.tiny(name), template_options=tiny.options(name))


@lru_cache
def _added(name: str) -> dict[int, str]:
    return {i: t.content for i, t in tiny.tiny(name).added_tokens_decoder.items() if t.content.strip()}


def draw_prompt(rng: random.Random) -> Input:
    name = rng.choice(TOKENIZERS)

    def hostile() -> str:
        token = rng.choice(tuple(_added(name).values()))
        return text(rng, 6) + rng.choice((token, token[:-1], token[:3] + token, "")) + text(rng, 4)

    return {"name": name, "question": hostile(), "history": hostile()}


def check_prompt(name: str, question: str, history: str) -> None:
    """Content never yields an added token, and no more structure than other content does."""
    with suppress(InputError):  # half a character cannot be encoded, and says so
        renderer, added = _renderer(name), _added(name)
        ids = renderer.encode_content(history)
        assert not set(ids) & set(added)
        if name not in tiny.METASPACE:
            assert renderer.decode(ids) == history
        made = [
            [token for token in renderer.ids(_prompt(*texts)) if token in added]
            for texts in ((question, history), ("x", "x"))
        ]
        assert made[0] == made[1]


def _prompt(question: str, history: str) -> Prompt:
    return make_format("summary").open(Problem("p", question), history)


# -- run folders --


@dataclass(frozen=True)
class _Config:
    eta: int = option(4096, "tokens")


@cache
def _folder() -> Path:
    # Kept as long as the process: a folder that lives in memory where there is one.
    memory = Path("/dev/shm")
    place = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    _KEPT.append(place)
    return Path(place.name)


_KEPT: list[Any] = []


@cache
def _run() -> tuple[bytes, bytes]:
    """The journal and the trajectories of a run of three problems, of which one is not finished."""
    import shutil

    path = _folder() / "made"
    with RunFolder(path, _Config()) as folder:
        for name in ("a", "b", "c"):
            machine = Machine(
                Problem(name, "Q\u2028"), make_format("summary"), make_carry("summary", Policy()), Policy()
            )
            for call, content in enumerate(("r</think><summary>s 🙂</summary>", "r\n</think>\n\n42")):
                completion = Completion(content, Stop.STOP, completion_tokens=5, logprobs=(-0.5,))
                folder.record(name, 0, call, completion)
                machine.receive(completion)
                step = machine.next()
                if isinstance(step, Done):
                    folder.finish(step.trajectory)
                if name == "c":
                    break
    read = (path / "journal.jsonl").read_bytes(), (path / "trajectories.jsonl").read_bytes()
    shutil.rmtree(path)
    return read


def draw_journal(rng: random.Random) -> Input:
    journal, trajectories = _run()
    kind = rng.random()
    if kind < 0.4:  # what a kill leaves
        return _files(journal[: rng.randrange(len(journal) + 1)], trajectories[: rng.randrange(len(trajectories) + 1)])
    if kind < 0.5:  # what a power cut leaves
        return _files(journal[: rng.randrange(len(journal) + 1)] + bytes(rng.randrange(1, 5000)), trajectories)
    if kind < 0.7:
        return _files(torn(rng, journal), torn(rng, trajectories) if rng.random() < 0.3 else trajectories)
    lines = [(journal if rng.random() < 0.5 else trajectories).splitlines(keepends=True) for _ in range(2)]
    lines[rng.randrange(2)].append(json.dumps(mutated(rng, json.loads(rng.choice(lines[0])))).encode() + b"\n")
    return _files(b"".join(lines[0]), b"".join(lines[1]))


def _files(journal: bytes, trajectories: bytes) -> Input:
    return {"journal": journal.decode("latin-1"), "trajectories": trajectories.decode("latin-1")}


def check_journal(journal: str, trajectories: str) -> None:
    """A folder opens with all its whole lines, or says which line cannot be read; what a kill leaves always opens."""
    files = {"journal.jsonl": journal.encode("latin-1"), "trajectories.jsonl": trajectories.encode("latin-1")}
    path = _folder() / "run"
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    killed = all(whole.startswith(data.rstrip(b"\0")) for whole, data in zip(_run(), files.values(), strict=True))
    try:
        with RunFolder(path, _Config()) as folder:
            done, pending = folder.done, folder.resumed_calls
            for name in ("a", "b", "c"):
                if not folder.is_done(name, 0):
                    folder.replay(name, 0)
        list(read_trajectories(path))
    except InftyThinkError:
        if killed:
            raise
        return
    if killed:
        journal_lines, trajectory_lines = (data[: data.rfind(b"\n") + 1].splitlines() for data in files.values())
        assert len(done) == len(trajectory_lines)
        assert pending == sum((json.loads(line)["id"], 0) not in done for line in journal_lines)


TARGETS: dict[str, Target] = {
    "round": Target(draw_round, check_round, 0.72),
    "trajectory": Target(draw_trajectory, check_trajectory, 0.06),
    "pieces": Target(draw_pieces, check_pieces, 0.06),
    "events": Target(draw_events, check_events, 0.06),
    "answer": Target(draw_answer, check_answer, 0.04),
    "request": Target(draw_request, check_request, 0.02),
    "trace": Target(draw_trace, check_trace, 0.03),
    "file": Target(draw_file, check_file, 0.004),
    "prompt": Target(draw_prompt, check_prompt, 0.003),
    "journal": Target(draw_journal, check_journal, 0.003),
}
