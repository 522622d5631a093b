"""``inftythink serve``: an OpenAI-compatible server that makes any model reason in rounds."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inftythink.cli import Command
from inftythink.cli._reasoning import ReasonSettings, check, fit, make_reasoner
from inftythink.config import Count, option
from inftythink.errors import InputError, UsageError, missing
from inftythink.protocol import CARRIES, Machine, Problem, make_carry
from inftythink.protocol.carry import make_format

if TYPE_CHECKING:
    from inftythink.serve.app import Server, Settings
    from inftythink.serve.pool import Upstream

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PACKAGES = ("starlette", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class ServeConfig(ReasonSettings):
    """What ``inftythink serve`` can be told."""

    upstream: tuple[str, ...] = option(
        (), "address of a server that speaks the OpenAI API; give it once for each", repeat=True, metavar="URL"
    )
    host: str = option("127.0.0.1", "address to listen on", identity=False)
    port: Count = option(8080, "port to listen on; 0 takes a free one", identity=False)
    served_name: str | None = option(None, "the model's name for clients (default: its own)", metavar="NAME")
    reasoning_field: Literal["both", "reasoning", "reasoning_content", "think-tags", "none"] = option(
        "both", "where chat answers have the reasoning; think-tags puts it into the content"
    )
    key_env: str | None = option(
        None, "variable that holds the keys which clients must give, a comma between", metavar="NAME", identity=False
    )
    key_file: Path | None = option(None, "file of such keys, one a line", metavar="FILE", identity=False)
    no_auth: bool = option(False, "let everyone in who reaches the address", identity=False)
    cors_origin: tuple[str, ...] = option(
        (), "web page that may call the server (https://chat.example.com)", repeat=True, metavar="ORIGIN"
    )
    concurrency: Count = option(256, "most trajectories at once", identity=False)
    queue: Count = option(256, "most trajectories that wait; more are refused with status 429", identity=False)
    top_rounds: Count = option(1000, "most rounds that a request may ask for")
    top_samples: Count = option(16, "most choices (n) that a request may ask for")
    keep_alive: float = option(10.0, "seconds of silence before a stream gets a comment", identity=False)
    request_timeout: float = option(3600.0, "most seconds of a trajectory", identity=False)
    stall_timeout: float = option(
        60.0, "seconds after which a client that does not read its answer is given up", identity=False
    )
    body_limit: Count = option(8 * 2**20, "most bytes of a request", identity=False)
    grace: float = option(30.0, "seconds that running answers get to end when the server stops", identity=False)
    retries: Count = option(2, "how often a request to an upstream is tried again", identity=False)
    workers: Count = option(1, "processes that serve", identity=False)
    log_level: Literal["debug", "info", "warning", "error"] = option("info", "what is logged", identity=False)
    log_content: bool = option(False, "put questions, answers and errors of upstreams in the log", identity=False)


def run(config: ServeConfig) -> int:
    """Serve until a signal comes."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise missing(package.replace("_", "-"), "serve")
    config = _checked(config)
    sock = _listen(config)
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving at http://{shown}:{port}/v1", file=sys.stderr, flush=True)
    if config.workers > 1:
        from inftythink.serve.run import serve_many

        return serve_many(serve, config, sock, config.workers, config.grace)
    serve(config, sock)
    return 0


def serve(config: ServeConfig, sock: socket.socket) -> None:
    """Serve on a socket in this process, until SIGTERM or Ctrl-C."""
    from inftythink.serve import run

    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    access_log = config.log_level in ("debug", "info")
    asyncio.run(run.serve(make_server(config), sock, config.grace, access_log))


def make_server(config: ServeConfig) -> Server:
    """Return the server of a configuration, not started. Raises ``UsageError`` for what cannot work."""
    from inftythink.serve.app import Server
    from inftythink.serve.pool import Pool
    from inftythink.serve.wire import Offer

    addresses = config.upstream or ((config.base_url,) if config.base_url is not None else (None,))
    config, why, trained = fit(dataclasses.replace(config, base_url=addresses[0]))
    print(why, file=sys.stderr)
    upstreams = [_upstream(config, address) for address in addresses]
    reasoner = upstreams[0].reasoner
    carry = make_carry(reasoner.carry, reasoner.policy)
    Machine(Problem("", ""), make_format(reasoner.carry, "", True), carry, reasoner.policy)
    name = config.served_name or (Path(config.model).name if config.model and addresses[0] is None else config.model)
    offer = Offer(
        model=name or "",
        carry=reasoner.carry,
        policy=reasoner.policy,
        carries=CARRIES,
        reasoning=config.reasoning_field,
        top_rounds=max(config.top_rounds, reasoner.policy.phi),
        top_samples=config.top_samples,
    )
    return Server(
        Pool(upstreams, silence=config.timeout), offer, _settings(config, trained is not None and trained.puzzles)
    )


