"""A run may leave its test split unread; every look at it is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import SHORT, run_accl
from factory import finished_run, running_run
from spoil import flip

from accl.bench.soak.equality import differences
from accl.errors import RunError
from accl.store.columns import RunReader
from accl.store.provenance import data_fingerprint, read_provenance
from accl.store.questions import read_questions
from accl.store.reader import query
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, observe, read_state, write_state
from accl.store.tested import TEST_EVENT, Looks, SplitTest, count_looks, looks_in, read_tested
from accl.training.testing import read_test_split


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
    assert count_looks(measured) == 0
    assert read_tested(untested) is None


def test_show_says_whether_the_test_split_was_looked_at(untested: RunDir, tmp_path: Path) -> None:
    shown = run_accl("show", str(untested.path)).stdout
    assert f"unread; read it with: accl test {untested.id}" in shown
    assert json.loads(run_accl("show", str(untested.path), "--format", "json").stdout)["test_looks"] == 0
    old = finished_run(tmp_path)  # without events of its looks, as of an earlier version
    assert "looked at 1 time" in run_accl("show", str(old.path)).stdout
    assert read_tested(old) == SplitTest(120, sum(q.right for q in read_questions(old)), 1)
    assert all(event.kind != TEST_EVENT for event in RunReader(old).read().events)


def test_a_test_that_is_asked_for_later_records_what_the_end_of_training_would_have(untested: RunDir) -> None:
    root = untested.path.parent
    done = run_accl("train", "full", "--profile", "demo", "--runs", str(root), *SHORT)
    assert done.returncode == 0, done.stderr
    tested = find_run(root, "last")
    later = RunDir(root / "later")
    shutil.copytree(untested.path, later.path)
    assert "predictions" in differences(later, tested)
    printed = run_accl("test", "later", "--runs", str(root), "--format", "json")
    assert printed.returncode == 0, printed.stderr
    assert differences(later, tested) == []
    assert read_state(later).latest["test/accuracy"] == read_state(tested).latest["test/accuracy"]
    assert read_state(later).changed(latest={}) == read_state(untested).changed(latest={})
    measured = [RunReader(run).read() for run in (later, tested)]
    assert measured[0].tested_step == measured[1].tested_step
    said = [[event.message for event in each.events if event.kind == TEST_EVENT] for each in measured]
    assert said[0] == said[1]
    [row] = json.loads(printed.stdout)
    assert (row["run"], row["new"], row["looks"]) == ("later", True, 1)
    assert row["accuracy"] == pytest.approx(read_state(tested).latest["test/accuracy"])
    assert row["low"] < row["accuracy"] < row["high"]
    # Once is enough, and the other run of the folder has looked too.
    again = run_accl("test", "later", "--runs", str(root))
    assert again.returncode == 0, again.stderr
    assert "Tested before, and not again: later." in again.stdout
    assert "2 runs of this folder" in again.stdout
    assert differences(later, tested) == []
    assert looks_in(root, data_fingerprint(read_provenance(later))) == Looks(2, 2, 0)


@pytest.mark.parametrize("damage", ["questions", "weights", "database"])
def test_a_test_of_something_else_is_refused_and_changes_nothing(untested: RunDir, tmp_path: Path, damage: str) -> None:
    run = RunDir(tmp_path / "runs" / "changed")
    shutil.copytree(untested.path, run.path)
    if damage == "questions":  # as if others lay where the run found its own
        content = json.loads(run.provenance.read_text())
        content["data"]["fingerprint"] = "0123456789abcdef"
        run.provenance.write_text(json.dumps(content))
    elif damage == "weights":
        flip(run.checkpoints / read_state(run).checkpoint_best / "model.safetensors")
    else:
        run.database.write_bytes(b"no database")
    before = read_state(run), run.database.read_bytes()
    with pytest.raises(RunError) as refused:
        read_test_split(run, lambda _words: None)
    assert refused.value.exit_code == {"questions": 4, "weights": 12, "database": 12}[damage]
    assert (read_state(run), run.database.read_bytes()) == before


def test_only_finished_runs_are_tested(tmp_path: Path) -> None:
    run = running_run(tmp_path, alive=False)
    done = run_accl("test", run.id, "--runs", str(tmp_path))
    assert done.returncode == 7
    assert f"{run.id} is crashed, not finished" in done.stderr
    assert f"accl resume {run.id}" in done.stderr
    finished = finished_run(tmp_path, seed=43)
    done = run_accl("test", "profile:demo", "--runs", str(tmp_path), "--format", "csv")
    assert "crashed" in done.stderr
    assert done.stdout.splitlines()[1].startswith(finished.id)


def test_an_accuracy_that_a_kill_kept_from_the_state_is_put_there(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    state = read_state(run)
    write_state(run, state.changed(latest={}))
    assert run_accl("test", run.id, "--runs", str(tmp_path)).returncode == 0
    assert read_state(run).latest == {"test/accuracy": state.latest["test/accuracy"]}
