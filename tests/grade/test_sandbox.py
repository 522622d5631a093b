"""The sandbox: each limit, and that nothing outlives it. No program here does harm where a limit should not hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inftythink.errors import UsageError
from inftythink.grade.sandbox import Isolation, Limits, isolation, run

LIMITS = Limits(seconds=20, cpu_seconds=1, memory_mb=256, file_mb=1, processes=4)

FORKS = """
import os, time
for _ in range(200):  # each waits: there would be two hundred
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""

LEAVES_A_CHILD = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
"""


def working_below(folder: Path) -> list[int]:
    """The processes whose working directory is below a folder."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            place = os.readlink(f"/proc/{name}/cwd")
        except OSError:
            continue
        if place.startswith(f"{folder}/"):
            found.append(int(name))
    return found


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sandboxes of a test have their folders."""
    tmp_path.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("program", "trouble"),
    [
        ("x = 1", None),
        ("print('x' * 10**7)", None),
        ("open('mine', 'w').write('x'); assert open('mine').read() == 'x'", None),
        ("import sys; assert sys.stdin.read() == ''", None),
        ("assert 1 == 2, 'they differ'", "AssertionError: they differ"),
        ("input()", "EOFError"),
        ("def f(:", "SyntaxError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("while True: pass", "CPU limit of 1 s"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(4 << 20))", "OSError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "the program ended itself (exit code 0)"),
        ("import os; os.abort()", "the program crashed (SIGABRT)"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), timeout=2)", ""),
        ("import socket; socket.getaddrinfo('example.com', 80)", ""),
        ("import urllib.request; urllib.request.urlopen('http://example.com', timeout=2)", ""),
        (FORKS, ""),
        ("import threading, time\nfor _ in range(64): threading.Thread(target=time.sleep, args=(20,)).start()", ""),
        ("import os; assert 'SECRET' not in os.environ", None),
    ],
)
def test_each_limit_holds(program: str, trouble: str | None, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    found = run([program], LIMITS)
    assert (found is None) == (trouble is None), found
    assert (found or "").startswith(trouble or "")
    assert list(place.iterdir()) == []
    assert working_below(place) == []


def test_wall_time_is_limited_when_nothing_is_computed() -> None:
    assert run(["import time; time.sleep(600)"], Limits(seconds=0.5)) == "time limit of 0.5 s"


def test_nothing_outside_the_folder_is_changed_where_the_system_can_see_to_it(place: Path) -> None:
    target = place / "outside"
    run([f"open({str(target)!r}, 'w').write('x')"], LIMITS)
    assert target.exists() is not isolation().files


def test_pieces_share_names_and_stop_at_the_first_trouble() -> None:
    assert run(["a = 1", "assert a == 1"], LIMITS) is None
    assert run(["a = 1", "raise KeyError('b')", "assert False"], LIMITS) == "KeyError: 'b'"


def test_a_program_cannot_say_that_it_passed() -> None:
    """What it writes to every descriptor is not taken for the verdict of the tests."""
    forged = "\n".join(
        [
            "import json, os",
            "for number in range(3, 64):",
            "    try: os.write(number, json.dumps({'token': '', 'trouble': None}).encode() + b'\\n')",
            "    except OSError: pass",
            "os._exit(0)",
        ]
    )
    assert run([forged], LIMITS) is not None


def test_a_child_that_leaves_its_group_ends_with_the_program(place: Path) -> None:
    run([LEAVES_A_CHILD], LIMITS)
    assert working_below(place) == []


ASKS = """
import signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin with it ignored
tempfile.tempdir = sys.argv[1]
from inftythink.grade.sandbox import Limits, run
run(["import time; time.sleep(600)"], Limits(seconds=60))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sandbox_ends_with_the_process_that_asked(how: signal.Signals, place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ASKS, str(place)], stderr=subprocess.DEVNULL) as process:
        assert eventually(lambda: len(working_below(place)) > 0)
        process.send_signal(how)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert eventually(lambda: working_below(place) == [])


@pytest.mark.parametrize(
    ("program", "trouble"),
    [
        ("x = 1", None),
        ("import socket; socket.socket()", "PermissionError: not allowed in the sandbox: socket.__new__"),
        (
            "import subprocess; subprocess.run(['true'])",
            "PermissionError: not allowed in the sandbox: subprocess.Popen",
        ),
        ("import os; os.system('true')", "PermissionError: not allowed in the sandbox: os.system"),
        ("import os; os.kill(os.getpid(), 0)", "PermissionError: not allowed in the sandbox: os.kill"),
        ("import ctypes; ctypes.CDLL(None)", "PermissionError: not allowed in the sandbox: ctypes"),
        (FORKS, "PermissionError: not allowed in the sandbox: os.fork"),
        ("while True: pass", "CPU limit of 1 s"),
        ("bytearray(1 << 30)", "MemoryError"),
    ],
)
def test_without_namespaces_python_refuses(program: str, trouble: str | None, place: Path) -> None:
    found = run([program], LIMITS, Isolation(namespaces=False))
    assert (found is None) == (trouble is None), found
    assert (found or "").startswith(trouble or "")
    assert working_below(place) == []


def test_what_is_in_force_is_said() -> None:
    assert "namespaces" in str(Isolation(True, True))
    assert "changes no file" in str(Isolation(True, True))
    assert "refused by Python only" in str(Isolation(False))
    assert "nobody" in str(Isolation(False, nobody=True))


def test_too_much_time_is_refused() -> None:
    with pytest.raises(UsageError, match="up to 60 s"):
        Limits(seconds=61)
