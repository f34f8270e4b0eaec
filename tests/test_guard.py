"""The watch over a lock while a run trains."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import cast

import pytest

from accl.store.lock import TRAINING, RunLock, holder
from accl.store.rundir import RunDir, create_run
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
