"""The server under load: a scripted upstream, ``inftythink serve`` and the clients, each a process of its own.

    python benchmarks/load.py [fast] [slow] [step] [burst] [repeat] [most] [workers] [leave]

All names without an argument. Every token carries its number and the moment it was sent, so that the clients see what
was lost, out of order or late; processes share the clock. A delay is that of a token, from the upstream's sending to
the client's reading. What a request waits before it reaches the upstream is part of the time to its first token, which
is told too. Needs psutil. Nothing else may run beside.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import heapq
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from array import array
from collections.abc import Iterator

import psutil

TOKEN = re.compile(rb"(\d+):(\d+);")
ASKED = re.compile(rb"rate=(\d+) tokens=(\d+) step=(\d) name=(\d+)")
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,'
    b'"delta":{"reasoning_content":"%d:%d;"},"logprobs":null,"finish_reason":null}]}\n\n'
)
END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,'
    b'"delta":{"content":"42"},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n"
now = time.monotonic_ns


# -- the upstream: streams tokens at a rate, as little HTTP as will do --


class Upstream:
    def __init__(self) -> None:
        self.due: list[tuple[int, int, Stream]] = []
        self.numbers = itertools.count()
        self.closed: dict[int, int] = {}

    async def main(self) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Stream(self), "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        while True:
            while self.due and self.due[0][0] <= now():
                at, number, stream = heapq.heappop(self.due)
                if stream.token():
                    heapq.heappush(self.due, (at + stream.pause, number, stream))
            await asyncio.sleep(0.001)


class Stream(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.received = upstream, b""
        self.name = self.sent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.upstream.closed[self.name] = now()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.startswith(b"GET"):
            models = {"object": "list", "data": [{"id": "fake", "object": "model"}]}
            answer = self.upstream.closed if b"/closed" in self.received else models
            self.transport.write(HEAD % b"application/json" + json.dumps(answer).encode())
            self.transport.close()
        elif (asked := ASKED.search(self.received)) and self.received.endswith(b"}"):
            rate, self.tokens, step, self.name = map(int, asked.groups())
            self.pause = 10**9 // rate
            self.transport.write(HEAD % b"text/event-stream")
            first = now() + self.pause
            # An engine decodes all its streams in one step: their tokens come at one moment.
            first -= first % self.pause if step else 0
            heapq.heappush(self.upstream.due, (first, next(self.upstream.numbers), self))

    def token(self) -> bool:
        """Send the next token, or the end; whether there is more."""
        if self.transport.is_closing():
            return False
        if self.sent == self.tokens:
            self.transport.write(END)
            self.transport.close()
            return False
        self.transport.write(EVENT % (self.sent, now()))
        self.sent += 1
        return True


# -- the clients --


class Client(asyncio.Protocol):
    delays: array[int] = array("q")
    firsts: array[int] = array("q")
    disorder = 0

    def __init__(self, body: bytes, tokens: int) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.request = head + b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
        self.rest, self.seen, self.tokens = b"", 0, tokens
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport, self.asked = transport, now()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        arrived, text, end = now(), self.rest + data, 0
        for found in TOKEN.finditer(text):
            if not self.seen:
                Client.firsts.append(arrived - self.asked)
            Client.disorder += int(found[1]) != self.seen
            self.seen += 1
            Client.delays.append(arrived - int(found[2]))
            end = found.end()
        self.rest = text[max(end, len(text) - 100) :]

    def connection_lost(self, error: Exception | None) -> None:
        self.done.set_result(self.tokens - self.seen)


async def clients(
    port: int, streams: int, rate: int, tokens: int, step: int, leave: int, opening: int
) -> dict[str, float]:
    """Open the streams within ``opening`` seconds, read them to their end (or leave), and say what came."""
    loop, opened, began = asyncio.get_running_loop(), [], time.perf_counter()
    for name in range(streams):
        question = f"rate={rate} tokens={tokens} step={step} name={name + 1}"
        body = {"messages": [{"role": "user", "content": question}], "stream": True, "model": "fake"}
        body["reasoning_field"] = "reasoning_content"
        content = json.dumps(body).encode()
        _, client = await loop.create_connection(lambda b=content: Client(b, tokens), "127.0.0.1", port)
        opened.append(client)
        await asyncio.sleep(max(0.0, began + opening * (name + 1) / streams - time.perf_counter()))
    left = []
    for client in opened if leave else ():
        await asyncio.sleep(0.02)
        left.append(now())
        client.transport.abort()
    missing = sum(await asyncio.gather(*(client.done for client in opened)))
    delays, firsts = sorted(Client.delays) or [0], sorted(Client.firsts) or [0]
    return {
        "tokens": len(Client.delays),
        "missing": missing,
        "disorder": Client.disorder,
        "seconds": time.perf_counter() - began,
        "p50": delays[len(delays) // 2] / 1e6,
        "p99": delays[len(delays) * 99 // 100] / 1e6,
        "max": delays[-1] / 1e6,
        "first": firsts[len(firsts) // 2] / 1e6,
        "last": firsts[-1] / 1e6,
        "cpu": time.process_time(),
        "left": left,
    }


# -- what the server is compared with: the same HTTP stack, and nothing done to the stream --


def proxy(upstream: str, sock: socket.socket) -> None:
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))

    async def forward(request: Request) -> StreamingResponse:
        url, kind = upstream + request.url.path, {"Content-Type": "application/json"}
        answer = await client.send(
            client.build_request("POST", url, content=await request.body(), headers=kind), stream=True
        )
        done = BackgroundTask(answer.aclose)
        return StreamingResponse(answer.aiter_raw(), media_type="text/event-stream", background=done)

    app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    print(sock.getsockname()[1], flush=True)
    asyncio.run(uvicorn.Server(config).serve([sock]))


# -- the measurement --


@contextlib.contextmanager
def process(*command: str, error: bool = False) -> Iterator[tuple[psutil.Process, int]]:
    """Start a process that prints its port; yield it and the port."""
    streams = {"stderr" if error else "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], text=True, **streams) as started:
        try:
            for line in (started.stderr if error else started.stdout) or ():
                if found := re.search(r"^(?:serving at http://.*:)?(\d+)", line):
                    yield psutil.Process(started.pid), int(found[1])
                    break
        finally:
            started.terminate()


def server(upstream: int, workers: int = 1) -> contextlib.AbstractContextManager[tuple[psutil.Process, int]]:
    start = "import sys; from inftythink.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = ["-c", start, "serve", "--upstream", f"http://127.0.0.1:{upstream}/v1", "--port", "0", "--no-auth"]
    command += ["--concurrency", "2000", "--workers", str(workers), "--log-level", "warning"]
    return process(*command, error=True)


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def used(root: psutil.Process) -> float:
    times = [each.cpu_times() for each in family(root)]
    return sum(each.user + each.system for each in times)


def mebibytes(root: psutil.Process) -> float:
    return sum(each.memory_info().rss for each in family(root)) / 2**20


def load(
    port: int, streams: int, rate: int, tokens: int, step: int = 0, leave: int = 0, opening: int = 1
) -> dict[str, float]:
    command = [sys.executable, __file__, "--clients", *map(str, (port, streams, rate, tokens, step, leave, opening))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(
    upstream: psutil.Process, between: psutil.Process | None, port: int, streams: int, rate: int, tokens: int, step: int
) -> dict[str, float]:
    before = used(upstream), used(between or upstream)
    found = load(port, streams, rate, tokens, step)
    found["upstream"] = (used(upstream) - before[0]) / found["seconds"] * 100
    found["server"] = (used(between or upstream) - before[1]) / found["seconds"] * 100
    found["clients"] = found["cpu"] / found["seconds"] * 100
    found["each"] = found["server"] / 100 * found["seconds"] / max(1, found["tokens"]) * 1e6
    return found


def show(name: str, found: dict[str, float]) -> None:
    print(
        f"{name}: {found['tokens']} tokens in {found['seconds']:.1f} s ({found['tokens'] / found['seconds']:.0f}/s), "
        f"{found['missing']} missing, {found['disorder']} out of order; delay p50 {found['p50']:.1f} ms, "
        f"p99 {found['p99']:.1f} ms, most {found['max']:.1f} ms; first token after {found['first']:.0f} ms (median), "
        f"{found['last']:.0f} ms (most); {found['each']:.0f} us of CPU a token; "
        f"CPU: server {found['server']:.0f} %, upstream {found['upstream']:.0f} %, clients {found['clients']:.0f} %",
        flush=True,
    )


def in_flight(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return next(line for line in answer.read().decode().splitlines() if line.startswith("inftythink_in_flight"))


def steady(upstream: psutil.Process, source: int, streams: int, rate: int, tokens: int, step: int = 0) -> None:
    name = f"{streams} streams of {rate} tokens/s" + (" in step" if step else "")
    show(f"{name}, without the server", measure(upstream, None, source, streams, rate, tokens, step))
    with server(source) as (served, port):
        load(port, 8, 50, 50)
        before = mebibytes(served)
        found = measure(upstream, served, port, streams, rate, tokens, step)
        show(name, found)
        size = mebibytes(served)
        # Streams of one token are little else than their opening and their end.
        alone = measure(upstream, served, port, streams, rate, 1, step)
        each = (found["each"] * found["tokens"] - alone["each"] * streams) / (found["tokens"] - streams)
        print(f"opening and end took {alone['each']:.0f} us of CPU a stream, further tokens {each:.0f} us each")
        print(f"memory {before:.0f} MiB before, {size:.0f} MiB after; {in_flight(port)}", flush=True)


def burst(upstream: psutil.Process, source: int) -> None:
    """Begin 500 streams in one instant while 200 others run: how late are the tokens of those that run?"""
    with server(source) as (served, port), concurrent.futures.ThreadPoolExecutor() as pool:
        load(port, 8, 50, 50)
        run = pool.submit(measure, upstream, served, port, 200, 5, 100, 0)
        time.sleep(8)
        begun = load(port, 500, 1, 3, opening=0)
        show("200 streams of 5 tokens/s, beside 500 that begin at once", run.result())
        print(f"the 500: first token after {begun['first']:.0f} ms (median), {begun['last']:.0f} ms (most)", flush=True)


def repeat(upstream: psutil.Process, source: int) -> None:
    with server(source) as (served, port):
        sizes = []
        for _ in range(20):
            load(port, 200, 25, 50)
            sizes.append(round(mebibytes(served), 1))
        print(f"memory after each of 20 times 200 streams of 50 tokens: {sizes} MiB; {in_flight(port)}", flush=True)


def most(upstream: psutil.Process, source: int) -> None:
    """Add streams until tokens come late, through the server and through the plain proxy."""
    for name in ("plain proxy", "inftythink serve"):
        between = process(__file__, "--proxy", str(source)) if name == "plain proxy" else server(source)
        with between as (served, port):
            load(port, 8, 50, 50)
            for streams in (50, 100, 150, 200, 250, 300, 350, 400, 500, 600):
                found = measure(upstream, served, port, streams, 25, 250, 0)
                show(f"{name}, {streams} streams of 25 tokens/s", found)
                if found["p99"] > 50:
                    break


def workers(upstream: psutil.Process, source: int) -> None:
    for count in (1, 2):
        with server(source, count) as (served, port):
            time.sleep(5)  # all are up
            load(port, 16, 50, 50)
            show(f"{count} workers, 200 streams", measure(upstream, served, port, 200, 25, 250, 0))


def leave(upstream: psutil.Process, source: int) -> None:
    with server(source) as (_, port):
        left = load(port, 200, 5, 1000, leave=1)["left"]
        time.sleep(2)
        with urllib.request.urlopen(f"http://127.0.0.1:{source}/closed") as answer:
            closed = json.load(answer)
        waited = sorted((closed[str(name)] - at) / 1e6 for name, at in enumerate(left, 1))
        print(
            f"200 clients left: the upstream's connection was closed after {waited[100]:.1f} ms (median), "
            f"{waited[-1]:.1f} ms (most); {in_flight(port)}",
            flush=True,
        )


def main(names: list[str]) -> None:
    with process(__file__, "--upstream") as (upstream, source):
        for name in names or ["fast", "slow", "step", "burst", "repeat", "most", "workers", "leave"]:
            print(f"-- {name}; load average before {os.getloadavg()[0]:.1f} --", flush=True)
            if name in ("fast", "step"):
                steady(upstream, source, 200, 25, 750, int(name == "step"))
            elif name == "slow":
                steady(upstream, source, 1000, 1, 30)
            else:
                {"burst": burst, "repeat": repeat, "most": most, "workers": workers, "leave": leave}[name](
                    upstream, source
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--upstream"]:
        asyncio.run(Upstream().main())
    elif sys.argv[1:2] == ["--proxy"]:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(2048)
        proxy(f"http://127.0.0.1:{sys.argv[2]}", listening)
    elif sys.argv[1:2] == ["--clients"]:
        print(json.dumps(asyncio.run(clients(*map(int, sys.argv[2:])))))
    else:
        main(sys.argv[1:])
