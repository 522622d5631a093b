"""Everything that can go wrong on either side: each request ends as docs/serve.md says, and nothing is left behind."""

import asyncio
import json
import socket
import threading

import httpx
import pytest

from inftythink.serve.app import Settings
from tests.serve.places import Served, reply, serving, upstream, wait_until
from tests.serve.raw import CHUNKED, END, HEAD, RESET, STREAM, RawServer, answer, chunk, event
from tests.servers import FakeServer, in_thread

ASK = [{"role": "user", "content": "What is 6 * 7?"}]
SLOW = 60.0
"""Seconds that a client waits: tests run beside other work."""
LONG = 3600.0
"""Seconds of silence that nobody waits for."""
ERROR = b'{"error": {"message": "injected", "type": "server_error", "code": null}}'

BODIES = {
    "chat": ("/v1/chat/completions", {"messages": ASK}),
    "responses": ("/v1/responses", {"input": "What is 6 * 7?"}),
    "passed": ("/v1/completions", {"prompt": "What is 6 * 7?"}),
    "passed chat": ("/v1/chat/completions", {"messages": ASK, "tools": [{"type": "function"}]}),
}
FAULTS = {
    "429": [answer("429 Too Many Requests", ERROR)],
    "500": [answer("500 Internal Server Error", ERROR)],
    "500 in words": [answer("500 Internal Server Error", b"no", b"text/plain")],
    "redirect": [answer("302 Found\r\nLocation: http://127.0.0.1:1/", b"{}")],
    "reset at once": [RESET],
    "reset on the way": [CHUNKED, chunk(event("4")), RESET],
    "end on the way": [STREAM, event("4")],
    "end inside an event": [STREAM, event("4"), event("2")[:20]],
    "end inside a chunk": [CHUNKED, chunk(event("4")), b"ff\r\ndata"],
    "shorter than said": [answer("200 OK", b'{"choices": [', length=500)],
    "silence at once": [LONG],
    "silence on the way": [STREAM, event("4"), LONG],
    "truncated event": [STREAM, event("4"), b'data: {"choices": [{"ind\n\n', END],
    "truncated answer": [answer("200 OK", b'{"choices": [{"ind')],
    "a page": [answer("200 OK", b"<html>sign in</html>", b"text/html")],
    "a stream that is called JSON": [HEAD % b"application/json", event("42"), END],
    "no choices": [STREAM, b'data: {"choices": 7}\n\n', END],
    "a list": [STREAM, b"data: [1]\n\n", END],
    "words for numbers": [STREAM, event("42", usage={"prompt_tokens": "many", "completion_tokens": {}}), END],
    "an error on the way": [STREAM, event("4"), b"data: " + ERROR + b"\n\n"],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.9\r\n\r\n"],
    "a header without end": [b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2**20],
}
AS_IT_IS = {
    ("429", 429),
    ("500", 500),
    ("end on the way", 200),
    ("end inside an event", 200),
    ("truncated event", 200),
    ("truncated answer", 200),
    ("a stream that is called JSON", 200),
    ("no choices", 200),
    ("a list", 200),
    ("words for numbers", 200),
    ("an error on the way", 200),
}
"""What a request that is passed through gets as the upstream said it, and with which status."""


@pytest.fixture(scope="module")
def raw():
    with in_thread(RawServer()) as raw:
        yield raw


@pytest.fixture(scope="module")
def served(raw):
    settings = Settings(slots=8, queue=8, keep_alive=LONG)
    with serving(upstream(raw.url, timeout=0.3), settings=settings, silence=0.3) as served:
        served.tasks = tasks(served)
        yield served


@pytest.fixture(scope="module")
def client():
    with httpx.Client(timeout=SLOW) as client:
        yield client


def tasks(served: Served) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(count(), served.loop).result(SLOW)


def nothing_is_left(served: Served, *upstreams: RawServer) -> None:
    """Wait until no trajectory, stream, upstream connection or task is left of any request."""
    wait_until(lambda: served.busy == 0 and not served.server.streams, SLOW)
    wait_until(lambda: all(each.open == 0 for each in upstreams), SLOW)
    wait_until(lambda: all(each.running == 0 for each in served.server.pool.upstreams), SLOW)
    wait_until(lambda: tasks(served) <= served.tasks, SLOW)


def well_again(served: Served) -> None:
    for each in served.server.pool.upstreams:
        each.worked()
    wait_until(lambda: len(served.server.pool.healthy()) == len(served.server.pool.upstreams), SLOW)


