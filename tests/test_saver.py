"""A disk that takes no checkpoint stops neither the run nor, later, what the run would have been."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import STATE

from accl.errors import RunError
from accl.store.manifest import MODEL, OPTIMIZER
from accl.store.rundir import RunDir
from accl.store.state import RunState
from accl.training import checkpoint, saver
from accl.training.checkpoint import Files, Progress
from accl.training.interrupt import Interrupt
from accl.training.saver import Saver


class Reports:
    """Stands for the reporter: what was said, and the state."""

    def __init__(self) -> None:
        self.state = RunState()
        self.recorder = self
        self.stuck_seconds = 0.0
        self.events: list[tuple[str, str, str]] = []
        self.flushed = 0

    def update(self, **values: Any) -> None:
        self.state = self.state.changed(**values)

    def save(self) -> None:
        """Write nothing: the state is looked at here."""

    def begin_flush(self) -> None:
        """Write nothing here either."""

    def end_flush(self) -> None:
        self.flushed += 1

    def event(self, *words: str) -> None:
        self.events.append(words)  # type: ignore[arg-type]


class Disk:
    """Takes files, or is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full: int | None = None
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if self.full is not None:
                raise OSError(self.full, os.strerror(self.full))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)


class Clock:
    """Time that passes when somebody sleeps; ``during`` is called meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.during = 1000.0, lambda: None
        monkeypatch.setattr(saver.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(saver.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during()


class Bench:
    """A saver of a run whose weights are the number of its step."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, beside: bool) -> None:
        self.disk, self.clock, self.reports = Disk(monkeypatch), Clock(monkeypatch), Reports()
        self.interrupt = Interrupt()
        self.run = RunDir(root)
        self.saver = Saver(self.run, self.reports, self.interrupt, patience_s, beside)  # type: ignore[arg-type]
        self.step = 0
        self.weights = torch.zeros(3)

    def save(self, step: int, best: int, required: bool = False) -> None:
        self.weights.fill_(step)
        self.saver.save(self.progress(step, best), self.files, required)
        self.weights.fill_(-1)  # as steps do while the checkpoint is written
        self.saver.settle()

    def progress(self, step: int, best: int) -> Progress:
        return replace(STATE, step=step, best_step=best)

    def files(self) -> Files:
        return {MODEL: {"w": self.weights}, OPTIMIZER: {"m": self.weights}}

    def saved(self) -> dict[int, float]:
        """Return the weights on disk by step."""
        folders = self.run.checkpoints.glob("step-*")
        return {int(f.name[5:]): float(load_file(f / MODEL)["w"][0]) for f in sorted(folders)}


@pytest.fixture(params=[False, True], ids=["waiting", "beside"])
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., Bench]:
    return lambda patience_s=600.0, beside=request.param: Bench(tmp_path, monkeypatch, patience_s, beside)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE])
def test_training_goes_on_without_checkpoints_and_saves_again_when_there_is_room(
    make: Callable[..., Bench], number: int
) -> None:
    bench = make()
    bench.save(4, 4)
    bench.disk.full = number
    bench.save(8, 4)
    assert bench.saved() == {4: 4.0}
    assert bench.reports.state.checkpoint_last == "step-00000004"
    assert os.strerror(number) in bench.reports.state.phase
    [(level, kind, message)] = bench.reports.events
    assert (level, kind) == ("warning", "disk")
    assert os.strerror(number) in message
    assert "only step-00000004 is saved" in message
    assert not bench.saver.due
    bench.clock.now += saver.RETRY_S
    assert bench.saver.due
    bench.save(9, 4)
    assert len(bench.reports.events) == 1  # said once
    bench.disk.full = None
    bench.save(12, 4)
    assert bench.saved() == {4: 4.0, 12: 12.0}
    assert not bench.saver.due
    assert "room on the disk again" in bench.reports.events[-1][2]
    assert bench.reports.state.checkpoint_last == "step-00000012"


