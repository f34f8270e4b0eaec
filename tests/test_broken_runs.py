"""Every way to damage a run folder, against every view: one broken run is one broken row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from conftest import Accl, printed_by_compare
from factory import finished_run
from tui_pilot import on_screen, open_app, runs_listed, runs_screen, until
from typer.testing import CliRunner

from accl.bench.damage import Damage, damages
from accl.cli.logs import logs
from accl.cli.runs import runs
from accl.cli.show import show
from accl.errors import AbsentError, AcclError, BusyError, DamagedError, RunError
from accl.store.rundir import RunDir
from accl.store.summary import SummaryReader
from tui.screens.compare import CompareScreen
from tui.screens.run import RunScreen

ALL = damages()


def damaged_in_another_way_each() -> list[str]:
    """Return the name of one damage for each file of a run."""
    ways: dict[str, list[str]] = {}
    for damage in ALL:
        ways.setdefault(damage.name.partition(":")[0], []).append(damage.name)
    return [names[7 * i % len(names)] for i, names in enumerate(ways.values())]


FEW = damaged_in_another_way_each()
PORTIONS = [pytest.param([d.name for d in ALL[i::40]], id=str(i), marks=pytest.mark.slow) for i in range(40)]
HEALTHY = ("baseline", "contrastive")
# What a view must never say: an exception that no reader expected.
UNEXPECTED = "cannot be understood ("
EXIT_CODES = {error.kind: error.exit_code for error in (BusyError, DamagedError, AbsentError)}


@dataclass(frozen=True)
class Folder:
    """Two healthy runs, and one run for each damage, by its name."""

    root: Path
    damaged: dict[str, RunDir]


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    base = tmp_path_factory.mktemp("broken")
    root = base / "runs"
    for recipe in HEALTHY:
        finished_run(root, recipe)
    whole = finished_run(base / "whole", "full", questions=12)
    return Folder(root, {damage.name: _damaged(root, whole, damage, i) for i, damage in enumerate(ALL)})


def _damaged(root: Path, whole: RunDir, damage: Damage, index: int) -> RunDir:
    run = RunDir(root / f"20261122-101500-full-s42-{index:04x}")
    shutil.copytree(whole.path, run.path, copy_function=os.link)
    damage.apply(run.path)
    return run


@pytest.fixture(autouse=True)
def _permissions(folder: Folder) -> Iterator[None]:
    yield
    os.chmod(folder.damaged["run folder: no permission"].path, 0o700)  # so that the folder can be removed


def call(command: Any, *arguments: str, root: Path) -> tuple[str, Exception | None]:
    """Run a command in this process; returns what it printed and its error."""
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [*arguments, "--runs", str(root)], env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, (AcclError, SystemExit)):
        raise done.exception
    return done.stdout, done.exception if isinstance(done.exception, AcclError) else None


def test_the_catalogue_is_large_and_every_damage_has_its_name() -> None:
    assert len({damage.name for damage in ALL}) == len(ALL) > 800


def test_the_list_has_a_row_for_every_run_and_says_what_is_wrong_with_it(folder: Folder) -> None:
    printed, error = call(runs, "--format", "json", root=folder.root)
    assert error is None
    rows = {row["id"]: row for row in json.loads(printed)}
    assert [row["problem"] for row in rows.values() if row["recipe"] in HEALTHY] == [None, None]
    for name, run in folder.damaged.items():
        gone = name in ("run folder: missing", "run folder: a folder without files")
        assert (run.id in rows) is not gone, name
        if (row := rows.get(run.id)) is None:
            continue
        assert (row["problem"] is None) <= (row["state"] is not None), name
        if row["problem"]:
            assert row["problem"]["kind"] in ("damaged", "absent"), name
            assert UNEXPECTED not in row["problem"]["message"], name
        if name.startswith("run folder") and "link to a folder" not in name and "permission" not in name:
            assert row["state"] is None, name
    table, _ = call(runs, root=folder.root)
    assert "? damaged" in table
    assert "? absent" in table


def test_others_are_compared_and_the_broken_ones_are_counted(folder: Folder) -> None:
    printed = printed_by_compare(folder.root, *HEALTHY)
    assert "runs in the folder could not be read and may be missing here" in " ".join(printed.split())


@pytest.mark.parametrize("part", [pytest.param(FEW, id="few"), *PORTIONS])
def test_a_broken_run_is_shown_with_the_exit_code_of_its_problem(folder: Folder, part: list[str]) -> None:
    for name in part:
        run = folder.damaged[name]
        printed, error = call(show, run.id, "--format", "json", root=folder.root)
        if not printed:
            assert type(error) is RunError, name  # no such run
            continue
        shown = json.loads(printed)
        problem = shown["problem"]
        assert (error is None) == (problem is None), name
        if error is None:
            assert shown["metrics"], name  # never success without the figures that there are
        else:
            assert error.exit_code == EXIT_CODES[problem["kind"]], name
            assert UNEXPECTED not in str(error), name
            assert "\n" not in error.what, name


def test_what_can_still_be_read_is_shown(folder: Folder) -> None:
    run = folder.damaged["state.json: step is null"]
    printed, error = call(show, run.id, root=folder.root)
    assert isinstance(error, DamagedError)
    assert error.what == f"{run.state} cannot be understood: step is None, not a number of things."
    assert "train/loss" in printed
    run = folder.damaged["config.yaml: missing"]
    printed, error = call(show, run.id, root=folder.root)
    assert isinstance(error, AbsentError)
    assert "✓ finished: " in printed


@pytest.mark.parametrize(
    "kind", ["a FIFO", "a link to a file", "a link to an endless device", "a folder without files"]
)
def test_only_a_regular_console_log_is_printed(folder: Folder, kind: str) -> None:
    printed, error = call(logs, folder.damaged[f"console.log: {kind}"].id, root=folder.root)
    assert isinstance(error, DamagedError)
    assert printed == ""


def test_a_console_log_of_many_gb_is_printed_from_near_its_end(folder: Folder) -> None:
    _, error = call(logs, folder.damaged["console.log: of many GB"].id, "--lines", "1", root=folder.root)
    assert error is None


@pytest.mark.parametrize("kind", ["missing", "garbage", "a FIFO"])
def test_all_of_a_console_log_is_printed_although_nothing_tells_whether_the_run_goes_on(
    tmp_path: Path, kind: str
) -> None:
    run = finished_run(tmp_path, "full")
    run.console.write_text("first\nlast, without an end")
    next(damage for damage in ALL if damage.name == f"state.json: {kind}").apply(run.path)
    printed, error = call(logs, "last", "--follow", root=tmp_path)
    assert printed == "first\nlast, without an end\n"
    assert isinstance(error, AbsentError if kind == "missing" else DamagedError)


@pytest.mark.parametrize("name", ["state.json: missing", "run.duckdb: missing"])
def test_a_broken_run_that_is_named_in_a_comparison_ends_it_with_its_problem(folder: Folder, name: str) -> None:
    with pytest.raises(AbsentError):
        printed_by_compare(folder.root, "baseline", folder.damaged[name].id)


async def test_the_app_lists_every_run_and_can_be_left(folder: Folder) -> None:
    async with open_app(folder.root, (150, 40)) as pilot:
        await runs_listed(pilot, len(ALL) + len(HEALTHY) - 2)
        labels = {summary.state_label[0] for summary in runs_screen(pilot).summaries}
        assert {"? damaged", "? absent", "✓ finished"} <= labels
        for summary in runs_screen(pilot).summaries:
            assert UNEXPECTED not in summary.reason[0]
        await pilot.press("q")
        await until(pilot, lambda: not pilot.app.is_running or pilot.app._exit)


@pytest.mark.parametrize("part", [pytest.param(FEW[:6], id="few"), *PORTIONS])
async def test_the_app_opens_every_broken_run(folder: Folder, part: list[str], tmp_path: Path) -> None:
    async with open_app(tmp_path, (120, 40)) as pilot:
        for name in part:
            screen = RunScreen(pilot.app.services, folder.damaged[name])
            await pilot.app.push_screen(screen)
            await until(pilot, lambda screen=screen: screen.view is not None)
            problem = screen.view.problem
            head = on_screen(pilot)
            assert problem is None or problem.kind in head
            assert UNEXPECTED not in head
            pilot.app.pop_screen()


async def test_the_app_compares_a_broken_run_with_a_healthy_one(folder: Folder, tmp_path: Path) -> None:
    healthy = finished_run(tmp_path, "baseline")
    async with open_app(tmp_path, (120, 40)) as pilot:
        damaged = folder.damaged["state.json: a FIFO"]
        await pilot.app.push_screen(CompareScreen(pilot.app.services, [healthy, damaged]))
        for words in ("not compared", "? damaged", "state.json cannot be read"):
            await until(pilot, lambda words=words: words in on_screen(pilot))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.duckdb.wal", b"rubbish"),
        ("run.spool.jsonl", b"\xff" * 999),
        pytest.param("run.duckdb.wal", bytes(5000), marks=pytest.mark.slow),
        pytest.param("run.duckdb.wal", b"\xff" * 999, marks=pytest.mark.slow),
        pytest.param("run.spool.jsonl", b"rubbish", marks=pytest.mark.slow),
        pytest.param("run.spool.jsonl", bytes(5000), marks=pytest.mark.slow),
    ],
)
async def test_rubbish_that_is_left_out_is_said_beside_what_can_be_read(
    tmp_path: Path, name: str, content: bytes
) -> None:
    run = finished_run(tmp_path, "full")
    rubbish = run.path / name
    rubbish.write_bytes(content)
    os.utime(rubbish, (0, 0))  # nobody is writing it
    printed, error = call(show, "last", "--format", "json", root=tmp_path)
    assert isinstance(error, DamagedError)
    assert name in error.what
    data = json.loads(printed)
    assert data["metrics"]
    assert data["problem"]["kind"] == "damaged"
    async with open_app(tmp_path, (120, 40)) as pilot:
        screen = RunScreen(pilot.app.services, run)
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: name in on_screen(pilot))
        assert screen.view is not None
        assert screen.view.curves


async def test_every_kind_of_store_that_cannot_be_read_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    healthy = finished_run(tmp_path, "baseline")
    held, damaged, absent, newer, waiting = (finished_run(tmp_path, seed=seed, predictions=False) for seed in range(5))
    damaged.database.write_bytes(b"no database")
    absent.database.unlink()
    with duckdb.connect(str(newer.database)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    waiting.state.unlink()
    os.mkfifo(waiting.state)  # which nobody ever writes, as on a file system that does not answer
    code = f"import duckdb, sys; c = duckdb.connect({str(held.database)!r}); print(flush=True); sys.stdin.read()"
    expected = {held: "busy", damaged: "damaged", absent: "absent", newer: "schema 99", waiting: "damaged"}
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        async with open_app(tmp_path, (160, 45)) as pilot:
            await runs_listed(pilot, 1 + len(expected))
            labels = {summary.run: summary.state_label[0] for summary in runs_screen(pilot).summaries}
            assert labels[waiting] == "? damaged"
            assert labels[healthy] == "✓ finished"
            for run, words in expected.items():
                await pilot.app.push_screen(RunScreen(pilot.app.services, run))
                await until(pilot, lambda words=words: words in on_screen(pilot))
                pilot.app.pop_screen()
            screen = RunScreen(pilot.app.services, healthy)
            await pilot.app.push_screen(screen)
            await until(pilot, lambda: screen.view is not None and bool(screen.view.curves))
        holder.communicate()


async def test_a_run_that_does_not_answer_is_a_busy_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path, "baseline")
    hanging = finished_run(tmp_path, "full")
    never, read = threading.Event(), SummaryReader.read
    monkeypatch.setattr(
        SummaryReader, "read", lambda self, now: never.wait() if self.last.run == hanging else read(self, now)
    )
    async with open_app(tmp_path, (120, 24)) as pilot:
        await runs_listed(pilot, 2)
        assert {summary.state_label[0] for summary in runs_screen(pilot).summaries} == {"? busy", "✓ finished"}
        await pilot.app.push_screen(RunScreen(pilot.app.services, hanging))
        await until(pilot, lambda: "busy" in on_screen(pilot) and "no answer" in on_screen(pilot))
    printed, error = call(show, hanging.id, "--format", "json", root=tmp_path)
    assert isinstance(error, BusyError)
    assert json.loads(printed)["problem"]["kind"] == "busy"


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_the_app_is_left_while_a_fetch_never_returns(tmp_path: Path, key: str) -> None:
    finished_run(tmp_path, curves=False)
    code = """if True:
        import asyncio, sys, threading
        from pathlib import Path
        from tui.app import AcclApp
        from tui.feed import RunsFeed

        async def leave(app):
            async with app.run_test() as pilot:
                called, never = threading.Event(), threading.Event()
                RunsFeed.fetch = lambda feed: (called.set(), never.wait())
                while not called.is_set():
                    await pilot.pause(0.01)
                await pilot.press(sys.argv[2])
            print("left")

        asyncio.run(leave(AcclApp(Path(sys.argv[1]), interval=0.05)))
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), key], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_the_command_line_survives_every_damage(folder: Folder, accl: Accl, part: int) -> None:
    done = accl("runs", "--runs", str(folder.root))
    assert done.returncode == 0
    assert all(recipe in done.stdout for recipe in HEALTHY)
    assert accl("compare", *HEALTHY, "--runs", str(folder.root)).returncode == 0
    for name, run in list(folder.damaged.items())[part::8]:
        done = accl("show", run.id, "--runs", str(folder.root))
        assert done.returncode in (0, RunError.exit_code, *EXIT_CODES.values()), (name, done.stderr)
        assert "Traceback" not in done.stderr, name
        assert done.stderr.count("error: ") == (done.returncode != 0), (name, done.stderr)
