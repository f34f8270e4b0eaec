"""The queue in the app: what waits, in which order, and who may start."""

from __future__ import annotations

from pathlib import Path

import pytest
from factory import finished_run, running_run
from snapshots import NOW, SIZES, freeze
from textual.pilot import Pilot
from tui_pilot import assert_picture, on_screen, open_app, until

from accl.config import resolve
from accl.errors import RunError
from accl.launch import process, queue
from accl.store.labels import edit_labels
from accl.store.rundir import RunDir
from accl.store.state import State, observe, read_state, write_state
from accl.store.waiting import read_waiting, write_waiting
from tui.app import AcclApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.queue import QueueScreen
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.snapshot import _lines as lines_of


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ())
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    monkeypatch.setattr(queue, "worker_pid", lambda _: 123)


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(AcclApp, "notify", lambda _, message, title="", **__: told.append(f"{title} {message}"))
    return told


@pytest.fixture(name="waiting")
def _waiting(tmp_path: Path) -> list[RunDir]:
    """Three runs that wait, in their order."""
    return make_waiting(tmp_path)


def make_waiting(root: Path) -> list[RunDir]:
    configs = [resolve("full", "demo", [f"train.seed={seed}"]).config for seed in (1, 2, 3)]
    runs = [process.prepare(root, config, ["accl", "train"], "weights") for config in configs]
    for run, name in zip(runs, ("first", "second", "third"), strict=True):
        edit_labels(run, name=name)
    queue.enqueue(root, runs)
    return runs


async def opened(pilot: Pilot[None], count: int) -> QueueScreen:
    """Open the queue, and wait until it has so many rows."""
    await pilot.press("Q")
    await until(pilot, lambda: isinstance(pilot.app.screen, QueueScreen))
    screen = pilot.app.screen
    assert isinstance(screen, QueueScreen)
    await until(pilot, lambda: not screen.pending and len(screen.table.rows) == count)
    return screen


def order(root: Path) -> list[RunDir]:
    return [entry.run for entry in queue.waiting(root)]


async def test_what_trains_stands_above_what_waits(tmp_path: Path, waiting: list[RunDir]) -> None:
    live = running_run(tmp_path, "baseline", seed=9)
    finished_run(tmp_path, "contrastive", curves=False)
    async with open_app(tmp_path, (120, 36)) as pilot:
        screen = await opened(pilot, 4)
        assert [row.key for row in screen.table.rows] == [run.id for run in (live, *waiting)]
        shown = on_screen(pilot)
        assert "3 waiting · 1 training" in shown
        assert "80/200" in shown
        assert "weights" in shown
        await pilot.press("home", "K")
        await until(pilot, lambda: "it does not wait" in on_screen(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, QueueScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


@pytest.mark.usefixtures("waiting")
async def test_the_process_of_runs_is_shown_where_some_share_it(tmp_path: Path) -> None:
    runs = [running_run(tmp_path, "baseline", seed=seed) for seed in (7, 8)]  # both in the process of this test
    pid = read_state(runs[0]).pid
    async with open_app(tmp_path, (120, 36)) as pilot:
        screen = await opened(pilot, 5)
        lines = on_screen(pilot).splitlines()
        assert [f" {pid} " in line for line in lines if "baseline" in line] == [True, True]
        assert any("process" in line and "state" in line for line in lines)
        assert not any(f" {pid} " in line for line in lines if "full" in line), "those that wait have none"
        write_state(runs[1], read_state(runs[1]).changed(state=State.FINISHED))
        await until(pilot, lambda: len(screen.table.rows) == 4)
        assert f" {pid} " not in on_screen(pilot)


async def test_keys_that_come_fast_move_a_run_as_often(tmp_path: Path, waiting: list[RunDir]) -> None:
    first, second, third = waiting
    async with open_app(tmp_path) as pilot:
        screen = await opened(pilot, 3)
        await pilot.press("down", "down", "K", "K", "J")
        assert [entry.run for entry in screen.entries] == [first, third, second], "at once"
        await until(pilot, lambda: order(tmp_path) == [first, third, second])
        await pilot.press("F", "K")
        await until(pilot, lambda: order(tmp_path) == [third, first, second])
        assert screen.run == third, "the cursor stays with it"


@pytest.mark.usefixtures("waiting")
async def test_runs_are_paused_and_go_on(tmp_path: Path) -> None:
    def paused() -> list[bool]:
        return [not entry.ready for entry in queue.waiting(tmp_path)]

    async with open_app(tmp_path) as pilot:
        screen = await opened(pilot, 3)
        await pilot.press("p")
        await until(pilot, lambda: paused() == [True, False, False])
        await until(pilot, lambda: "1 paused" in on_screen(pilot))
        assert "by hand" in on_screen(pilot)
        await pilot.press("p")
        await until(pilot, lambda: not any(paused()))
        await until(pilot, lambda: "paused" not in on_screen(pilot))
        await pilot.press("P")
        await until(pilot, lambda: all(paused()))
        await until(pilot, lambda: all(each.waiting and each.waiting.paused for each in screen.entries))
        await pilot.press("P")
        await until(pilot, lambda: not any(paused()))


async def test_a_run_is_taken_out_after_a_question(tmp_path: Path, waiting: list[RunDir]) -> None:
    async with open_app(tmp_path) as pilot:
        screen = await opened(pilot, 3)
        await pilot.press("down", "t")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen))
        assert waiting[1].id in on_screen(pilot)
        await pilot.press("y")
        await until(pilot, lambda: pilot.app.screen is screen and len(screen.table.rows) == 2)
    assert observe(waiting[1]).state is State.STOPPED
    assert order(tmp_path) == [waiting[0], waiting[2]]


async def test_a_damaged_place_is_one_row_that_says_so(tmp_path: Path, waiting: list[RunDir]) -> None:
    waiting[0].queue.write_text("{")
    async with open_app(tmp_path, (160, 45)) as pilot:
        screen = await opened(pilot, 3)
        await until(pilot, lambda: "damaged" in on_screen(pilot))
        assert [entry.run for entry in screen.entries] == [waiting[1], waiting[2], waiting[0]]
        await pilot.press("end")
        await until(pilot, lambda: "not valid JSON" in on_screen(pilot))


async def test_what_cannot_be_done_is_said(
    tmp_path: Path, waiting: list[RunDir], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RunError("It has been started meanwhile.", "See: accl queue")

    monkeypatch.setattr(queue, "pause", refuse)
    async with open_app(tmp_path) as pilot:
        await opened(pilot, len(waiting))
        await pilot.press("p")
        await until(pilot, lambda: told == ["Not done It has been started meanwhile. See: accl queue"])


async def test_an_empty_queue_says_how_to_fill_it(tmp_path: Path) -> None:
    async with open_app(tmp_path) as pilot:
        await opened(pilot, 0)
        assert "Nothing trains or waits." in on_screen(pilot)
        for key in ("p", "P", "K", "t", "enter"):
            await pilot.press(key)
        assert isinstance(pilot.app.screen, QueueScreen)


async def test_pictures_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    runs = make_waiting(tmp_path)
    for run in runs:
        place = read_waiting(run)
        assert place is not None
        write_waiting(run, place.changed(since=NOW - 900))
    queue.pause(tmp_path, runs[1:2], "first failed within seconds")
    live = running_run(tmp_path, "baseline", seed=9)
    edit_labels(live, name="alone")
    async with open_app(tmp_path) as pilot:
        await opened(pilot, 4)
        await pilot.press("down", "down")
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await assert_picture(pilot, f"queue-{width}x{height}", lambda: lines_of(pilot.app))
