"""Full disks, folders that cannot be written to, and two runs in one folder."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from inftythink.errors import UsageError
from inftythink.store import JsonLines, lock
from inftythink.train.folder import claimed
from tests.faults.places import read_only, small_disk
from tests.faults.runs import Whole, Work, finish, same, start
from tests.train.conftest import SHAPE


def on_a_full_disk(work: Work, whole: Whole, room: int, path: Path, tries: int = 2) -> None:
    """Run where there is too little room: a clear error; then where there is enough: what an unbroken run makes."""
    with small_disk(path, room) as disk:
        for _ in range(tries):  # a second try in vain spoils nothing
            code, said = start(work, path / "run", begin=disk.begin).wait()
            assert code == 1, said[-4000:]
            assert "Traceback" not in said, said[-4000:]
            assert "free some space and run the same command again" in said.replace("\n", " "), said[-4000:]
        disk.grow()
        finish(work, path / "run")
        same(work.collect(path / "run"), whole.made)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_an_evaluation_fills_the_disk(evaluates, evaluated, tmp_path, share):
    on_a_full_disk(evaluates, evaluated, int(share * evaluated.size), tmp_path / "disk")


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_build_fills_the_disk(converts, converted, tmp_path, share):
    on_a_full_disk(converts, converted, int(share * converted.size), tmp_path / "disk")


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_learning_run_fills_the_disk(learns, learnt, tmp_path, share):
    on_a_full_disk(learns, learnt, int(share * learnt.size), tmp_path / "disk", tries=1)


def refused(work: Work, out: Path, code: int = 2) -> str:
    """Run a command that is refused; return its one line."""
    got, said = start(work, out).wait()
    assert got == code, said[-4000:]
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    return line


def test_a_folder_that_cannot_be_written_to(evaluates, tmp_path):
    with read_only(tmp_path):
        assert "cannot be used as a run folder (" in refused(evaluates, tmp_path / "run")
    (tmp_path / "run").mkdir()
    finish(evaluates, tmp_path / "run")
    with read_only(tmp_path / "run"):
        assert "cannot be used as a run folder (" in refused(evaluates, tmp_path / "run")


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["converts", "learns"])
def test_other_folders_that_cannot_be_written_to(name, request, tmp_path):
    with read_only(tmp_path):
        assert str(tmp_path / "run") in refused(request.getfixturevalue(name), tmp_path / "run")


def test_a_second_run_is_told_who_has_the_folder_and_kill_9_leaves_no_lock(evaluates, evaluated, tmp_path):
    out = tmp_path / "run"
    first = start(evaluates, out)
    while not (out / ".lock").exists() or not (out / ".lock").read_text():
        assert first.process.poll() is None
        time.sleep(0.005)
    first.process.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
    holder = f"process {first.process.pid} on {socket.gethostname()}"
    assert f"{out}: another run has this folder open ({holder}); wait for it" in refused(evaluates, out)
    first.process.kill()
    first.wait()
    finish(evaluates, out)
    same(evaluates.collect(out), evaluated.made)


def test_a_lock_ends_when_it_is_let_go(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        lock(tmp_path)
    os.close(held)
    os.close(lock(tmp_path))


def test_training_takes_the_lock_of_its_folder(tmp_path):
    from inftythink.train.settings import Data, ModelSource, SftConfig

    config = SftConfig(
        output=tmp_path / "run", model=ModelSource(settings=SHAPE, tokenizer="x"), data=Data(folders=("d",))
    )
    with claimed(config, first=True):
        with claimed(config, first=False), pytest.raises(UsageError, match="another run has this folder open"):
            lock(tmp_path / "run")
        with pytest.raises(UsageError, match="another run has this folder open"), claimed(config, first=True):
            pass
    with claimed(config, first=True):
        pass


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["converts", "learns"])
def test_a_second_build_or_learning_run_is_refused(name, request, tmp_path):
    work, out = request.getfixturevalue(name), tmp_path / "run"
    held = lock(out)
    assert f"({f'process {os.getpid()} on {socket.gethostname()}'})" in refused(work, out)
    os.close(held)


def test_a_line_that_found_no_room_leaves_the_file_as_it_was(tmp_path):
    """Another call of the same process may find room again: it must not go on in the middle of a line."""
    from inftythink.errors import InputError

    with small_disk(tmp_path / "disk", 16384) as disk:
        if not disk.mounted:
            pytest.fail("this test needs to mount a tmpfs (root, or CAP_SYS_ADMIN)")
        lines = JsonLines(tmp_path / "disk" / "a.jsonl")
        lines.append({"n": 1})
        with pytest.raises(InputError, match="No space left on device"):
            lines.append({"n": "x" * 20000})
        lines.append({"n": 2})
        lines.close()
        assert (tmp_path / "disk" / "a.jsonl").read_text() == '{"n":1}\n{"n":2}\n'
