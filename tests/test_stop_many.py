"""Several runs are stopped by one command: all that a query finds, or all that are named."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer
from click.testing import Result
from factory import finished_run
from test_life import kill
from test_worker import Folder
from typer.testing import CliRunner

from accl.cli import control
from accl.errors import BusyError, RunError
from accl.launch import process, queue
from accl.launch.worker import Worker
from accl.store import summary as summary_module
from accl.store.lock import holder
from accl.store.rundir import RunDir
from accl.store.state import State, observe, read_state, write_state
from accl.store.summary import Summary, SummaryReader

DEAF = "import signal; signal.pause()"  # signals are held back where a trainer is started, until it lets them in


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Two runs that train, without an end, and one that waits."""
    folder = Folder(tmp_path / "runs", tmp_path / "trainer")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "trainer"))
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)
    folder.train(DEAF)
    folder.queued(1, 2, 3, jobs=2)
    Worker(folder.root).look()
    yield folder
    for run in folder.runs():
        kill(run)


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunDir, bool]]:
    """The runs that were asked to stop, and whether they were killed, in this order."""
    asked: list[tuple[RunDir, bool]] = []
    stop = process.stop

    def note(run: RunDir, kill: bool = False) -> None:
        asked.append((run, kill))
        stop(run, kill)

    monkeypatch.setattr(process, "stop", note)
    return asked


def command(folder: Folder, *words: str) -> Result:
    app = typer.Typer()
    app.command()(control.stop)
    return CliRunner().invoke(app, [*words, "--runs", str(folder.root)])


def test_a_query_stops_what_waits_before_what_trains_and_leaves_the_rest_out(
    folder: Folder, asked: list[tuple[RunDir, bool]]
) -> None:
    one, other, waits = folder.runs()
    done = finished_run(folder.root, "full", seed=4, curves=False, predictions=False)
    result = command(folder, "recipe:full", "--grace", "0")
    assert result.exit_code == 0, result.output
    assert asked == [(waits, False), (one, False), (other, False), (one, True), (other, True)]
    assert [line.split()[:3:2] for line in result.stdout.splitlines()] == [
        ["■", "stopped:"],
        ["☠", "crashed:"],
        ["☠", "crashed:"],
    ]
    assert [holder(run) for run in (one, other, waits)] == [None] * 3
    assert "left out: 1 finished" in result.stderr
    assert "the steps of 2 runs and checkpoints" in result.stderr
    assert read_state(done).state is State.FINISHED
    nothing = command(folder, "recipe:full").exception
    assert "None of the runs that match trains or waits: 1 finished, 2 crashed, 1 stopped" in str(nothing)


def test_of_several_that_are_named_all_are_stopped_or_none(folder: Folder, asked: list[tuple[RunDir, bool]]) -> None:
    one, other, waits = folder.runs()
    command(folder, waits.id)
    refused = command(folder, one.id, waits.id, other.id).exception
    assert isinstance(refused, RunError)
    assert refused.what == f"{waits.id} is stopped, and so none of the 3 runs is asked to stop."
    assert asked == [(waits, False)]
    assert command(folder, one.id, other.id, "--kill").exit_code == 0
    assert asked[1:] == [(one, True), (other, True)]


def test_one_that_cannot_be_stopped_keeps_no_other_from_it_and_one_that_ends_meanwhile_is_no_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, ends, waits = folder.runs()
    stop = process.stop

    def fail(run: RunDir, kill: bool = False) -> None:
        if run == waits:
            stop(run, kill)
            return
        if run == ends:
            folder.end(run)
        raise RunError(f"{run.id} belongs to another user.")

    monkeypatch.setattr(process, "stop", fail)
    result = command(folder, "recipe:full")
    assert isinstance(result.exception, RunError)
    assert result.exception.what == f"{foreign.id} belongs to another user."
    assert [line.split()[1] for line in result.stdout.splitlines()] == [waits.id, ends.id]
    assert [observe(run).state for run in (ends, waits)] == [State.FINISHED, State.STOPPED]
    assert holder(foreign) is not None


def test_a_run_that_cannot_be_read_any_more_is_said_after_the_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, waits = folder.runs()
    monkeypatch.setattr(process, "stop", lambda run, _kill: folder.end(run) if run != one else one.state.unlink())
    write_state(waits, read_state(waits).changed(state=State.STOPPED))
    result = command(folder, one.id, other.id)
    assert "state.json is missing" in str(result.exception)
    assert [line.split()[1] for line in result.stdout.splitlines()] == [other.id]


def test_a_run_on_a_disk_that_does_not_answer_for_a_while_is_waited_for(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = folder.runs()[0], summary_module.read_summaries
    looks: list[int] = []

    def slow(readers: Sequence[SummaryReader], now: float) -> list[Summary]:
        looks.append(len(readers))
        if len(looks) != 2:
            return read(readers, now)
        folder.end(run)
        return [Summary(reader.last.run, problem=BusyError("There was no answer.")) for reader in readers]

    monkeypatch.setattr(summary_module, "read_summaries", slow)
    monkeypatch.setattr(process, "stop", lambda _run, _kill: None)
    result = command(folder, run.id)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"✓ {run.id} finished")
