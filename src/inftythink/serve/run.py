"""Uvicorn around the application: signals, draining, and several processes on one socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

import uvicorn

from inftythink.serve.app import Server

log = logging.getLogger("inftythink.serve")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SPARE = 10
"""Seconds that uvicorn waits beyond our own grace before it cancels what is left."""
ACCEPTED = 16
"""Connections that are accepted in one go, before the streams that run are heard again."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""


class Runner(uvicorn.Server):
    """Uvicorn's server; when it stops, what runs gets ``grace`` seconds to end."""

    def __init__(self, server: Server, grace: float, access_log: bool) -> None:
        config = uvicorn.Config(
            server.app,
            lifespan="off",
            log_config=None,
            access_log=access_log,
            server_header=False,
            backlog=ACCEPTED,
            timeout_graceful_shutdown=int(grace) + SPARE,
        )
        super().__init__(config)
        self._server, self._grace = server, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. The event loop takes its backlog for both numbers; the system is told the right one."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and drain."""
        drain = asyncio.create_task(self._server.drain(self._grace))
        await super().shutdown(sockets)
        await drain

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; put the handlers back, and do not raise it again: it was obeyed."""
        if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


async def serve(server: Server, sock: socket.socket, grace: float, access_log: bool) -> None:
    """Serve on a socket until SIGTERM or Ctrl-C.

    Raises:
        UsageError: The carry asks for more than an upstream can do.
        BackendFatalError: A model in this process cannot be loaded.
    """
    await server.pool.start()
    spare_the_collector()
    try:
        await Runner(server, grace, access_log).serve([sock])
    finally:
        await server.drain(0)
        await server.pool.aclose()


def spare_the_collector() -> None:
    """Keep garbage collections short and rare: each stops all streams.

    What there is by now stays, and need not be looked through again. Nearly all that a request makes is freed without
    a collection; of each connection a few objects of the event loop are left for one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 10)


def serve_many(target: Callable[..., Any], config: object, sock: socket.socket, workers: int, grace: float) -> int:
    """Run ``target(config, sock)`` in processes of its own until a signal comes; return the exit code.

    When one of them ends by itself all are ended: whatever supervises this process is to start it again.
    """
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=(config, sock)) for _ in range(workers)]
    signalled: list[int] = []
    for each in SIGNALS:
        signal.signal(each, lambda number, _: signalled.append(number))
    for process in processes:
        process.start()
    while not signalled and all(process.is_alive() for process in processes):
        wait([process.sentinel for process in processes], timeout=0.5)
    if not signalled:
        log.error("a worker ended by itself; stopping")
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(grace + SPARE + 5)
        process.kill()
    return 0 if signalled else 1
