"""The watch over a lock while a run trains."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest

from accl.errors import BusyError
from accl.store.lock import TRAINING, RunLock, holder
from accl.store.rundir import RunDir, create_run
from accl.store.state import RunState, State, observe, write_state
from accl.training import guard as guard_module
from accl.training.guard import LockGuard
from accl.training.report import Reporter


class Said:
    """A reporter that keeps its events."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.events: list[str] = []

    def event(self, _level: str, _kind: str, message: str) -> None:
        self.events.append(message)

    def expect(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while not any(words in event for event in self.events):
            assert time.monotonic() < deadline, self.events
            time.sleep(0.01)


@pytest.fixture(name="said")
def _said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setattr(guard_module, "CHECK_EVERY_S", 0.01)
    return Said(create_run(tmp_path, "full", 1))


def test_a_lock_file_that_is_deleted_is_made_again_and_said(said: Said) -> None:
    with RunLock.acquire(said.run, TRAINING) as lock, LockGuard(lock, cast(Reporter, said)):
        said.run.lock.unlink()
        said.expect("taken again")
        held = holder(said.run)
        assert held is not None
        assert held.pid == os.getpid()


GUARDED = """
import sys
from pathlib import Path
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
from accl.training import guard
from accl.training.report import Reporter
guard.CHECK_EVERY_S = 0.01
run = RunDir(Path(sys.argv[1]))
with RunLock.acquire(run, TRAINING) as lock, guard.LockGuard(lock, Reporter(run)):
    print("guarded", flush=True)
    sys.stdin.read()
"""


def test_a_process_whose_lock_another_has_taken_ends_and_writes_no_more(tmp_path: Path) -> None:
    run = create_run(tmp_path, "full", 1)
    write_state(run, RunState(State.RUNNING))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", GUARDED, str(run.path)], stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "guarded\n"
        first.send_signal(signal.SIGSTOP)  # so that the other is the faster one
        os.waitpid(first.pid, os.WUNTRACED)
        run.lock.unlink()
        with RunLock.acquire(run, TRAINING):
            before = {path: path.read_bytes() for path in run.path.iterdir()}
            first.send_signal(signal.SIGCONT)
            assert "ends and writes no more" in first.stdout.read()
            assert first.wait() == BusyError.exit_code
            assert {path: path.read_bytes() for path in run.path.iterdir()} == before


SHARED = GUARDED.replace(
    "guard.LockGuard(lock, Reporter(run))", "guard.LockGuard(lock, reporter, process.say)"
).replace(
    "with RunLock",
    """
from accl.training.together import SharedProcess
other = RunDir(Path(sys.argv[2]))
process = SharedProcess([run, other])
reporter = Reporter(run, console=process.console(run))
others_lock, others = RunLock.acquire(other, TRAINING), Reporter(other, console=process.console(other))
with RunLock""",
)


def test_runs_that_share_the_process_end_with_it_and_say_why(tmp_path: Path) -> None:
    run, other = create_run(tmp_path, "full", 1), create_run(tmp_path, "full", 2)
    for each in (run, other):
        write_state(each, RunState(State.RUNNING))
    command = [sys.executable, "-c", SHARED, str(run.path), str(other.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "guarded\n"
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        run.lock.unlink()
        with RunLock.acquire(run, TRAINING):
            process.send_signal(signal.SIGCONT)
            assert process.wait() == BusyError.exit_code
            assert observe(run).state.trains
    assert observe(other).state is State.CRASHED
    assert f"its last error: run.lock of {run.id} is held by process {os.getpid()}" in observe(other).reason


def test_a_run_directory_that_is_gone_is_said_once_and_ends_nothing(said: Said) -> None:
    with RunLock.acquire(said.run, TRAINING) as lock, LockGuard(lock, cast(Reporter, said)):
        shutil.rmtree(said.run.path)
        said.expect("judged by its heartbeat")
        said.run.path.mkdir()
        said.expect("taken again")
    assert sum("judged" in event for event in said.events) == 1


def test_a_file_system_without_locks_is_said_once(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLock.acquire(said.run, TRAINING) as lock, LockGuard(lock, cast(Reporter, said)):
        said.expect("has no locks")
        said.run.lock.unlink()
        said.expect("taken again")
    assert sum("has no locks" in event for event in said.events) == 1
