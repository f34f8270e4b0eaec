"""Pruning takes what nothing needs, and what a run needs to go on or to be tested is there as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from click.testing import Result
from conftest import SHORT, run_accl, wait
from factory import finished_run, running_run
from safetensors.torch import load_file
from test_checkpoint import Net, target, write
from typer.testing import CliRunner

from accl.cli.prune import prune
from accl.errors import AcclError, BusyError, DamagedError
from accl.store.lock import STARTING, TRAINING, RunLock
from accl.store.manifest import MANIFEST, MODEL, OPTIMIZER, PROGRESS
from accl.store.prune import find_prunable, prune_run
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, read_state, write_state
from accl.training import checkpoint


def folder(step: int) -> str:
    return f"step-{step:08d}"


def made(root: Path, state: State, steps: tuple[int, ...] = (4, 8, 12), best: int = 8, seed: int = 1) -> RunDir:
    """Make a run with whole checkpoints of some steps, the last of which knows the best."""
    run = finished_run(root, seed=seed, curves=False, predictions=False)
    for step in steps:
        write(run.checkpoints, step, min(step, best))
    names = {"checkpoint_last": folder(steps[-1]), "checkpoint_best": folder(best)}
    write_state(run, read_state(run).changed(state=state, **names))
    return run


def files(run: RunDir) -> set[str]:
    return {str(path.relative_to(run.checkpoints)) for path in run.checkpoints.rglob("*") if path.is_file()}


def checkpoint_files(step: int, *names: str) -> set[str]:
    return {f"{folder(step)}/{name}" for name in names or (MODEL, OPTIMIZER, PROGRESS, MANIFEST)}


def command(root: Path, *words: str, typed: str = "") -> Result:
    app = typer.Typer()
    app.command()(prune)
    return CliRunner().invoke(app, [*words, "--runs", str(root)], input=typed)


def test_a_finished_run_keeps_the_weights_of_the_best_and_the_last(tmp_path: Path) -> None:
    run = made(tmp_path, State.FINISHED)
    before = sum((run.checkpoints / name).stat().st_size for name in files(run))
    weights = load_file(run.checkpoints / folder(8) / MODEL)
    size = find_prunable(run).size
    assert prune_run(run).size == size
    kept = (MODEL, PROGRESS, MANIFEST)
    assert files(run) == checkpoint_files(8, *kept) | checkpoint_files(12, *kept)
    assert before - sum((run.checkpoints / name).stat().st_size for name in files(run)) == size
    for step in (8, 12):
        model = Net()
        checkpoint.load_model(run.checkpoints / folder(step), model)
        if step == 8:
            assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert find_prunable(run).size == 0


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_a_run_that_can_go_on_keeps_what_that_takes(tmp_path: Path, state: State) -> None:
    run = made(tmp_path, state)
    prune_run(run)
    assert files(run) == checkpoint_files(12) | checkpoint_files(8, MODEL, PROGRESS, MANIFEST)
    (newest, *_) = checkpoint.candidates(run.checkpoints, folder(12))
    assert checkpoint.load(newest, target())[0].step == 12
    checkpoint.load_model(run.checkpoints / folder(8), Net())


def test_nothing_goes_of_a_run_whose_newest_checkpoint_is_not_what_was_written(tmp_path: Path) -> None:
    run = made(tmp_path, State.STOPPED)
    path = run.checkpoints / folder(12) / MODEL
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = files(run)
    with pytest.raises(DamagedError, match="checksum"):
        prune_run(run)
    assert files(run) == before


def cut(run: RunDir) -> None:
    os.truncate(run.checkpoints / folder(12) / OPTIMIZER, 10)


def test_a_cut_off_checkpoint_is_none_to_go_on_from(tmp_path: Path) -> None:
    run = made(tmp_path, State.STOPPED)
    cut(run)
    prune_run(run)
    assert checkpoint_files(8) <= files(run)  # the newest that is whole, which is also the best
    assert not checkpoint_files(4) & files(run)
    assert checkpoint_files(12) <= files(run)  # of the damaged one nothing is known


DAMAGE: dict[str, Callable[[RunDir], object]] = {
    "the best is gone": lambda run: shutil.rmtree(run.checkpoints / folder(8)),
    "the best is cut off": lambda run: os.truncate(run.checkpoints / folder(8) / MODEL, 10),
    "no best is named": lambda run: write_state(run, read_state(run).changed(checkpoint_best="")),
    "the state is damaged": lambda run: run.state.write_text("no json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_goes_where_it_cannot_be_told_what_is_needed(tmp_path: Path, damage: str) -> None:
    run = made(tmp_path, State.FINISHED)
    DAMAGE[damage](run)
    before = files(run)
    for function in (find_prunable, prune_run):
        with pytest.raises(DamagedError):
            function(run)
    assert files(run) == before


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    run = made(tmp_path, State.FINISHED)
    (run.checkpoints / folder(4) / "notes.txt").write_text("mine")
    (run.checkpoints / folder(2)).mkdir()
    (run.checkpoints / folder(2) / MODEL).write_text("of another")
    elsewhere = tmp_path / "elsewhere" / folder(6)
    write(elsewhere.parent, 6)
    (run.checkpoints / folder(6)).symlink_to(elsewhere)
    prune_run(run)
    assert (run.checkpoints / folder(4) / "notes.txt").exists()
    assert (run.checkpoints / folder(2) / MODEL).exists()
    assert (elsewhere / OPTIMIZER).exists()


def test_what_a_kill_left_behind_goes(tmp_path: Path) -> None:
    run = made(tmp_path, State.FINISHED, (12,), 12)
    prune_run(run)
    partial = run.checkpoints / f".{folder(16)}.partial"
    partial.mkdir()
    (partial / MODEL).write_bytes(bytes(1000))
    assert find_prunable(run).size == 1000
    prune_run(run)
    assert not partial.exists()


def test_a_run_that_lives_is_left_alone(tmp_path: Path) -> None:
    live, starting = running_run(tmp_path), made(tmp_path, State.STOPPED)
    with pytest.raises(BusyError):
        find_prunable(live)
    for purpose in (STARTING, TRAINING):
        with RunLock.acquire(starting, purpose), pytest.raises(BusyError):
            prune_run(starting)
    assert checkpoint_files(4) <= files(starting)


# Command -------------------------------------------------------------------------------------------


def test_the_command_shows_sizes_and_asks(tmp_path: Path) -> None:
    run, stopped, live = made(tmp_path, State.FINISHED), made(tmp_path, State.STOPPED, seed=2), running_run(tmp_path)
    before = files(run)
    shown = command(tmp_path, "--dry-run")
    assert shown.exit_code == 0
    assert "optimizer of step 8" in shown.stdout
    assert "all of step 4" in shown.stdout
    assert "It would free" in shown.stdout
    assert "1 run left alone" in shown.output
    assert live.id not in shown.output
    assert command(tmp_path, typed="n\n").exit_code == 1
    assert files(run) == before
    assert command(tmp_path, "state:finished", typed="y\n").exit_code == 0
    assert files(run) < before
    assert checkpoint_files(4) <= files(stopped)
    assert command(tmp_path, "--yes").exit_code == 0
    assert "nothing to delete" in command(tmp_path).stdout


def test_a_run_that_is_named_and_cannot_be_pruned_is_an_error(tmp_path: Path) -> None:
    live, damaged = running_run(tmp_path), made(tmp_path, State.FINISHED)
    DAMAGE["the best is gone"](damaged)
    for run in (live, damaged):
        assert isinstance(command(tmp_path, run.id, "--yes").exception, AcclError)
    done = command(tmp_path, "--yes")
    assert done.exit_code == 0
    assert "validation chose, is missing" in done.output


@pytest.mark.slow
def test_a_pruned_run_goes_on_to_the_end(tmp_path: Path) -> None:
    options = ["--set=train.max_steps=60", "--set=train.checkpoint_every=4", *SHORT[2:]]
    done = run_accl("train", "full", "-p", "demo", "--detach", *options, "--runs", str(tmp_path))
    run = find_run(tmp_path, done.stdout.strip())
    wait(run, 13)
    run_accl("stop", run.id, "--runs", str(tmp_path))
    assert run_accl("prune", "--yes", "--runs", str(tmp_path)).returncode == 0
    assert len(list(run.checkpoints.glob(f"*/{OPTIMIZER}"))) == 1
    assert run_accl("resume", run.id, "--runs", str(tmp_path)).returncode == 0
    assert read_state(run).state is State.FINISHED
    assert run_accl("prune", "--yes", "--runs", str(tmp_path)).returncode == 0
    assert not list(run.checkpoints.glob(f"*/{OPTIMIZER}"))
    checkpoint.verify_model(run.checkpoints / read_state(run).checkpoint_best)
