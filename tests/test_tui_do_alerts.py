"""What happens to runs while the app is open is told once, on any screen."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from factory import finished_run, running_run
from snapshots import SIZES, freeze
from textual.widgets._toast import Toast
from tui_pilot import assert_picture, open_newest_run, runs_listed, until

from accl.store.labels import edit_labels
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.writer import Recorder
from tui.alerts import Alert, Alerts
from tui.app import AcclApp
from tui.screens.run import RunScreen
from tui.snapshot import _lines as lines_of
from tui.watch import Watcher

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ())


class Told:
    """Alerts on the runs of a folder."""

    def __init__(self, root: Path) -> None:
        self.alerts: queue.SimpleQueue[Alert] = queue.SimpleQueue()
        self.watcher = Watcher(0.01)
        self.watched = Alerts(self.watcher, root, self.alerts.put)

    def next(self) -> Alert:
        return self.alerts.get(timeout=WAIT_S)

    def wait_for_events(self, run: RunDir, seq: int) -> None:
        """Wait until the events of a run are read up to a place."""
        readers = self.watched._readers
        self.wait(lambda: run in readers and readers[run]._signature is not None and readers[run].seq >= seq)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture(name="told")
def _told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def record(run: RunDir, *events: tuple[str, str, str]) -> None:
    recorder = Recorder(run.database)
    for event in events:
        recorder.event(1.0, *event)
    assert recorder.close() == 0


def test_warnings_of_runs_that_train_are_told_once_and_not_those_of_before(tmp_path: Path, told: Told) -> None:
    run = running_run(tmp_path)
    record(run, ("warning", "disk", "of before"))
    told.watched.follow()
    told.wait_for_events(run, 0)
    record(run, ("info", "model", "no matter"), ("warning", "disk", "it is full"), ("error", "failed", "its state"))
    alert = told.next()
    assert (alert.message, alert.severity) == ("disk: it is full", "warning")
    assert alert.title.startswith("full s42 ")
    record(run, ("error", "nan", "the loss is NaN"))
    assert told.next().message == "nan: the loss is NaN"
    assert told.alerts.empty()
    told.watched.unfollow()


def test_of_many_events_at_once_the_first_are_told_and_how_many_more(tmp_path: Path, told: Told) -> None:
    run = running_run(tmp_path)
    told.watched.follow()
    told.wait_for_events(run, -1)
    record(run, *(("warning", "disk", f"number {i}") for i in range(9)))
    assert [told.next().message for _ in range(4)][-2:] == ["disk: number 2", "and 6 more: its log has all of them"]
    told.watched.unfollow()


def test_what_several_runs_say_is_told_of_the_first(tmp_path: Path, told: Told) -> None:
    runs = [running_run(tmp_path, seed=seed) for seed in (1, 2)]
    told.watched.follow()
    for run in runs:
        told.wait_for_events(run, -1)
    for i, run in enumerate(runs):
        record(run, ("warning", "model", "random weights"), ("warning", "disk", f"number {i}"))
        messages = [told.next().message for _ in range(2 - i)]
        assert messages == ["model: random weights", "disk: number 0"] if i == 0 else ["disk: number 1"]
    told.watched.unfollow()


@pytest.mark.parametrize(
    ("state", "severity", "words"),
    [
        (State.FINISHED, "information", "test 50.0 %"),
        (State.FAILED, "error", "out of memory"),
        (State.STOPPED, "information", "out of memory"),
    ],
)
def test_a_run_that_ends_is_told_with_its_result_or_reason(
    tmp_path: Path, told: Told, state: State, severity: str, words: str
) -> None:
    finished_run(tmp_path, "baseline", curves=False)
    run = running_run(tmp_path, alive=False)
    lock = RunLock.acquire(run, TRAINING)
    told.watched.follow()
    told.wait_for_events(run, -1)
    write_state(run, read_state(run).changed(state=state, reason="out of memory", latest={"test/accuracy": 0.5}))
    lock.release()
    alert = told.next()
    assert str(state) in alert.title
    assert (alert.severity, words in alert.message) == (severity, True)
    assert told.alerts.empty()
    told.watched.unfollow()


def test_a_run_that_fails_before_it_was_seen_to_live_is_told(tmp_path: Path, told: Told) -> None:
    told.watched.follow()
    told.wait(lambda: told.watched._old is not None)
    run = running_run(tmp_path / "elsewhere", alive=False)
    write_state(run, read_state(run).changed(state=State.FAILED, reason="no data"))
    run.path.rename(tmp_path / run.id)
    assert "failed" in told.next().title
    told.watched.unfollow()


async def test_an_alert_is_seen_on_any_screen(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", curves=False)
    live = running_run(tmp_path)
    async with AcclApp(tmp_path, interval=0.05).run_test(size=(80, 24), notifications=True) as pilot:
        await open_newest_run(pilot)
        await pilot.press("6")
        assert isinstance(pilot.app.screen, RunScreen)
        alerts = pilot.app.alerts  # type: ignore[attr-defined]
        await until(pilot, lambda: live in alerts._readers and alerts._readers[live]._signature is not None)
        record(live, ("warning", "disk", "[red]it is full"))
        await until(pilot, lambda: bool(pilot.app.screen.query(Toast)))
        (notification,) = pilot.app._notifications
        assert notification.message == "disk: [red]it is full"
        assert notification.markup is False


async def test_pictures_of_an_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    run = finished_run(tmp_path, "full", curves=False)
    edit_labels(run, name="first")
    async with AcclApp(tmp_path, interval=0.05).run_test(size=SIZES[0], notifications=True) as pilot:
        await runs_listed(pilot)
        await until(pilot, lambda: pilot.app.screen.is_complete)  # type: ignore[attr-defined]
        app = pilot.app
        words = "disk: 4 MB are left: only the last checkpoint is kept"
        app.notify(words, title="full s42 first", severity="warning", timeout=600)
        await until(pilot, lambda: bool(app.screen.query(Toast)))
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await assert_picture(pilot, f"alert-{width}x{height}", lambda: lines_of(app))
