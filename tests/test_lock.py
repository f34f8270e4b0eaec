"""The lock of a run: held by one, handed on without a gap, and never a reason to hang or to crash."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from accl.errors import BusyError, DamagedError, RunError
from accl.store import lock as lock_module
from accl.store.lock import MERGING, STARTING, TRAINING, Holder, Proof, RunLock, holder, probe
from accl.store.rundir import RunDir, create_run

HOLD = """
import sys
from pathlib import Path
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
lock = RunLock.acquire(RunDir(Path(sys.argv[1])), TRAINING)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path, "full", 1)


def held_elsewhere(run: RunDir) -> subprocess.Popen[str]:
    """Start a process that holds the lock until its stdin ends."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOLCK) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_held_lock_says_host_pid_and_since_when(run: RunDir) -> None:
    assert probe(run) == Proof(None)
    with held_elsewhere(run) as process:
        said = holder(run)
        assert said is not None
        assert (said.host, said.pid, said.purpose) == (socket.gethostname(), process.pid, TRAINING)
        with pytest.raises(BusyError) as refused:
            RunLock.acquire(run, STARTING)
        for words in (socket.gethostname(), str(process.pid), said.since):
            assert words in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_killed_holder_frees_the_lock(run: RunDir) -> None:
    with held_elsewhere(run) as process:
        process.kill()
        process.wait()
        assert probe(run) == Proof(False)
        assert holder(run) is None
        RunLock.acquire(run, TRAINING).release()


def test_a_lock_that_was_handed_on_is_held_until_the_last_one_lets_go(run: RunDir) -> None:
    mine = RunLock.acquire(run, STARTING)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[mine.descriptor])
    mine.sign(TRAINING, child.pid)
    mine.release()
    mine.release()  # twice does no harm
    said = holder(run)
    assert said is not None
    assert (said.pid, said.purpose) == (child.pid, TRAINING)
    child.communicate()
    assert holder(run) is None


def test_a_lock_is_adopted_only_by_its_own_descriptor(run: RunDir, tmp_path: Path) -> None:
    with RunLock.acquire(run, STARTING) as mine:
        copy = os.dup(mine.descriptor)
        adopted = RunLock.adopt(run, copy, TRAINING)
        assert adopted is not None
        assert adopted.works
        assert not os.get_inheritable(copy)
        assert holder(run) == Holder(
            socket.gethostname(), os.getpid(), json.loads(run.lock.read_text())["since"], TRAINING
        )
        with open(tmp_path / "other", "w") as other:
            assert RunLock.adopt(run, other.fileno(), TRAINING) is None
        assert RunLock.adopt(run, 987, TRAINING) is None
        # Another opening of the same file is not the lock.
        with open(run.lock) as another:
            assert RunLock.adopt(run, another.fileno(), TRAINING) is None
        adopted.release()


def test_children_of_a_holder_do_not_keep_the_lock(run: RunDir) -> None:
    mine = RunLock.acquire(run, TRAINING)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    mine.release()
    assert holder(run) is None
    child.communicate()


def test_looking_never_keeps_anybody_from_taking_the_lock(run: RunDir) -> None:
    RunLock.acquire(run, TRAINING).release()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            probe(run)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            RunLock.acquire(run, TRAINING).release()
    finally:
        done.set()
        for looker in lookers:
            looker.join()


def test_a_deleted_or_replaced_lock_file_is_taken_again(run: RunDir) -> None:
    mine = RunLock.acquire(run, TRAINING)
    assert mine.still_ours()
    for lose in (run.lock.unlink, lambda: os.replace(_other(run), run.lock)):
        lose()
        assert holder(run) is None
        assert mine.still_ours()
        said = holder(run)
        assert said is not None
        assert said.pid == os.getpid()
    mine.release()


def _other(run: RunDir) -> Path:
    other = run.path / "other"
    other.write_text("")
    return other


def test_a_lock_that_another_trainer_took_is_lost_and_one_that_a_reader_took_is_not(run: RunDir) -> None:
    mine = RunLock.acquire(run, TRAINING)
    run.lock.unlink()
    with RunLock.acquire(run, MERGING):
        assert mine.still_ours()
    assert mine.still_ours()
    run.lock.unlink()
    with held_elsewhere(run):
        assert not mine.still_ours()
    mine.release()


def test_a_file_replaced_between_opening_and_locking_is_not_taken_for_the_lock(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = lock_module._try_lock, []

    def replaced(path: Path, descriptor: int) -> bool:
        if not calls:
            path.unlink()
        calls.append(descriptor)
        return original(path, descriptor)

    monkeypatch.setattr(lock_module, "_try_lock", replaced)
    with RunLock.acquire(run, TRAINING):
        assert len(calls) == 2
        assert holder(run) is not None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_nothing_is_proved_and_the_last_to_sign_has_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without_locks(monkeypatch, number)
    first = RunLock.acquire(run, TRAINING)
    assert not first.works
    assert probe(run) == Proof(None)
    first.sign(TRAINING)
    second = RunLock.acquire(run, STARTING)
    assert first.still_ours()  # the other may yet be refused by the heartbeat
    second.sign(STARTING, os.getpid() + 1)
    assert not first.still_ours()
    run.lock.unlink()
    assert first.still_ours()
    first.release()
    second.release()


def test_a_lock_that_fails_in_another_way_says_so(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, errno.EIO)
    before = set(os.listdir("/dev/fd"))
    with pytest.raises(RunError, match="cannot be locked"):
        RunLock.acquire(run, TRAINING)
    assert set(os.listdir("/dev/fd")) == before


def no_folder(path: Path) -> None:
    path.mkdir()


def no_pipe(path: Path) -> None:
    os.mkfifo(path)


def no_link(path: Path) -> None:
    path.symlink_to("elsewhere")


def no_loop(path: Path) -> None:
    path.symlink_to(path.name)


def no_socket(path: Path) -> None:
    folder = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has a hundred bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(folder)


@pytest.mark.parametrize("make", [no_folder, no_pipe, no_link, no_loop, no_socket])
def test_what_is_no_file_is_no_lock(run: RunDir, make: Callable[[Path], None]) -> None:
    make(run.lock)
    assert probe(run) == Proof(None)
    assert holder(run) is None
    with pytest.raises(DamagedError, match="is not a file"):
        RunLock.acquire(run, TRAINING)
    assert os.listdir(run.path) == ["run.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 4000,
        b'{"host": "h"',
        b'{"host": ["h"], "pid": 3, "since": "now"}',
        b'{"host": "h", "pid": "3", "since": "now"}',
        b'{"host": "h", "pid": true, "since": "now"}',
        b'{"host": "h", "pid": -3, "since": "now"}',
        b'{"host": "h", "pid": 1e400, "since": "now"}',
        b'{"host": "h", "pid": 99999999999999999999, "since": "now"}',
        b'{"host": "h", "pid": 3, "since": "now", "more": 1}',
        b"x" * 100_000,
    ],
)
def test_a_holder_that_says_nothing_sensible_holds_all_the_same(run: RunDir, content: bytes) -> None:
    run.lock.write_bytes(content)
    with open(run.lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert probe(run) == Proof(True, Holder())
        with pytest.raises(BusyError, match="does not say who it is"):
            RunLock.acquire(run, TRAINING, wait_s=0)
    with RunLock.acquire(run, TRAINING):
        said = holder(run)
        assert said is not None
        assert said.pid == os.getpid()


def test_a_holder_cannot_write_to_the_terminal(run: RunDir) -> None:
    run.lock.write_text(json.dumps({"host": "\x1b[2J", "pid": 3, "since": "a\nb"}))
    with open(run.lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert str(holder(run)).isprintable()


def test_a_reader_that_merges_is_no_trainer(run: RunDir) -> None:
    with RunLock.acquire(run, MERGING):
        said = holder(run)
        assert said is not None
        assert not said.trains
        with pytest.raises(BusyError, match=r"merging measurements.*Try again"):
            RunLock.acquire(run, STARTING, wait_s=0)


def test_a_run_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    gone = RunDir(tmp_path / "gone")
    assert probe(gone) == Proof(None)
    with pytest.raises(RunError, match="cannot be opened"):
        RunLock.acquire(gone, TRAINING)


AS_NOBODY = """
import os, sys
from pathlib import Path
from accl.errors import RunError
from accl.store.lock import TRAINING, RunLock, probe
from accl.store.rundir import RunDir
os.setgid(65534); os.setuid(65534)
run = RunDir(Path(sys.argv[1]))
print(probe(run).held)
try:
    with RunLock.acquire(run, TRAINING):
        print(probe(run).held)
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_locks_what_it_can_read_and_is_told_of_the_rest() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        there = RunDir(Path(folder) / "run")
        there.path.mkdir()

        def said() -> list[str]:
            command = [sys.executable, "-c", AS_NOBODY, str(there.path)]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

        missing = said()
        assert missing[0] == "None"
        assert "Permission denied" in missing[1]
        there.lock.write_text("")
        assert said() == ["False", "True"]
        there.lock.chmod(0)
        unreadable = said()
        assert unreadable[0] == "None"
        assert "Permission denied" in unreadable[1]
