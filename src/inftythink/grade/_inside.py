"""What runs inside the sandbox: a watcher, and its child, which runs the program. Standard library only.

Not imported: ``sandbox.py`` hands this text to a bare interpreter, with the job as JSON on standard input. The watcher
ends the child and all that it started when the child is done, when the time is over, and when the other end of standard
input hangs up: then the process that asked for all this is gone.
"""

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from contextlib import suppress
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # Landlock: the same numbers on every architecture
_WRITE_FILE, _REMOVE_AND_MAKE, _TRUNCATE = 1 << 1, 0b111111111 << 4, 1 << 14
_TICK = 0.02
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.fork",
    "os.kill",
    "ctypes.",
)


def watch(job: dict[str, Any], report: int) -> None:
    """Run the program in a child; report how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child_ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _adopt_orphans()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        os.close(child_ended)
        os.close(wake)
        run(job, report)
    deadline = time.monotonic() + job["seconds"]
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([child_ended, 0], [], [], min(left, _TICK))
        if not ready and os.getpid() == 1 and _created() > job["created"]:
            _say(report, {"created": job["created"]})
            break
        if child_ended in ready:
            os.read(child_ended, 4096)
            status = _reap(child)
            if status is not None:
                _say(report, {"status": status})
                break
        elif ready:  # nobody waits for the result any more
            break
    else:
        _say(report, {"timeout": True})
    _end_all(child)


def run(job: dict[str, Any], report: int) -> None:
    """Run the program in this process, within its limits; report, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name, most in job["limits"].items():
        _limit(getattr(resource, name), most)
    _write_only_below(os.getcwd())
    if job["refuse"]:
        sys.addaudithook(_refuse)
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    trouble = None
    try:
        for part in job["parts"]:
            exec(compile(part, "<answer>", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        trouble = _describe(error)
    _say(report, {"token": job["token"], "trouble": trouble})
    os._exit(0)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):
        # A second more before the hard limit: the signal of the soft one tells what happened.
        resource.setrlimit(kind, (most, most + 1 if kind == resource.RLIMIT_CPU else most))


def _write_only_below(folder: str) -> None:
    """Have the system refuse all changes to files elsewhere, and TCP, where it can (Landlock; Linux 5.13 and 6.7)."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    files = _WRITE_FILE | _REMOVE_AND_MAKE | (_TRUNCATE if version >= 3 else 0)
    wanted = struct.pack("=QQ", files, 0b11) if version >= 4 else struct.pack("=Q", files)
    rules = libc.syscall(_CREATE_RULESET, wanted, len(wanted), 0)
    for path, allowed in ((folder, files), (os.devnull, _WRITE_FILE)):
        place = os.open(path, os.O_PATH)
        libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _created() -> int:
    """How many processes and threads were created since this process, the first of its namespace."""
    with open("/proc/loadavg") as file:
        return int(file.read().split()[-1])


def _refuse(event: str, arguments: object) -> None:
    """Refuse sockets, processes, signals and foreign functions where the system does not keep the program apart."""
    if event.startswith(_REFUSED):
        raise PermissionError("not allowed in the sandbox: " + event)


def _describe(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        text = str(error).strip().split("\n")[0][:300]
    except BaseException:
        text = ""
    return kind + ": " + text if text else kind


def _say(report: int, what: dict[str, Any]) -> None:
    with suppress(OSError):
        os.write(report, (json.dumps(what) + "\n").encode())


def _reap(child: int) -> "int | None":
    """Collect all that ended; return how the child did, None while it runs."""
    status = None
    while True:
        try:
            pid, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(how)


def _adopt_orphans() -> None:
    """Become the parent of whatever the child's children leave behind, so that it can be ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_all(child: int) -> None:
    """Kill the child's group, then whatever left the group, until nothing is left.

    In a namespace of processes nothing is to be done: it ends with this process, its first.
    """
    if os.getpid() == 1:
        return
    with suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    while True:
        for pid in _children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> "list[int]":
    """The processes whose parent is this one, as far as the system shows them."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        try:
            with open("/proc/" + name + "/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if name.isdigit() and int(parent) == os.getpid():
            found.append(int(name))
    return found


def read_job() -> dict[str, Any]:
    """Read the job from standard input, which stays open: its end says that nobody waits any more."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            os._exit(1)
        line += piece
    job: dict[str, Any] = json.loads(line)
    return job


if __name__ == "__main__":
    watch(read_job(), int(sys.argv[1]))
    os._exit(0)
