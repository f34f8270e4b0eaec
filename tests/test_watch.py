"""The one thread that reads runs for all screens."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest
from factory import finished_run, running_run

from accl.errors import AcclError
from accl.store.state import read_state, write_state
from accl.store.summary import SummaryReader
from accl.store.writer import Recorder
from tui.feed import RunsView, RunView
from tui.watch import Watcher

WAIT_S = 30.0


def test_a_view_comes_when_something_is_new(tmp_path: Path) -> None:
    run, views = running_run(tmp_path), queue.SimpleQueue[RunView]()
    watcher = Watcher(0.01)
    watcher.watch("owner", [run], {"curves"}, views.put)
    assert views.get(timeout=WAIT_S).curves["train/loss"].last[-1] == 80
    recorder = Recorder(run.database)
    recorder.metrics(81, 1.0, 4.0, {"train/loss": 0.5})
    recorder.close()
    while (view := views.get(timeout=WAIT_S)).curves["train/loss"].last[-1] != 81:
        pass
    assert not view.confusion, "what nobody needs is not read"
    watcher.unwatch("owner")


def test_a_run_that_hangs_is_said_and_the_others_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [finished_run(tmp_path, "full"), finished_run(tmp_path, "baseline")]
    never, read = threading.Event(), SummaryReader.read
    monkeypatch.setattr(
        SummaryReader, "read", lambda self, now: never.wait() if self.last.run == runs[0] else read(self, now)
    )
    monkeypatch.setattr("tui.watch.DEADLINE_S", 0.2)
    views, watcher = queue.SimpleQueue[RunView](), Watcher(60.0)
    watcher.watch("owner", runs, {"curves"}, views.put)
    late, other = views.get(timeout=WAIT_S), views.get(timeout=WAIT_S)
    assert late.problem is not None
    assert (late.summary.run, late.problem.kind) == (runs[0], "busy")
    assert (other.summary.run, other.problem) == (runs[1], None)
    watcher.unwatch("owner")
    never.set()


def test_a_list_gets_what_changed(tmp_path: Path) -> None:
    finished, active = finished_run(tmp_path, "baseline", curves=False), running_run(tmp_path)
    views, watcher = queue.SimpleQueue[RunsView | AcclError](), Watcher(0.01)
    watcher.watch_folder("list", tmp_path, views.put)
    view = views.get(timeout=WAIT_S)
    assert isinstance(view, RunsView)
    assert view.changed == {finished, active}
    write_state(active, read_state(active).changed(step=81))
    view = views.get(timeout=WAIT_S)
    assert isinstance(view, RunsView)
    assert (view.changed, len(view.summaries)) == ({active}, 2)
    new = finished_run(tmp_path, "full", curves=False)
    seen = set(view.changed)
    while new not in seen:
        view = views.get(timeout=WAIT_S)
        assert isinstance(view, RunsView)
        seen |= view.changed
    watcher.unwatch("list")


def test_a_look_at_what_has_not_changed_gives_the_same_summary(tmp_path: Path) -> None:
    run = finished_run(tmp_path, curves=False)
    reader = SummaryReader(run)
    before = reader.read(0.0)
    assert reader.read(1.0) is before
    run.write_json(run.labels, {"note": "again"})
    assert reader.read(2.0).labels.note == "again"


def test_the_thread_ends_with_the_last_watch(tmp_path: Path) -> None:
    before, watcher = threading.active_count(), Watcher(0.01)
    views: queue.SimpleQueue[RunsView | AcclError] = queue.SimpleQueue()
    watcher.watch_folder("list", tmp_path, views.put)
    views.get(timeout=WAIT_S)
    watcher.unwatch("list")
    while threading.active_count() > before:
        watcher.unwatch("list")