def test_weights_that_validation_chose_while_the_disk_was_full_are_saved_later(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.save(4, 4)
    bench.disk.full = errno.ENOSPC
    bench.save(8, 8)
    bench.save(10, 8)
    bench.save(12, 12)
    bench.save(14, 12)
    bench.disk.full = None
    bench.save(16, 12)
    assert bench.saved() == {4: 4.0, 12: 12.0, 16: 16.0}
    assert bench.reports.state.checkpoint_best == "step-00000012"
    [newest, *_] = checkpoint.candidates(bench.run.checkpoints, "")
    assert newest.name == "step-00000016"


def test_no_checkpoint_goes_ahead_of_its_measurements(make: Callable[..., Bench]) -> None:
    bench = make(patience_s=120)
    bench.save(4, 4)
    assert not bench.saver.due
    bench.reports.stuck_seconds = 1.0
    assert bench.saver.due  # so that the time that it may take begins
    bench.save(8, 4)
    assert bench.saved() == {4: 4.0}
    assert "no room for measurements" in bench.reports.state.phase
    bench.clock.now += 60
    bench.reports.stuck_seconds = 0.0
    bench.save(12, 4)
    assert bench.saved() == {4: 4.0, 12: 12.0}
    bench.reports.stuck_seconds = 1.0
    bench.save(16, 4)
    bench.clock.now += 120
    with pytest.raises(RunError, match="no room for measurements"):
        bench.save(20, 4)


def test_the_last_step_waits_for_room(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.disk.full = errno.ENOSPC

    def make_room() -> None:
        assert "waiting to save" in bench.reports.state.phase
        if bench.clock.now > 1100:
            bench.disk.full = None

    bench.clock.during = make_room
    bench.save(16, 16, required=True)
    assert bench.saved() == {16: 16.0}


def test_a_run_ends_when_nothing_could_be_saved_for_too_long(make: Callable[..., Bench]) -> None:
    bench = make(patience_s=120)
    bench.save(4, 4)
    bench.disk.full = errno.ENOSPC
    bench.save(8, 4)
    bench.clock.now += 119
    bench.save(12, 4)
    bench.clock.now += 1
    with pytest.raises(RunError) as raised:
        bench.save(16, 4)
    assert raised.value.what.startswith("For 2 m 00 s no checkpoint can be written (No space left on device): what was")
    assert raised.value.what.endswith("trained after step-00000004 is lost.")
    assert "accl resume" in raised.value.hint


def test_a_limit_of_the_size_of_files_is_not_waited_for(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.save(4, 4)
    bench.disk.full = errno.EFBIG
    with pytest.raises(RunError, match=r"File too large\): what was trained after step-00000004 is lost") as caught:
        bench.save(8, 4)
    assert "ulimit -f" in caught.value.hint
    assert bench.saved() == {4: 4.0}


def test_patience_of_zero_ends_at_once(make: Callable[..., Bench]) -> None:
    bench = make(patience_s=0)
    bench.disk.full = errno.ENOSPC
    with pytest.raises(RunError, match="after the beginning is lost"):
        bench.save(4, 4)


def test_a_stop_waits_for_room_a_minute_and_then_says_what_is_lost(make: Callable[..., Bench]) -> None:
    bench = make(patience_s=3600)
    bench.save(4, 4)
    bench.disk.full = errno.ENOSPC
    bench.save(8, 4)
    bench.clock.now += 1800  # full for long: a stop that is asked for now has its whole minute
    bench.interrupt.asked = True
    asked = bench.clock.now
    with pytest.raises(RunError, match="trained after step-00000004 is lost"):
        bench.save(12, 4, required=True)
    assert bench.clock.now - asked == pytest.approx(saver.STOP_PATIENCE_S, abs=saver.RETRY_S)


def test_a_stop_while_the_last_step_waits_shortens_the_wait(make: Callable[..., Bench]) -> None:
    bench = make(patience_s=3600)
    bench.disk.full = errno.ENOSPC

    def stop() -> None:
        bench.interrupt.asked = bench.clock.now > 1300

    bench.clock.during = stop
    with pytest.raises(RunError, match="is lost"):
        bench.save(16, 16, required=True)
    assert bench.clock.now < 1300 + saver.STOP_PATIENCE_S + 2 * saver.RETRY_S


def test_steps_go_on_while_a_checkpoint_is_written_and_change_nothing_of_it(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(beside=True)
    write, released = checkpoint.save, threading.Event()

    def slowly(*arguments: Any) -> str:
        assert released.wait(60)
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "save", slowly)
    bench.weights.fill_(4)
    bench.saver.save(bench.progress(4, 4), bench.files)
    bench.weights.fill_(5)
    bench.saver.poll()
    assert bench.reports.state.checkpoint_last == ""
    bench.saver.save(bench.progress(4, 4), bench.files)  # is on its way already
    released.set()
    bench.saver.save(bench.progress(8, 4), bench.files)
    bench.saver.close()
    bench.saver.poll()
    assert bench.saved() == {4: 4.0, 8: 5.0}
    assert bench.reports.state.checkpoint_last == "step-00000008"


def test_a_checkpoint_that_is_saved_is_not_written_again(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.save(4, 4)
    before = (bench.run.checkpoints / "step-00000004" / MODEL).stat().st_ino
    bench.save(4, 4)
    assert (bench.run.checkpoints / "step-00000004" / MODEL).stat().st_ino == before


def test_what_cannot_be_pruned_is_said_once(make: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make()
    (tmp_path / "elsewhere").mkdir()
    bench.run.checkpoints.symlink_to(tmp_path / "elsewhere")
    for step in (4, 8, 12, 16):
        bench.save(step, 4)
    assert len(bench.saved()) == 4
    [(level, kind, message)] = bench.reports.events
    assert (level, kind) == ("warning", "checkpoint")
    assert f"{bench.run.checkpoints} is a link" in message


def test_a_folder_that_cannot_be_removed_ends_no_run(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()

    def refuse(*_: Any, **_options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    for step in (4, 8):
        bench.save(step, 8)
    monkeypatch.setattr(Path, "unlink", refuse)
    for step in (12, 16, 20):
        bench.save(step, 8)
    [(_, _, message)] = bench.reports.events
    assert "old checkpoints cannot be removed" in message
