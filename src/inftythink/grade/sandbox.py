"""Runs a program that nobody has read, in processes that cannot do much and do not outlive their time.

Always in force: limits on CPU time, memory, file size, open files and wall time; processes that are killed as a
whole; a temporary working directory, an environment without anything of this process's, no input, no output. The rest
depends on the system, is found out once by trying, and is told by ``isolation()``:

    namespaces   no network at all, no sight of other processes, a limit on how many are created (Linux). Elsewhere
                 Python's sockets, new processes, signals and foreign functions are refused: that keeps a program from
                 accidents, not from attacks
    files        nothing can be changed outside the working directory (Linux with Landlock)

For root it takes both, or the program runs as nobody, or not at all. Files that the user may read can be read. It is no
virtual machine: run what is hostile in one.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from inftythink.errors import UsageError

MOST_SECONDS = 60.0
"""Most wall time that a program may be given."""

_NOBODY = 65534
_GRACE = 30.0
"""Seconds for interpreters to start and end, on a machine that is busy."""

_CREATED = 8
"""So many times the processes allowed at once may be created in all: root's are not counted by the system."""

_UNSHARE = ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--"]
_INSIDE = (Path(__file__).parent / "_inside.py").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use: wall and CPU seconds, MiB of address space and of a file, processes and threads."""

    seconds: float = 10.0
    cpu_seconds: int = 10
    memory_mb: int = 1024
    file_mb: int = 16
    processes: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MOST_SECONDS:
            raise UsageError(f"a program may run for up to {MOST_SECONDS:g} s, not {self.seconds:g} s")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What keeps a program apart from the rest of the machine, beyond its limits."""

    namespaces: bool
    files: bool = False
    nobody: bool = False

    def __str__(self) -> str:
        apart = "no network and no sight of other processes (namespaces)"
        refused = "sockets, new processes and signals are refused by Python only (namespaces do not work here)"
        files = "changes no file outside its folder" if self.files else f"changes what {self._user} may change"
        return f"{apart if self.namespaces else refused}; {files}; runs as {self._user}"

    @property
    def _user(self) -> str:
        return "nobody" if self.nobody else "this user"


@cache
def isolation() -> Isolation:
    """Return the best isolation that works here; found out once by running two small programs.

    Raises ``RuntimeError`` when none does.
    """
    root = os.geteuid() == 0
    for choice in (Isolation(True), Isolation(False, nobody=root)):
        with suppress(OSError, RuntimeError):
            if run([""], Limits(), choice) is None:
                choice = replace(choice, files=_keeps_files(choice))
                if choice.files or choice.nobody or not root:
                    return choice
    raise RuntimeError("no sandbox works here for root; grade programs as an ordinary user")


def _keeps_files(isolated: Isolation) -> bool:
    """Whether a program is kept from writing outside its folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        target = os.path.join(folder, "written")
        run([f"open({target!r}, 'w')"], Limits(), isolated)
        return not os.path.exists(target)


def run(parts: list[str], limits: Limits, isolated: Isolation | None = None) -> str | None:
    """Run pieces of Python one after the other in one module; return what went wrong, None when all ran to the end.

    Raises ``RuntimeError`` when the sandbox itself does not work.
    """
    isolated = isolated or isolation()
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="inftythink-")
    try:
        if isolated.nobody:
            os.chown(folder, _NOBODY, _NOBODY)
        said = _said(_job(parts, limits, isolated, token), folder, limits, isolated)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _trouble(said, token, limits)


def _job(parts: list[str], limits: Limits, isolated: Isolation, token: str) -> dict[str, Any]:
    most = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_AS": limits.memory_mb << 20,
        "RLIMIT_FSIZE": limits.file_mb << 20,
        "RLIMIT_NOFILE": 128,
        "RLIMIT_CORE": 0,
    }
    if isolated.namespaces:  # elsewhere the user's other processes would count
        most["RLIMIT_NPROC"] = limits.processes
    return {
        "parts": parts,
        "token": token,
        "seconds": limits.seconds,
        "limits": most,
        "created": _CREATED * limits.processes,
        "refuse": not isolated.namespaces,
    }


def _said(job: dict[str, Any], folder: str, limits: Limits, isolated: Isolation) -> list[dict[str, Any]]:
    """Run the job; return what the watcher and the program said."""
    here, there = os.pipe()
    prefix = _UNSHARE if isolated.namespaces else []
    other_user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if isolated.nobody else {}
    try:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-c", _INSIDE, str(there)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[there],
            start_new_session=True,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"},
            **other_user,
        )
    except OSError:
        os.close(here)
        raise
    finally:
        os.close(there)
    with os.fdopen(here, "rb", buffering=0) as reader:
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()
            return _read(reader.fileno(), time.monotonic() + limits.seconds + _GRACE)
        finally:
            _end(process)


def _read(descriptor: int, deadline: float) -> list[dict[str, Any]]:
    """Read lines of JSON until all that could write them is gone."""
    text = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        piece = os.read(descriptor, 1 << 16)
        if not piece or len(text) > 1 << 20:
            break
        text += piece
    said = []
    for line in text.splitlines():
        with suppress(ValueError):
            said.append(json.loads(line))
    return [one for one in said if isinstance(one, dict)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the watcher, which ends all that it watches: first by hanging up, then by force."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _trouble(said: list[dict[str, Any]], token: str, limits: Limits) -> str | None:
    """Return what went wrong with the program, None when nothing did."""
    for one in said:
        if one.get("token") == token:
            trouble = one.get("trouble")
            return None if trouble is None else str(trouble)
    for one in said:
        if one.get("timeout"):
            return f"time limit of {limits.seconds:g} s"
        if "created" in one:
            return f"process limit: more than {one['created']} were created"
        if isinstance(status := one.get("status"), int):
            return _ended(status, limits)
    raise RuntimeError("the sandbox did not start, or was ended from outside")


def _ended(status: int, limits: Limits) -> str:
    if status >= 0:
        return f"the program ended itself (exit code {status}) before the tests were through"
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"CPU limit of {limits.cpu_seconds} s" if status == -signal.SIGXCPU else "killed"
    return f"the program crashed ({signal.Signals(-status).name})"
