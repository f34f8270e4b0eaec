"""Removed runs are no runs for anybody, come back as they were, and no trainer starts while one is moved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from click.testing import Result
from conftest import wait
from factory import finished_run, running_run
from hostile import acting, hostile_run
from typer.testing import CliRunner

from accl.cli import trash as commands
from accl.config import resolve
from accl.errors import BusyError, ConfigError, DamagedError, RunError
from accl.launch import process
from accl.store import trash
from accl.store.lock import STARTING, RunLock
from accl.store.rundir import RunDir, find_run, list_runs, run_folders
from accl.store.selection import choose_runs
from accl.store.state import State, read_state
from accl.store.trash import Trashed, last_removal, purge_run, remove_runs, restore_run, trashed_runs, tree_size
from accl.store.waiting import Waiting, read_waiting, write_waiting

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def finished(root: Path, recipe: str = "full", seed: int = 1) -> RunDir:
    return finished_run(root, recipe, seed=seed, curves=False, predictions=False)


def queued(root: Path) -> RunDir:
    return process.prepare(root, resolve("full", "demo", []).config, ["accl"])


def content(run: RunDir) -> dict[str, bytes]:
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


def removed(run: RunDir) -> Trashed:
    (answer,) = remove_runs([run])
    assert isinstance(answer, Trashed), answer
    return answer


def command(function: Callable[..., None], *words: str, typed: str = "") -> Result:
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, words, input=typed)


def test_a_removed_run_is_none_and_comes_back_as_it_was(tmp_path: Path) -> None:
    run, other = finished(tmp_path), finished(tmp_path, seed=2)
    before = content(run)
    entry = removed(run)
    assert [each.id for each in run_folders(tmp_path)] == [other.id]
    with pytest.raises(RunError, match="No run named"):
        find_run(tmp_path, run.id)
    assert [each.home for each in trashed_runs(tmp_path)] == [run]
    assert restore_run(entry) == run
    assert content(run) == before
    assert trashed_runs(tmp_path) == []
    assert not (tmp_path / trash.TRASH).exists()


def test_a_run_that_is_trained_is_not_removed(tmp_path: Path) -> None:
    active, starting = running_run(tmp_path), queued(tmp_path)
    with RunLock.acquire(starting, STARTING):
        answers = remove_runs([active, starting])
    assert all(isinstance(answer, BusyError) for answer in answers)
    assert len(list_runs(tmp_path)) == 2
    assert trashed_runs(tmp_path) == []


def test_no_trainer_starts_while_a_run_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued(tmp_path)
    refused: list[RunError] = []

    def rename(source: Path, target: Path, move: Callable[[Path, Path], None] = os.rename) -> None:
        for _ in range(2):  # before and after
            with pytest.raises(RunError) as error:
                process.start(run)
            refused.append(error.value)
            if source.exists():
                move(source, target)

    monkeypatch.setattr(trash.os, "rename", rename)
    removed(run)
    assert isinstance(refused[0], BusyError)
    assert "removing" in refused[0].what
    assert not run.path.exists()


def test_a_run_that_waits_is_stopped_before_it_is_moved(tmp_path: Path) -> None:
    run = queued(tmp_path)
    write_waiting(run, Waiting(1.0, 1.0))
    restore_run(removed(run))
    assert read_state(run).state is State.STOPPED
    assert read_waiting(run) is None
    process.start(run)  # and can be trained all the same
    process.stop(run, kill=True)
    assert wait(run) is not State.QUEUED


BREAK: dict[str, Callable[[RunDir], object]] = {
    "no state": lambda run: run.state.unlink(),
    "a state that is none": lambda run: run.state.write_text("no json"),
    "no configuration": lambda run: (run.config.unlink(), run.console.write_text("")),
    "a folder for a lock": lambda run: run.lock.mkdir(),
    "a link for a lock": lambda run: run.lock.symlink_to("/dev/null"),
    "a file": lambda run: (run.path.rename(f"{run.path}~"), run.path.write_text("")),
    "a link to another place": lambda run: run.path.symlink_to(run.path.rename(run.path.parent.parent / "elsewhere")),
    "a link to nowhere": lambda run: (run.path.rename(f"{run.path}~"), run.path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", BREAK)
def test_a_broken_run_is_removed_restored_and_purged(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "runs"
    run = finished(root)
    BREAK[damage](run)
    before = os.lstat(run.path)
    assert run in list_runs(root)
    entry = removed(run)
    assert run not in list_runs(root)
    restore_run(entry)
    assert os.path.samestat(os.lstat(run.path), before)
    elsewhere = len(list(tmp_path.rglob("*.duckdb")))
    purge_run(removed(run))
    assert not os.path.lexists(run.path)
    if "link to" in damage or damage == "a file":  # nothing behind it is lost
        assert len(list(tmp_path.rglob("*.duckdb"))) == elsewhere


def test_a_lock_that_was_made_to_move_a_run_does_not_stay(tmp_path: Path) -> None:
    run = finished(tmp_path)
    assert not run.lock.exists()
    entry = removed(run)
    assert not entry.run.lock.exists()


def test_one_id_may_be_there_twice_and_the_last_removal_is_undone_as_a_whole(tmp_path: Path) -> None:
    run, other = finished(tmp_path), finished(tmp_path, seed=2)
    removed(run)
    run.path.mkdir()
    run.config.write_text("recipe: full\n")
    remove_runs([run, other])
    entries = trashed_runs(tmp_path)
    assert [entry.home for entry in entries] == [run, *sorted((run, other), key=lambda each: each.id)]
    last = last_removal(entries)
    assert len(last) == 2
    for entry in last:
        restore_run(entry)
    assert run.config.read_text() == "recipe: full\n"
    with pytest.raises(RunError, match="there already"):
        restore_run(entries[0])
    assert len(trashed_runs(tmp_path)) == 1


def test_the_time_of_a_removal_is_known(tmp_path: Path) -> None:
    remove_runs([finished(tmp_path)], NOON)
    remove_runs([finished(tmp_path)], NOON + timedelta(hours=1))
    assert [entry.removed - NOON.timestamp() for entry in trashed_runs(tmp_path)] == [0, 3600]


def test_nothing_behind_a_link_in_place_of_the_trash_is_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    root = tmp_path / "runs"
    run = finished(root)
    (root / trash.TRASH).symlink_to(tmp_path / "precious")
    (answer,) = remove_runs([run])
    assert isinstance(answer, DamagedError)
    assert run.path.exists()
    with pytest.raises(DamagedError, match="not a folder"):
        trashed_runs(root)


def test_what_people_keep_in_the_trash_is_no_run(tmp_path: Path) -> None:
    removed(finished(tmp_path))
    (tmp_path / trash.TRASH / "notes").mkdir()
    assert len(trashed_runs(tmp_path)) == 1


def test_a_run_in_the_trash_is_not_removed_again_nor_purged_while_it_is_held(tmp_path: Path) -> None:
    entry = removed(finished(tmp_path))
    (answer,) = remove_runs([entry.run])
    assert "already" in str(answer)
    with RunLock.acquire(entry.run, STARTING), pytest.raises(BusyError):
        purge_run(entry)
    assert trashed_runs(tmp_path) == [entry]


def test_a_run_in_the_trash_is_not_restored_under_a_trainer(tmp_path: Path) -> None:
    entry = removed(finished(tmp_path))
    with RunLock.acquire(entry.run, STARTING), pytest.raises(BusyError):
        restore_run(entry)
    assert trashed_runs(tmp_path) == [entry]


def test_no_part_of_a_run_is_restored_while_it_is_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = removed(finished(tmp_path))
    delete, refused = trash.shutil.rmtree, []

    def interfere(path: Path) -> None:
        with pytest.raises(RunError) as error:
            restore_run(entry)
        refused.append(error.value)
        delete(path)

    monkeypatch.setattr(trash.shutil, "rmtree", interfere)
    purge_run(entry)
    assert len(refused) == 1
    assert not os.path.lexists(entry.home.path)
    assert not (tmp_path / trash.TRASH).exists()


def test_a_purge_that_was_killed_is_ended_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = removed(finished(tmp_path))

    def die(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trash.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            purge_run(entry)
    assert trashed_runs(tmp_path) == []
    assert tree_size(tmp_path / trash.TRASH) > 1000
    done = command(commands.purge, "--yes", "--runs", str(tmp_path))
    assert "is empty" in done.output
    assert tree_size(tmp_path / trash.TRASH) == 0


def test_what_cannot_be_deleted_goes_back_into_the_trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = removed(finished(tmp_path))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "run.duckdb"))

    monkeypatch.setattr(trash.shutil, "rmtree", refuse)
    with pytest.raises(RunError) as error:
        purge_run(entry)
    assert error.value.what == f"{entry.run.database} cannot be deleted (Permission denied)."
    assert trashed_runs(tmp_path) == [entry]


def test_sizes_are_of_files_and_not_of_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "run" / "inner").mkdir(parents=True)
    (tmp_path / "run" / "inner" / "file").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(10**6))
    (tmp_path / "run" / "link").symlink_to(tmp_path / "large")
    assert 1000 < tree_size(tmp_path / "run") < 2000
    assert tree_size(tmp_path / "absent") == 0


# Commands ------------------------------------------------------------------------------------------


def test_removal_shows_what_and_asks(tmp_path: Path) -> None:
    run, other = finished(tmp_path), finished(tmp_path, "baseline")
    refused = command(commands.rm, "full", "--runs", str(tmp_path), typed="\n")
    assert refused.exit_code == 1
    assert run.id in refused.output
    assert other.id not in refused.output
    assert len(list_runs(tmp_path)) == 2
    unanswered = command(commands.rm, "full", "--runs", str(tmp_path))
    assert isinstance(unanswered.exception, ConfigError)
    assert len(list_runs(tmp_path)) == 2
    done = command(commands.rm, "full", "--runs", str(tmp_path), typed="y\n")
    assert done.exit_code == 0
    assert list_runs(tmp_path) == [other]


def test_a_trained_run_is_refused_by_name_and_left_out_of_a_query(tmp_path: Path) -> None:
    active, done = running_run(tmp_path), finished(tmp_path)
    refused = command(commands.rm, active.id, done.id, "--yes", "--runs", str(tmp_path))
    assert isinstance(refused.exception, BusyError)
    assert "accl stop" in refused.exception.hint
    assert len(list_runs(tmp_path)) == 2
    found = command(commands.rm, "recipe:full", "--yes", "--runs", str(tmp_path))
    assert found.exit_code == 0
    assert f"{active.id} is running" in found.output
    assert list_runs(tmp_path) == [active]


def test_a_run_that_does_not_answer_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, run = finished(tmp_path), finished(tmp_path, seed=2)
    choice = choose_runs(tmp_path, ["recipe:full"])
    late = BusyError("There was no answer within 2 s.", "Does its disk hang?")
    summaries = tuple(replace(s, problem=late) if s.run == hanging else s for s in choice.summaries)
    monkeypatch.setattr(commands, "choose_runs", lambda *_words: replace(choice, summaries=summaries))
    done = command(commands.rm, "recipe:full", "--yes", "--runs", str(tmp_path))
    assert f"{hanging.id} is left alone" in done.output
    assert list_runs(tmp_path) == [hanging]
    assert [entry.home for entry in trashed_runs(tmp_path)] == [run]


def test_the_trash_is_listed_restored_and_purged_by_name_and_query(tmp_path: Path) -> None:
    first, second, third = (finished(tmp_path, seed=seed) for seed in (1, 2, 3))
    for run in (first, second, third):
        removed(run)
    listed = json.loads(command(commands.restore, "--format", "json", "--runs", str(tmp_path)).stdout)
    assert [row["id"] for row in listed] == [first.id, second.id, third.id]
    assert all(row["size"] > 1000 for row in listed)
    assert command(commands.restore, "last", "--runs", str(tmp_path)).exit_code == 0
    assert list_runs(tmp_path) == [third]
    assert command(commands.purge, "seed:1", "--runs", str(tmp_path), typed="y\n").exit_code == 0
    assert [entry.home for entry in trashed_runs(tmp_path)] == [second]
    assert command(commands.restore, second.id[-4:], "--runs", str(tmp_path)).exit_code == 0
    missing = command(commands.restore, "last", "--runs", str(tmp_path))
    assert "is empty" in str(missing.exception)


def test_hostile_runs_are_removed_and_listed_harmlessly(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    for function, words in ((commands.rm, ["s42", "--yes"]), (commands.restore, []), (commands.restore, ["last"])):
        done = command(function, *words, "--runs", str(tmp_path))
        assert done.exit_code == 0, done.output
        assert not acting(done.output)
        assert "owned" in done.output
    assert run_folders(tmp_path) == [run]
