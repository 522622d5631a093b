"""Folders that are full, or that nobody may write to. For tests only.

Both want a file system of their own, which only root (or whoever has CAP_SYS_ADMIN) can mount. Where that is not
possible the nearest thing is done instead, and said on standard output: files that may not grow (RLIMIT_FSIZE), and
modes or flags that forbid writing. Where nothing works a test fails and says what it needs; it is never skipped.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Disk:
    """A folder with little room; ``begin`` is for the process that is to have no more of it, until ``grow``."""

    path: Path
    begin: Callable[[], None] | None
    mounted: bool

    def grow(self) -> None:
        """Make room."""
        self.begin = None
        if self.mounted:
            assert _run("mount", "-o", "remount,size=512m", str(self.path))


@contextmanager
def small_disk(path: Path, room: int) -> Iterator[Disk]:
    """Have a disk of ``room`` bytes."""
    path.mkdir()
    mounted = _run("mount", "-t", "tmpfs", "-o", f"size={room // 4096 * 4096}", "tmpfs", str(path))
    longest = max(4096, room // 8)
    print(
        f"disk of {room:,} bytes: {'tmpfs' if mounted else f'no mounting here, so files of at most {longest:,} bytes'}"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))

    try:
        yield Disk(path, None if mounted else limit, mounted)
    finally:
        if mounted:
            assert _run("umount", str(path))


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Have a folder that cannot be written to."""
    bound = _run("mount", "--bind", str(path), str(path))
    if bound and _run("mount", "-o", "remount,bind,ro", str(path)):
        how, undo = "a mount that is read only", ("umount", str(path))
    elif os.getuid() and (path.chmod(0o555) or True):
        how, undo = "its mode, since nothing can be mounted here", ("chmod", "755", str(path))
    else:
        assert _run("chattr", "+i", str(path)), "this test needs to mount (CAP_SYS_ADMIN), or chattr, or not to be root"
        how, undo = "chattr +i, since nothing can be mounted here", ("chattr", "-i", str(path))
    print(f"{path.name} cannot be written to: {how}")
    try:
        yield
    finally:
        assert _run(*undo)


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
