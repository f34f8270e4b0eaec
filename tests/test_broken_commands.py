"""Every way to damage a run folder, against the commands that change runs: nothing crashes, and no other run is hit."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from factory import finished_run
from test_broken_runs import ALL, FEW, PORTIONS, UNEXPECTED, call

from accl.api import runs as api_runs
from accl.cli import labels, prune, queue, sql, train, trash
from accl.cli.show import show
from accl.config import resolve
from accl.errors import AcclError
from accl.launch import process
from accl.launch import queue as launch_queue
from accl.store.rundir import RunDir
from accl.store.trash import trashed_runs
from accl.store.waiting import Waiting, write_waiting

HEALTHY = "baseline"
# Of the files that these commands write, or judge a run by.
FEWER = [name for name in FEW if name.startswith(("run folder", "state.json", "labels.json", "queue.json"))]
DAMAGES = {damage.name: damage for damage in ALL}
# In this order: what only reads, what changes, what takes away and brings back.
COMMANDS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (show, ("RUN", "--series", "train/loss", "--format", "csv")),
    (labels.tag, ("RUN",)),
    (labels.note, ("RUN",)),
    (sql.sql, ("select run, state from runs",)),
    (sql.sql, ("select count(*) from metrics", "RUN")),
    (train.train, ("--like", "RUN", "--dry-run")),
    (prune.prune, ("RUN", "--dry-run")),
    (labels.tag, ("RUN", "--add", "odd")),
    (labels.note, ("RUN", "a note")),
    (labels.rename, ("RUN", "odd one")),
    (queue.list_, ()),
    (queue.add, ("RUN",)),
    (queue.move, ("RUN",)),
    (queue.pause, ()),
    (queue.resume, ()),
    (queue.cancel, ("RUN",)),
    (prune.prune, ("RUN", "--yes")),
    (trash.rm, ("RUN", "--yes")),
    (trash.restore, ()),
    (trash.restore, ("last",)),
    (trash.rm, ("RUN", "--yes")),
    (trash.purge, ("--yes",)),
)


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """A finished run, and one that waits."""
    folder = tmp_path_factory.mktemp("made")
    waits = process.prepare(folder, resolve("full", "demo", []).config, ["accl"], experiment="pilot")
    return finished_run(folder, "full", questions=12), waits


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(launch_queue, "ensure_worker", lambda _root: None)
    yield
    for path in tmp_path.rglob("*-0bad"):  # so that it can be removed
        if not path.is_symlink():
            path.chmod(0o700)


@pytest.mark.parametrize("part", [pytest.param(FEWER, id="few"), *PORTIONS])
def test_a_broken_run_is_changed_removed_and_brought_back_or_refused(
    tmp_path: Path, made: tuple[RunDir, RunDir], part: list[str]
) -> None:
    root = tmp_path / "runs"
    healthy = finished_run(root, HEALTHY, questions=12)
    before = {path: path.stat().st_mtime_ns for path in healthy.path.rglob("*")}
    for number, name in enumerate(part):
        run = RunDir(root / "20261122-101500-full-s42-0bad")
        waits = name.startswith("queue.json") or number % 2
        shutil.copytree(made[waits].path, run.path, copy_function=os.link)
        if waits:
            write_waiting(run, Waiting(1.0, 1.0))
        DAMAGES[name].apply(run.path)
        if not os.path.lexists(run.path):
            continue
        for command, words in COMMANDS:
            _, error = call(command, *(word.replace("RUN", run.id) for word in words), root=root)
            assert UNEXPECTED not in str(error), (name, command, words)
            if command is trash.restore and words:
                assert os.path.lexists(run.path) or (error is not None and "is empty" in str(error)), name
        assert trashed_runs(root) == [], name
        _survive(run)
    assert {path: path.stat().st_mtime_ns for path in healthy.path.rglob("*")} == before


def _survive(run: RunDir) -> None:
    """Take away what no command could remove, as it is no run: the next damage needs its place."""
    if run.path.is_dir() and not run.path.is_symlink():
        run.path.chmod(0o700)
        shutil.rmtree(run.path)
    else:
        run.path.unlink(missing_ok=True)
    shutil.rmtree(run.path.with_name(f"elsewhere-{run.id}"), ignore_errors=True)


@pytest.mark.parametrize("part", [pytest.param(FEWER, id="few"), *PORTIONS])
def test_python_reads_around_broken_runs(tmp_path: Path, made: tuple[RunDir, RunDir], part: list[str]) -> None:
    healthy = finished_run(tmp_path, HEALTHY, questions=12)
    for number, name in enumerate(part):
        run = RunDir(tmp_path / f"20261122-101500-full-s42-{number:04x}")
        shutil.copytree(made[0].path, run.path, copy_function=os.link)
        DAMAGES[name].apply(run.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those that are left out
        metrics = api_runs("", tmp_path).metrics("train/loss")
    assert healthy.id in set(metrics["run"])
    frame = api_runs("", tmp_path).frame()
    assert healthy.id in set(frame["run"])
    for each in api_runs("", tmp_path):
        for read in (each.metrics, each.evals, each.predictions, each.confusion):
            with warnings.catch_warnings(), suppress(AcclError):
                warnings.simplefilter("ignore")
                read()
    for path in tmp_path.glob("*-full-*"):
        if not path.is_symlink():
            path.chmod(0o700)