def ended_with(text: str) -> dict:
    """The error that a stream ends with."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if lines[-1] != "[DONE]":
        failed = json.loads(lines[-1])
        assert failed["type"] == "response.failed"
        return failed["response"]["error"]
    return json.loads(lines[-2])["error"]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("interface", BODIES)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_an_upstream_ends_as_documented(served, raw, client, fault, interface, streamed):
    path, body = BODIES[interface]
    raw.script = FAULTS[fault]
    got = client.post(served.url + path, json={**body, "stream": streamed})
    status = dict(AS_IT_IS).get(fault) if interface.startswith("passed") else None
    if status is not None:
        assert got.status_code == status
    elif got.status_code == 200:
        assert streamed or interface.startswith("passed")
        assert "internal_error" not in got.text
        assert ended_with(got.text)["code"] in ("upstream_failed", "server_error")
    else:
        assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_failed")
    assert raw.url.removesuffix("/v1") not in got.text
    nothing_is_left(served, raw)
    well_again(served)


@pytest.mark.parametrize("interface", ["chat", "responses", "passed"])
def test_a_long_silence_is_filled_with_comments_and_then_goes_on(raw, client, interface):
    """As two minutes are to ten seconds: a dozen comments, and the answer."""
    path, body = BODIES[interface]
    raw.script = [STREAM, event("The answer"), 1.2, event(" is 42."), END]
    with serving(upstream(raw.url), settings=Settings(keep_alive=0.1)) as served:
        served.tasks = tasks(served)
        got = client.post(served.url + path, json={**body, "stream": True})
        assert got.text.count(": working\n\n") >= 3
        assert " is 42." in got.text
        assert "error" not in got.text.replace('"error":null', "")
        nothing_is_left(served, raw)


@pytest.mark.parametrize("interface", ["chat", "responses", "passed"])
def test_a_stream_that_waits_in_the_queue_gets_comments_too(raw, client, interface):
    path, body = BODIES[interface]
    raw.script = [LONG]
    with serving(upstream(raw.url), settings=Settings(slots=1, queue=1, keep_alive=0.05)) as served:
        served.tasks = tasks(served)
        first = socket.create_connection(address(served))
        first.sendall(request(*BODIES["chat"], stream=True))
        wait_until(lambda: served.busy == 1 and raw.open == 1, SLOW)
        with client.stream("POST", served.url + path, json={**body, "stream": True}) as second:
            lines = second.iter_lines()
            heard = [next(lines) for _ in range(5)]
            assert served.busy == 2
            raw.script = [STREAM, event("42"), END]
            first.close()
            heard += list(lines)
        assert heard[:5:2] == [": working"] * 3
        assert "42" in "".join(heard)
        nothing_is_left(served, raw)


def test_what_a_passed_stream_is_refused_after_a_comment_comes_as_an_event(raw, client):
    raw.script = [LONG]
    with serving(upstream(raw.url), settings=Settings(keep_alive=0.05)) as served:
        served.tasks = tasks(served)
        with client.stream("POST", served.url + "/v1/completions", json={"prompt": "x", "stream": True}) as got:
            lines = got.iter_lines()
            assert next(lines) == ": working"
            raw.go_on([answer("400 Bad Request", ERROR)])
            assert ended_with("\n".join(lines))["message"] == "injected"
        nothing_is_left(served, raw)


def test_half_a_character_from_an_upstream_is_no_bug_of_ours(served, raw, client):
    raw.script = [STREAM, event("\ud83d 42"), END]
    for streamed in (True, False):
        got = client.post(served.url + "/v1/chat/completions", json={"messages": ASK, "stream": streamed})
        assert got.status_code == 200
        assert " 42" in got.text
        assert "error" not in got.text
    nothing_is_left(served, raw)


def test_what_an_upstream_refuses_of_one_client_does_not_shut_out_the_others(served, raw, client):
    raw.script = [answer("400 Bad Request", ERROR)]
    for _ in range(5):
        got = client.post(served.url + "/v1/chat/completions", json={"messages": ASK})
        assert (got.status_code, got.json()["error"]["type"]) == (400, "invalid_request_error")
    assert served.server.pool.healthy()
    raw.script = [answer("429 Too Many Requests\r\nRetry-After: 7", ERROR)]
    got = client.post(served.url + "/v1/completions", json={"prompt": "x"})
    assert (got.status_code, got.headers["retry-after"]) == (429, "7")
    nothing_is_left(served, raw)


# -- clients --


def address(served: Served) -> tuple[str, int]:
    return "127.0.0.1", int(served.url.rsplit(":", 1)[1])


def request(path: str, body: dict, **more: object) -> bytes:
    content = json.dumps({**body, **more}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("interface", BODIES)
@pytest.mark.parametrize("silent", [True, False], ids=["before-the-answer", "on-the-way"])
def test_clients_that_leave_end_the_work_behind_them(served, raw, interface, streamed, silent):
    path, body = BODIES[interface]
    raw.script = [LONG] if silent else [STREAM, event("4"), LONG]
    left = [socket.create_connection(address(served)) for _ in range(12)]  # more than there are slots
    for sock in left:
        sock.sendall(request(path, body, stream=streamed))
    wait_until(lambda: served.busy == 12 or raw.open == 0, SLOW)
    for sock in left:
        sock.close()
    nothing_is_left(served, raw)
    well_again(served)


def test_clients_that_leave_at_any_byte_leave_nothing(served, raw):
    raw.script = [STREAM, event("4"), event("2"), END]
    whole = request(*BODIES["chat"], stream=True, n=2)
    for length in range(0, len(whole), 7):
        with socket.create_connection(address(served)) as sock:
            sock.sendall(whole[:length])
    with socket.create_connection(address(served)) as sock:
        sock.sendall(whole)
        sock.shutdown(socket.SHUT_WR)
    nothing_is_left(served, raw)
    well_again(served)


LARGE = event("x" * 8192)
ENDLESS = [STREAM, *[LARGE] * 8000]


def deaf(served: Served, interface: str = "chat") -> socket.socket:
    """A client that asks for a stream and reads nothing of it."""
    path, body = BODIES[interface]
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(address(served))
    sock.sendall(request(path, body, stream=True, **({} if "passed" in interface else {"reasoning_field": "both"})))
    return sock


def test_a_client_that_does_not_read_stops_its_upstream(raw):
    raw.script, raw.sent = ENDLESS, 0
    with serving(upstream(raw.url), settings=Settings(keep_alive=0.05)) as served:
        served.tasks = tasks(served)
        with deaf(served):
            wait_until(lambda: standstill(raw), SLOW)
            assert 0 < raw.sent < 8000 * len(LARGE)
        nothing_is_left(served, raw)


@pytest.mark.parametrize("interface", BODIES)
def test_a_client_that_does_not_read_for_too_long_loses_its_slot(raw, client, interface):
    raw.script, raw.sent = ENDLESS, 0
    with serving(upstream(raw.url), settings=Settings(slots=1, queue=0, stall=0.5)) as served:
        served.tasks = tasks(served)
        with deaf(served, interface) as sock:
            wait_until(lambda: raw.sent > 0, SLOW)
            wait_until(lambda: served.busy == 0 and raw.open == 0, SLOW)
            raw.script = [STREAM, event("42"), END]
            assert client.post(served.url + "/v1/chat/completions", json={"messages": ASK}).status_code == 200
            # Should it come back after all it is told what became of its answer.
            heard = b""
            while b"nothing was read for 0.5 seconds" not in heard:
                heard = heard[-1000:] + sock.recv(2**16)
        nothing_is_left(served, raw)


def test_a_client_that_reads_slowly_is_served_to_the_end(raw):
    raw.script = [STREAM, *[LARGE] * 100, END]
    with serving(upstream(raw.url), settings=Settings(stall=1.0)) as served:
        served.tasks = tasks(served)
        with deaf(served) as sock:
            heard = b""
            while not heard.endswith(b"0\r\n\r\n"):
                threading.Event().wait(0.02)
                heard = heard[-1000:] + sock.recv(2**15)
        assert b'"outcome":"' in heard
        assert b"nothing was read" not in heard
        nothing_is_left(served, raw)


def standstill(raw: RawServer) -> bool:
    before = raw.sent
    threading.Event().wait(0.5)
    return 0 < raw.sent == before


# -- upstreams of a trajectory --


def test_a_trajectory_stays_with_its_upstream_and_so_does_its_conversation(client):
    fakes = [FakeServer("openai"), FakeServer("openai")]
    for fake in fakes:
        fake.reply = reply
    with in_thread(fakes[0]), in_thread(fakes[1]), serving(*(upstream(fake.url) for fake in fakes)) as served:
        threads = [threading.Thread(target=talk, args=(client, served, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SLOW)
        asked = [{marks(body) for body in fake.requests} for fake in fakes]
        assert asked[0] | asked[1] == {f"talk{number}" for number in range(8)}
        assert not asked[0] & asked[1]
        assert asked[0]
        assert asked[1]


def talk(client: httpx.Client, served: Served, number: int) -> None:
    """Three turns of one conversation, as clients repeat them."""
    messages = []
    for turn in range(3):
        messages.append({"role": "user", "content": f"talk{number} turn {turn}: What is 6 * 7?"})
        got = client.post(served.url + "/v1/chat/completions", json={"messages": messages}).json()
        messages.append(got["choices"][0]["message"])


def marks(body: dict) -> str:
    text = json.dumps(body["messages"])
    return text[text.index("talk") :].split(" ", 1)[0]