def _upstream(config: ServeConfig, address: str | None) -> Upstream:
    from inftythink.backends._http import split_url
    from inftythink.serve.pool import Upstream

    reasoner = make_reasoner(dataclasses.replace(config, base_url=address), "inftythink serve")
    if address is None:
        return Upstream(f"model {config.model}", reasoner)
    return Upstream(f"upstream {address}", reasoner, split_url(address)[0], _headers(config))


def _headers(config: ServeConfig) -> Mapping[str, str]:
    """Return what requests that are passed through need: the upstream's key, never the client's."""
    from inftythink.backends._http import KEY_VARIABLES

    names = (config.api_key_env,) if config.api_key_env is not None else KEY_VARIABLES
    key = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _settings(config: ServeConfig, puzzles: bool) -> Settings:
    from inftythink.serve.app import Settings

    keys = read_keys(config)
    return Settings(
        keys=keys,
        local=not keys and not config.no_auth,
        slots=config.concurrency,
        queue=config.queue,
        keep_alive=config.keep_alive,
        timeout=config.request_timeout,
        stall=config.stall_timeout,
        body_limit=config.body_limit,
        origins=config.cors_origin,
        refuse=_no_puzzle if puzzles else None,
        log_content=config.log_content,
    )


def _no_puzzle(question: str) -> str | None:
    """Say why the model that ships cannot be asked this; None for one of its puzzles."""
    from inftythink.tasks.puzzle import families, family_of

    if family_of(question) is not None:
        return None
    examples = "; ".join(repr(family.example) for family in families())
    return (
        "the model that ships with the package solves three kinds of puzzles and nothing else, for example: "
        f"{examples}. For any other question start the server with --upstream URL or --model PATH."
    )


def read_keys(config: ServeConfig) -> tuple[str, ...]:
    """Return the keys of clients. Raises ``UsageError`` when a place for them is named and holds none."""
    keys: list[str] = []
    if config.key_env is not None:
        keys += [key.strip() for key in os.environ.get(config.key_env, "").split(",") if key.strip()]
        if not keys:
            raise UsageError(
                f"--key-env {config.key_env}: there is no such variable in the environment, or no key in it"
            )
    if config.key_file is not None:
        try:
            lines = config.key_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"--key-file {config.key_file}: {error.strerror}") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UsageError(f"--key-file {config.key_file}: there is no key in it")
        keys += found
    return tuple(keys)


def _checked(config: ServeConfig) -> ServeConfig:
    """Return the configuration. Raises ``UsageError`` for what cannot work, or would be open to everyone."""
    check(config)
    if config.upstream and config.base_url is not None:
        raise UsageError("--upstream and --base-url say the same thing; give --upstream, once for each server")
    seconds = (config.keep_alive, config.request_timeout, config.stall_timeout)
    if not config.workers or not config.top_samples or min(seconds) <= 0:
        raise UsageError(
            "--workers, --top-samples, --keep-alive, --request-timeout and --stall-timeout are to be more than 0"
        )
    if config.workers > 1 and not config.upstream and config.base_url is None:
        raise UsageError("--workers is for upstreams: each process would load the model once more")
    if not read_keys(config) and config.host not in LOOPBACK and not config.no_auth:
        raise UsageError(
            f"--host {config.host}: others could reach the server, and there is no key. Give --key-env NAME or "
            "--key-file FILE; or say --no-auth if something else keeps strangers out"
        )
    return config


def _listen(config: ServeConfig) -> socket.socket:
    """Return a socket that listens. Raises ``UsageError`` when the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((config.host, config.port))
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: its connections inherit it, and are broken when it is over
            milliseconds = min(math.ceil(config.stall_timeout * 1000), 2**31 - 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        sock.listen(2048)  # who comes while models are loaded waits
    except (OSError, OverflowError) as error:
        sock.close()
        raise UsageError(f"cannot listen on {config.host} port {config.port}: {error}") from error
    return sock


COMMAND = Command(
    ServeConfig,
    run,
    "serve a model that reasons in rounds to every client of the OpenAI API",
    """
inftythink serve
inftythink serve --upstream http://localhost:8000/v1 --model Qwen/Qwen3-4B --port 8080
inftythink serve --model path/to/model --host 0.0.0.0 --key-file keys.txt
""",
)
