"""What a streamed chunk costs the server: CPU time per chunk, and what one process can stream at most.

    python benchmarks/serve.py [STREAMS] [CHUNKS]

The upstream is scripted inside the process (it costs next to nothing), the clients are a process of their own that
reads and counts. CPU time is the server's alone and does not depend on what else runs; the throughput does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import sys
import time

from inftythink.backends.scripted import Scripted
from inftythink.protocol import Policy
from inftythink.reasoner import Reasoner
from inftythink.serve.app import Server, Settings
from inftythink.serve.pool import Pool, Upstream
from inftythink.serve.run import Runner
from inftythink.serve.wire import Offer

CLIENT = """
import asyncio, sys
port, streams = int(sys.argv[1]), int(sys.argv[2])
body = b'{"messages": [{"role": "user", "content": "go"}], "stream": true}'
head = b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
async def one():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"Content-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body)
    events, tail = 0, b""
    while data := await reader.read(65536):
        events += (tail + data).count(b"data: ") - tail.count(b"data: ")
        tail = data[-5:]
    return events
async def main():
    print(sum(await asyncio.gather(*(one() for _ in range(streams)))))
asyncio.run(main())
"""


class Paced(Scripted):
    """Lets the loop turn between two chunks, as a network does."""

    async def stream(self, request):
        async for piece in super().stream(request):
            yield piece
            await asyncio.sleep(0)


async def main(streams: int, chunks: int) -> None:
    text = "abcd" * chunks + "</think>\n\nanswer"
    policy = Policy(eta=100, gamma=100, phi=1)
    reasoner = Reasoner(Paced(lambda _: text, chunk=4, keep=0), carry="summary", policy=policy)
    server = Server(
        Pool([Upstream("scripted", reasoner)]), Offer("m", "summary", policy), Settings(slots=streams, queue=streams)
    )
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(2048)
    await server.pool.start()
    runner = Runner(server, 1.0, False)
    serving = asyncio.create_task(runner.serve([sock]))
    while not runner.started:
        await asyncio.sleep(0.01)
    cpu, wall = time.process_time(), time.perf_counter()
    arguments = (sys.executable, "-c", CLIENT, str(sock.getsockname()[1]), str(streams))
    client = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    counted = int((await client.communicate())[0])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{streams} streams of {chunks} chunks: {counted} events arrived")
    print(f"CPU per event {cpu / counted * 1e6:.0f} us; {counted / wall:.0f} events/s (with all else that ran here)")
    print(f"most memory {memory:.0f} MiB; in flight afterwards: {server.gate.running}")
    runner.should_exit = True
    await serving
    await server.pool.aclose()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    asyncio.run(main(*(int(text) for text in (*sys.argv[1:], "200", "200")[:2])))
