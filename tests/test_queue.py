"""Runs that wait: in which order, who may change it, and what a damaged or copied one costs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factory import crashed_run, finished_run, running_run

from accl.config import resolve
from accl.errors import BusyError, DamagedError, RunError
from accl.launch import process, queue
from accl.store.lock import PAUSING, STARTING, TRAINING, RunLock
from accl.store.rundir import RunDir, run_folders
from accl.store.state import State, observe, read_state, write_state
from accl.store.waiting import Waiting, read_waiting


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)


def prepared(root: Path, seed: int = 0, experiment: str = "") -> RunDir:
    config = resolve("full", "demo", [f"train.seed={seed}"]).config
    return process.prepare(root, config, ["accl", "train"], experiment)


@pytest.fixture(name="runs")
def _runs(tmp_path: Path) -> list[RunDir]:
    """Five runs that wait in this order."""
    runs = [prepared(tmp_path, seed) for seed in range(5)]
    queue.enqueue(tmp_path, runs)
    return runs


def order(root: Path) -> list[RunDir]:
    return [entry.run for entry in queue.waiting(root)]


def test_runs_wait_in_the_order_in_which_they_came(tmp_path: Path, runs: list[RunDir]) -> None:
    assert order(tmp_path) == runs
    later = prepared(tmp_path, 9)
    queue.enqueue(tmp_path, [later], per_gpu=2, jobs=3)
    *_, last = queue.waiting(tmp_path)
    assert last.run == later
    assert last.ready
    assert last.waiting is not None
    assert (last.waiting.per_gpu, last.waiting.jobs, last.waiting.folder) == (2, 3, os.getcwd())
    assert observe(later).reason == "waits for its turn; see: accl queue"


def test_a_prepared_run_that_nobody_queued_does_not_wait(tmp_path: Path, runs: list[RunDir]) -> None:
    other = prepared(tmp_path, 9)
    assert other not in order(tmp_path)
    assert "never started" in observe(other).reason
    with pytest.raises(RunError, match="does not wait"):
        queue.pause(tmp_path, [runs[0], other])
    assert all(entry.ready for entry in queue.waiting(tmp_path))  # none was changed


def test_queueing_again_keeps_the_place_and_ends_a_pause(tmp_path: Path, runs: list[RunDir]) -> None:
    queue.pause(tmp_path, runs[:2], "the disk is full")
    assert [entry.ready for entry in queue.waiting(tmp_path)] == [False, False, True, True, True]
    assert observe(runs[0]).reason == "paused: the disk is full"
    queue.unpause(tmp_path, runs[:1])
    queue.enqueue(tmp_path, runs[1:2])
    assert order(tmp_path) == runs
    assert all(entry.ready for entry in queue.waiting(tmp_path))


@pytest.mark.parametrize(
    ("moved", "place", "expected"),
    [
        ([4], 1, [4, 0, 1, 2, 3]),
        ([0], 5, [1, 2, 3, 4, 0]),
        ([0], 99, [1, 2, 3, 4, 0]),
        ([3, 1], 2, [0, 3, 1, 2, 4]),
        ([0, 1, 2, 3, 4], 1, [0, 1, 2, 3, 4]),
        ([4, 3, 2, 1, 0], 3, [4, 3, 2, 1, 0]),
    ],
)
def test_runs_are_moved_to_a_place(
    tmp_path: Path, runs: list[RunDir], moved: list[int], place: int, expected: list[int]
) -> None:
    queue.move(tmp_path, [runs[i] for i in moved], place)
    assert order(tmp_path) == [runs[i] for i in expected]


def test_a_place_between_two_is_found_as_often_as_it_is_asked_for(tmp_path: Path, runs: list[RunDir]) -> None:
    for _ in range(40):  # each halves the distance, which ends at the precision of a number
        queue.move(tmp_path, [order(tmp_path)[2]], 2)
    queue.move(tmp_path, [runs[4]], 2)
    assert order(tmp_path)[1] == runs[4]
    assert len(set(order(tmp_path))) == 5


def test_what_is_cancelled_counts_as_stopped_and_its_folder_stays(tmp_path: Path, runs: list[RunDir]) -> None:
    queue.cancel(tmp_path, runs[1:3])
    assert order(tmp_path) == [runs[0], *runs[3:]]
    assert (read_state(runs[1]).state, read_state(runs[1]).reason) == (State.STOPPED, "stopped before it was started")
    with pytest.raises(RunError, match="does not wait"):
        queue.cancel(tmp_path, runs[1:2])
    process.stop(runs[0])  # which is what accl stop does
    assert order(tmp_path) == runs[3:]


def test_a_run_whose_trainer_has_just_been_started_is_not_cancelled(tmp_path: Path, runs: list[RunDir]) -> None:
    with RunLock.acquire(runs[0], TRAINING):
        assert order(tmp_path) == runs[1:]
        with pytest.raises(RunError, match="does not wait"):
            queue.cancel(tmp_path, runs[:1])
        with pytest.raises(BusyError):
            process.withdraw(runs[0])
    assert read_state(runs[0]).state is State.QUEUED


def test_stopped_and_crashed_runs_wait_to_go_on_and_finished_and_living_ones_do_not(tmp_path: Path) -> None:
    stopped, crashed = prepared(tmp_path), crashed_run(tmp_path)
    write_state(stopped, read_state(stopped).changed(state=State.STOPPED, step=40, started=1.0, reason="as asked"))
    queue.enqueue(tmp_path, [stopped, crashed])
    assert order(tmp_path) == [stopped, crashed]
    assert (observe(stopped).state, observe(stopped).step) == (State.QUEUED, 40)
    assert observe(crashed).state is State.QUEUED
    queue.cancel(tmp_path, [stopped])
    assert read_state(stopped).reason == "stopped while it waited"
    with pytest.raises(RunError, match="has finished"):
        queue.enqueue(tmp_path, [stopped, finished_run(tmp_path)])
    assert order(tmp_path) == [crashed]  # nothing was queued
    with pytest.raises(BusyError, match="is held by"):
        queue.enqueue(tmp_path, [running_run(tmp_path)])


def test_a_copy_of_a_waiting_run_does_not_wait(tmp_path: Path, runs: list[RunDir]) -> None:
    copy = RunDir(tmp_path / f"{runs[0].id[:-4]}0000")
    shutil.copytree(runs[0].path, copy.path)
    assert order(tmp_path) == runs
    assert "never started" in observe(copy).reason
    queue.enqueue(tmp_path, [copy])
    assert order(tmp_path) == [*runs, copy]


@pytest.mark.parametrize(
    "changed",
    [
        {"position": "first"},
        {"position": True},
        {"position": 10**400},
        {"since": None},
        {"paused": 1},
        {"per_gpu": 0},
        {"jobs": -1},
        {"folder": "relative"},
        {"folder": "/a\0b"},
        {"command": "accl"},
        {"command": [1]},
    ],
)
def test_a_damaged_place_is_one_damaged_row(tmp_path: Path, runs: list[RunDir], changed: dict[str, Any]) -> None:
    content = json.loads(runs[0].queue.read_text(encoding="utf-8"))
    runs[0].queue.write_text(json.dumps(content | changed), encoding="utf-8")
    *others, damaged = queue.waiting(tmp_path)
    assert [entry.run for entry in others] == runs[1:]
    assert damaged.run == runs[0]
    assert not damaged.ready
    assert isinstance(damaged.problem, DamagedError)
    assert "cannot be understood" in observe(runs[0]).reason
    with pytest.raises(DamagedError):
        queue.pause(tmp_path, runs)
    queue.enqueue(tmp_path, runs[:1])  # as the error says
    assert order(tmp_path) == [*runs[1:], runs[0]]


@pytest.mark.parametrize(
    "spoil", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), lambda path: path.write_text("{")]
)
def test_a_place_that_is_no_file_harms_no_other(
    tmp_path: Path, runs: list[RunDir], spoil: Callable[[Path], object]
) -> None:
    runs[2].queue.unlink()
    spoil(runs[2].queue)
    assert order(tmp_path) == [*runs[:2], *runs[3:], runs[2]]


def test_text_of_a_place_is_printable(tmp_path: Path, runs: list[RunDir]) -> None:
    queue.pause(tmp_path, runs[:1], "a\x1b[31mred\nflag")
    place = read_waiting(runs[0])
    assert place is not None
    assert "\x1b" not in place.paused
    assert "\n" not in place.paused
    assert "\x1b" not in observe(runs[0]).reason


def test_the_folder_of_the_worker_is_no_run_and_a_link_is_refused(tmp_path: Path, runs: list[RunDir]) -> None:
    folder = queue.queue_folder(tmp_path)
    assert folder.is_dir()
    assert run_folders(tmp_path) == sorted(runs, key=lambda run: run.id)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(DamagedError, match="symbolic link"):
        queue.queue_folder(tmp_path)


def test_one_worker_has_the_lock_until_it_ends(tmp_path: Path) -> None:
    assert queue.worker_pid(tmp_path) is None
    lock = queue.take_worker_lock(tmp_path)
    assert lock is not None
    assert queue.worker_pid(tmp_path) == os.getpid()
    assert queue.take_worker_lock(tmp_path) is None
    os.close(lock)
    assert queue.worker_pid(tmp_path) is None


def test_a_run_whose_turn_has_come_is_not_started_once_it_was_taken_out(tmp_path: Path, runs: list[RunDir]) -> None:
    queue.cancel(tmp_path, runs[:1])
    with pytest.raises(BusyError, match="does not wait any more: it is stopped"):
        process.start(runs[0], turn=process.Turn((), "/", {}))
    assert read_state(runs[0]).state is State.STOPPED


@pytest.mark.parametrize(("purpose", "listed"), [(PAUSING, True), (STARTING, False)])
def test_a_run_stays_listed_while_it_is_paused_and_not_while_it_is_started(
    tmp_path: Path, runs: list[RunDir], purpose: str, listed: bool
) -> None:
    lock = RunLock.acquire(runs[0], purpose)
    lock.sign(purpose)
    try:
        assert (runs[0] in order(tmp_path)) == listed
    finally:
        lock.abandon()


def test_defaults_are_one_run_at_a_time() -> None:
    assert (Waiting(1.0, 2.0).per_gpu, Waiting(1.0, 2.0).jobs, Waiting(1.0, 2.0).paused) == (1, None, "")


def test_a_run_that_is_paused_while_the_worker_comes_to_it_is_not_started(tmp_path: Path, runs: list[RunDir]) -> None:
    turn = process.Turn(("accl",), "/", {})
    queue.pause(tmp_path, runs[:1])
    with pytest.raises(BusyError, match="paused"):
        process.start(runs[0], turn=turn)
    runs[1].queue.unlink()
    with pytest.raises(BusyError, match="taken out of the queue"):
        process.start(runs[1], turn=turn)
    assert [observe(run).state for run in runs] == [State.QUEUED] * 5


def test_a_run_that_is_just_being_started_is_not_said_to_be_paused(
    tmp_path: Path, runs: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = queue._entries(tmp_path, runs[:1])
    monkeypatch.setattr(queue, "_entries", lambda *_: entries)  # as it was read before the worker came
    with RunLock.acquire(runs[0], TRAINING), pytest.raises(BusyError):
        queue.pause(tmp_path, runs[:1])
    write_state(runs[0], read_state(runs[0]).changed(state=State.FINISHED))
    with pytest.raises(RunError, match="does not wait"):
        queue.pause(tmp_path, runs[:1])


def test_changes_at_the_same_time_do_not_undo_each_other(tmp_path: Path, runs: list[RunDir]) -> None:
    with ThreadPoolExecutor(4) as pool:
        moves = [pool.submit(queue.move, tmp_path, [run], 1) for run in runs]
        pauses = [pool.submit(queue.pause, tmp_path, [run]) for run in runs]
        adds = [pool.submit(queue.enqueue, tmp_path, [prepared(tmp_path, 10 + seed)]) for seed in range(5)]
        for each in (*moves, *pauses, *adds):
            each.result()
    entries = queue.waiting(tmp_path)
    assert {entry.run for entry in entries if not entry.ready} == set(runs)
    assert len({entry.waiting.position for entry in entries if entry.waiting}) == 10
