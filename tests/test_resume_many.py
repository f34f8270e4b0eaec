"""Several runs are resumed by one command: through the queue, all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from factory import crashed_run, finished_run, running_run
from test_queue import order
from typer.testing import CliRunner

from accl.cli import waiting
from accl.cli.control import resume
from accl.errors import BusyError, ConfigError, RunError
from accl.launch import companions, process, queue
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.waiting import read_waiting


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)


@pytest.fixture(name="started")
def _started(monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """Runs of which a trainer would have been started."""
    started: list[RunDir] = []

    def start(run: RunDir, *_options: Any) -> None:
        started.append(run)

    monkeypatch.setattr(process, "start", start)
    return started


def ended(root: Path, state: State, seed: int = 1) -> RunDir:
    run = finished_run(root, "full", seed=seed, curves=False, predictions=False)
    write_state(run, read_state(run).changed(state=state))
    return run


def command(root: Path, *words: str) -> Result:
    app = typer.Typer()
    app.command()(resume)
    return CliRunner().invoke(app, [*words, "--runs", str(root)])


def test_a_query_resumes_what_ended_early_and_leaves_the_rest_out(tmp_path: Path, started: list[RunDir]) -> None:
    early = [ended(tmp_path, State.STOPPED), ended(tmp_path, State.FAILED, 2), crashed_run(tmp_path)]
    done, live = ended(tmp_path, State.FINISHED, 3), running_run(tmp_path, seed=4)
    result = command(tmp_path, "recipe:full", "--detach")
    assert result.exit_code == 0, result.output
    assert set(result.stdout.split()) == {run.id for run in early}
    assert "left out: 1 finished, 1 running" in result.stderr
    assert set(order(tmp_path)) == set(early)
    assert [read_state(run).state for run in (done, live)] == [State.FINISHED, State.RUNNING]
    assert started == []


def test_the_command_waits_for_runs_that_it_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = [ended(tmp_path, State.STOPPED, seed) for seed in (1, 2)]
    waited: list[RunDir] = []
    monkeypatch.setattr(waiting, "wait_for", lambda _root, runs: waited.extend(runs) or 9)
    assert command(tmp_path, "state:stopped").exit_code == 9
    assert set(waited) == set(order(tmp_path)) == set(early)


def test_one_run_is_started_at_once_however_it_is_found(tmp_path: Path, started: list[RunDir]) -> None:
    run, _ = ended(tmp_path, State.STOPPED), ended(tmp_path, State.FINISHED, 2)
    for words in (["state:stopped"], [run.id], ["recipe:full", "seed:1"]):
        assert command(tmp_path, *words, "--detach").stdout == f"{run.id}\n"
    assert started == [run] * 3
    assert order(tmp_path) == []


@pytest.mark.parametrize(("options", "shares"), [(["--per-gpu", "3"], (3, None)), (["--jobs", "2"], (1, 2))])
def test_runs_share_a_gpu_or_the_machine_as_they_are_asked_to(
    tmp_path: Path, started: list[RunDir], options: list[str], shares: tuple[int, int | None]
) -> None:
    runs = [ended(tmp_path, State.CRASHED, seed) for seed in (1, 2)]
    alone = ended(tmp_path, State.STOPPED, 3)  # one that shares waits for its turn as well
    for words in (["state:crashed"], [alone.id]):
        result = command(tmp_path, *words, *options, "--detach")
        assert result.exit_code == 0, result.output
    places = {run: place for run in (*runs, alone) if (place := read_waiting(run))}
    assert {run: (place.per_gpu, place.jobs) for run, place in places.items()} == dict.fromkeys((*runs, alone), shares)
    alike = {companions.likeness(places[run], run.config.read_text(encoding="utf-8")) for run in runs}
    assert len(alike) == 1  # so that they share a process too
    assert (None in alike) == (shares[0] == 1)
    assert started == []


def test_of_several_that_are_named_all_go_on_or_none(tmp_path: Path, started: list[RunDir]) -> None:
    stopped, done, live = ended(tmp_path, State.STOPPED), ended(tmp_path, State.FINISHED, 2), running_run(tmp_path)
    for other, error in ((done, RunError), (live, BusyError)):
        refused = command(tmp_path, stopped.id, other.id, "--detach").exception
        assert type(refused) is error
        assert other.id in refused.what
    assert order(tmp_path) == started == []


def test_nothing_to_resume_and_what_the_queue_does_not_do_are_said(tmp_path: Path) -> None:
    ended(tmp_path, State.FINISHED)
    nothing = command(tmp_path, "recipe:full").exception
    assert "1 finished" in str(nothing)
    for seed in (2, 3):
        ended(tmp_path, State.STOPPED, seed)
    for words in (["state:stopped"], ["s2", "--jobs", "2"]):
        assert isinstance(command(tmp_path, *words, "--accept-changes").exception, ConfigError)
    elsewhere = ended(tmp_path / "elsewhere", State.STOPPED)
    moved = command(tmp_path, str(elsewhere.path), "s2").exception
    assert isinstance(moved, RunError)
    assert "--runs" in moved.hint
    assert order(tmp_path) == []
