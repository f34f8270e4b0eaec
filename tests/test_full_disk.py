"""On a full disk every command says so, leaves nothing behind, and what frees room or stops work still does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from factory import finished_run

from accl.config import resolve
from accl.errors import RunError
from accl.launch import process, queue
from accl.store import rundir
from accl.store.labels import edit_labels
from accl.store.rundir import RunDir
from accl.store.state import State, read_state
from accl.store.tested import SplitTest, note_accuracy
from accl.store.trash import Trashed, remove_runs, restore_run
from accl.store.waiting import Waiting, write_waiting

NO_ROOM = "No space left on device"


def prepared(root: Path) -> RunDir:
    return process.prepare(root, resolve("full", "demo", []).config, ["accl"], experiment="pilot")


def waiting(root: Path) -> RunDir:
    run = prepared(root)
    write_waiting(run, Waiting(1.0, 1.0))
    return run


def stopped(root: Path) -> RunDir:
    run = waiting(root)
    process.withdraw(run)
    return run


def fill(monkeypatch: pytest.MonkeyPatch, room: int = 0) -> None:
    """Let every file that is replaced find no room, after so many that do."""
    replace, left = rundir.replace_file, iter(range(room))

    def refuse(path: Path, content: bytes, mode: int = 0o666) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, NO_ROOM, str(path))
        replace(path, content, mode)

    monkeypatch.setattr(rundir, "replace_file", refuse)


def contents(run: RunDir) -> dict[str, bytes]:
    """All files of a run but its lock, which says since when it was held last."""
    files = (path for path in run.path.iterdir() if path.is_file() and path != run.lock)
    return {path.name: path.read_bytes() for path in files}


WRITES: dict[str, tuple[Callable[[Path], RunDir], Callable[[RunDir], object]]] = {
    "labels": (finished_run, lambda run: edit_labels(run, note="late")),
    "accuracy of a test": (finished_run, lambda run: note_accuracy(run, SplitTest(9, 3, 1))),
    "place in the queue": (waiting, lambda run: queue.pause(run.path.parent, [run])),
    "state of a run that goes on": (stopped, lambda run: queue.enqueue(run.path.parent, [run])),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_write_without_room_says_so_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    make, write = WRITES[what]
    run = make(tmp_path)
    if what == "accuracy of a test":
        state = run.read_json(run.state)
        run.write_json(run.state, state | {"latest": {}})
    before = contents(run)
    fill(monkeypatch)
    with pytest.raises(RunError, match=NO_ROOM) as error:
        write(run)
    assert "accl prune" in error.value.hint
    assert contents(run) == before


@pytest.mark.parametrize("room", range(4))
def test_nothing_is_left_of_a_run_that_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    fill(monkeypatch, room)
    with pytest.raises(RunError, match=NO_ROOM):
        prepared(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_waits_is_cancelled_and_removed_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, removed = waiting(tmp_path), waiting(tmp_path)
    fill(monkeypatch)
    queue.cancel(tmp_path, [cancelled])
    (entry,) = remove_runs([removed])
    assert isinstance(entry, Trashed)
    restore_run(entry)
    assert [read_state(run).state for run in (cancelled, removed)] == [State.STOPPED] * 2
    assert queue.waiting(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = waiting(tmp_path)

    def refuse(path: Path, *_args: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(rundir, "replace_file", refuse)
    with pytest.raises(RunError, match="Permission denied") as error:
        process.withdraw(run)
    assert error.value.hint == "Is its folder yours?"
    assert read_state(run).state is State.QUEUED
