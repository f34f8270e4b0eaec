"""A run may leave its test split unread; every look at it is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SHORT, run_accl
from factory import finished_run

from accl.store.columns import RunReader
from accl.store.reader import query
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, observe
from accl.store.tested import TEST_EVENT, count_looks, read_looks


@pytest.fixture(scope="module")
def untested(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a finished run whose test split is unread."""
    root = tmp_path_factory.mktemp("untested") / "runs"
    done = run_accl("train", "full", "--profile", "demo", "--runs", str(root), *SHORT, "--set", "eval.test=false")
    assert done.returncode == 0, done.stderr
    run = find_run(root, "last")
    assert f"test split unread\n  accl test {run.id}" in done.stderr
    return run


def test_a_run_that_leaves_its_test_split_unread_finishes_and_says_so(untested: RunDir) -> None:
    state, measured = observe(untested), RunReader(untested).read()
    assert state.state is State.FINISHED
    assert "test/accuracy" not in state.latest
    assert set(measured.task_accuracy) == {"validation"}
    [answers] = query(untested.database, ("SELECT DISTINCT split FROM run.predictions", ()))
    assert answers == [("validation",)]
    assert measured.tested_step is None
    assert float(measured.meta["training_seconds"]) > 0
    [said] = [event.message for event in measured.events if event.kind == "untested"]
    assert said.endswith(f"accl test {untested.id}")
    assert count_looks(measured) == read_looks(untested) == 0


def test_show_says_whether_the_test_split_was_looked_at(untested: RunDir, tmp_path: Path) -> None:
    shown = run_accl("show", str(untested.path)).stdout
    assert f"unread; read it with: accl test {untested.id}" in shown
    assert json.loads(run_accl("show", str(untested.path), "--format", "json").stdout)["test_looks"] == 0
    old = finished_run(tmp_path)  # without events of its looks, as of an earlier version
    assert "looked at 1 time" in run_accl("show", str(old.path)).stdout
    assert read_looks(old) == 1
    assert all(event.kind != TEST_EVENT for event in RunReader(old).read().events)
