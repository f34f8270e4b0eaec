"""What can be done with runs in the app: stop, resume, restart, tags, notes, names, and undoing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import Trainer
from factory import crashed_run, finished_run, running_run
from snapshots import SIZES, freeze
from textual.pilot import Pilot
from tui_pilot import assert_picture, on_screen, open_app, open_newest_run, runs_listed, runs_screen, until

from accl.errors import RunError
from accl.launch import process, queue
from accl.store.labels import Labels, edit_labels, read_labels
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir, list_runs
from accl.store.trash import trashed_runs
from tui.app import AcclApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.prompt import PromptScreen
from tui.screens.runs import RunsScreen
from tui.snapshot import _lines as lines_of
from tui.widgets.suggest import completed


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.load.machine_load", lambda: ())


@pytest.fixture(name="told")
def _told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of what the user is notified of."""
    told: list[str] = []
    monkeypatch.setattr(AcclApp, "notify", lambda _, message, title="", **__: told.append(f"{title} {message}"))
    return told


async def asked(pilot: Pilot[None], key: str) -> str:
    """Press a key that asks something, and return the question."""
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, (ConfirmScreen, PromptScreen)))
    return on_screen(pilot)


async def type_line(pilot: Pilot[None], key: str, text: str) -> None:
    """Press a key that asks for a line, and type it."""
    await asked(pilot, key)
    await pilot.press(*text, "enter")
    await until(pilot, lambda: not isinstance(pilot.app.screen, PromptScreen))


async def test_all_selected_runs_are_stopped_those_that_are_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    live = {running_run(tmp_path, seed=seed).id for seed in (1, 2)}
    finished_run(tmp_path, "full", seed=3, curves=False)
    stopped: list[str] = []
    monkeypatch.setattr(process, "stop", lambda run: stopped.append(run.id))
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await pilot.press("ctrl+a")
        question = await asked(pilot, "t")
        assert "Stop 2 runs?" in question
        await pilot.press("y")
        await until(pilot, lambda: set(stopped) == live and bool(told))
        assert told == ["Stopping 2 runs It finishes its step, writes a checkpoint and ends."]


async def test_a_key_for_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    finished_run(tmp_path, curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        for key, why in (("t", "nothing of it is active"), ("r", "only what has stopped"), ("u", "nothing was done")):
            await pilot.press(key)
            await until(pilot, lambda why=why: why in on_screen(pilot))


async def test_a_run_that_has_stopped_goes_on(tmp_path: Path, started: list[RunDir], told: list[str]) -> None:
    run = crashed_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("C")
        await until(pilot, lambda: started == [run] and bool(told))
        assert told == [f"Resuming {run.id} It goes on from the beginning."]


async def test_several_that_have_stopped_go_on_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    runs = [crashed_run(tmp_path, seed=seed) for seed in (1, 2, 3)]
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    with RunLock.acquire(runs[1], TRAINING):
        async with open_app(tmp_path) as pilot:
            await runs_listed(pilot, 3)
            await pilot.press("ctrl+a")
            await until(pilot, lambda: runs_screen(pilot).can_resume)
            await asked(pilot, "r")
            await pilot.press("y")
            await until(pilot, lambda: bool(told))
        assert told == ["Queued: 2 runs What waits goes on one after the other: Q shows it."]
    assert {entry.run for entry in queue.waiting(tmp_path)} == {runs[0], runs[2]}


async def test_what_fails_for_some_runs_is_said_and_done_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    runs = [crashed_run(tmp_path, seed=seed) for seed in (1, 2, 3)]
    tried: list[RunDir] = []

    def enqueue(_root: Path, several: list[RunDir]) -> None:
        tried.extend(several)
        if several == [runs[1]]:
            raise RunError("Its lock is held.", "Try again in a moment.")

    monkeypatch.setattr(queue, "enqueue", enqueue)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await pilot.press("ctrl+a")
        await asked(pilot, "r")
        await pilot.press("y")
        await until(pilot, lambda: len(told) == 2)
        assert set(tried) == set(runs)
        assert f"Not queued: {runs[1].id} Its lock is held. Try again in a moment." in told
        assert any(each.startswith("Queued: 2 runs") for each in told)


async def test_the_app_answers_while_a_start_hangs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    crashed_run(tmp_path)
    free = threading.Event()
    monkeypatch.setattr(process, "start", lambda _: (free.wait(), Trainer())[1])
    monkeypatch.setattr("tui.screens.acting.actions.DEADLINE_S", 0.05)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        screen = runs_screen(pilot)
        await pilot.press("r", "g")
        await until(pilot, lambda: screen.list.grouping == "profile")
        await until(pilot, lambda: any("no answer within" in each for each in told))
        free.set()


async def test_the_same_is_trained_again_as_a_new_run(tmp_path: Path, started: list[RunDir]) -> None:
    old = finished_run(tmp_path, "full", seed=7, curves=False, overrides=["optim.lr=3e-5"])
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        assert old.id in await asked(pilot, "R")
        await pilot.press("y")
        await until(pilot, lambda: bool(started))
        await runs_listed(pilot, 2)
    (new,) = started
    assert new in list_runs(tmp_path)
    assert new.config.read_text() == old.config.read_text()
    assert new.read_json(new.provenance)["command"] == ["accl", "restart", old.id]


async def test_tags_are_added_and_removed_and_that_is_undone(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, seed=seed, curves=False) for seed in (1, 2)]
    edit_labels(runs[0], add=["old", "first"])
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 2)
        await pilot.press("ctrl+a")
        await type_line(pilot, "T", "paper -old")
        await until(pilot, lambda: read_labels(runs[1]).tags == ("paper",))
        await until(pilot, lambda: read_labels(runs[0]).tags == ("first", "paper"))
        await until(pilot, lambda: any("#paper" in line for line in on_screen(pilot).splitlines()))
        await until(pilot, lambda: runs_screen(pilot).can_undo)
        await pilot.press("u")
        await until(pilot, lambda: read_labels(runs[1]).tags == ())
        await until(pilot, lambda: set(read_labels(runs[0]).tags) == {"old", "first"})
        assert not runs_screen(pilot).can_undo


async def test_what_is_deleted_is_brought_back_together_by_one_key(tmp_path: Path, told: list[str]) -> None:
    gone = {finished_run(tmp_path, seed=seed, curves=False).id for seed in (1, 2)}
    live = running_run(tmp_path, "full", seed=3)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 3)
        await pilot.press("ctrl+a")
        question = await asked(pilot, "D")
        assert "Delete 2 runs?" in question
        assert "1 active run is left." in question
        await pilot.press("y")
        await runs_listed(pilot, 1)
        assert list_runs(tmp_path) == [live]
        assert {entry.run.id for entry in trashed_runs(tmp_path)} == gone
        await until(pilot, lambda: runs_screen(pilot).can_undo)
        await pilot.press("u")
        await runs_listed(pilot, 3)
        assert trashed_runs(tmp_path) == []
    assert [each.split(" ")[0] for each in told] == ["Deleted:", "Undone:"]


async def test_a_run_that_is_deleted_on_its_screen_leaves_it(tmp_path: Path) -> None:
    for seed in (1, 2):
        finished_run(tmp_path, seed=seed, curves=False)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await asked(pilot, "D")
        await pilot.press("y")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await runs_listed(pilot, 1)


async def test_a_run_that_trains_is_not_deleted(tmp_path: Path, told: list[str]) -> None:
    run = finished_run(tmp_path, curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await asked(pilot, "D")
        with RunLock.acquire(run, TRAINING):  # meanwhile
            await pilot.press("y")
            await until(pilot, lambda: bool(told))
        assert f"Not deleted: {run.id}" in told[0]
        assert not runs_screen(pilot).can_undo
    assert list_runs(tmp_path) == [run]


async def test_a_run_gets_a_note_and_a_name_which_its_screen_and_the_list_show(tmp_path: Path) -> None:
    run = finished_run(tmp_path, curves=False)
    async with open_app(tmp_path, (120, 36)) as pilot:
        await open_newest_run(pilot)
        await type_line(pilot, "M", "too slow")
        await until(pilot, lambda: "too slow" in on_screen(pilot))
        await type_line(pilot, "E", "chosen one")
        await until(pilot, lambda: "chosen one" in on_screen(pilot))
        assert read_labels(run) == Labels("chosen one", (), "too slow")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await until(pilot, lambda: "s42 chosen one" in on_screen(pilot))
        question = await asked(pilot, "N")
        assert "too slow" in pilot.app.screen.query_one("#prompt-line").value, question  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
    assert read_labels(run).note == "too slow"


async def test_one_run_waits_for_its_turn_if_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    run = crashed_run(tmp_path)
    monkeypatch.setattr(queue, "ensure_worker", lambda _: None)
    async with open_app(tmp_path) as pilot:
        await open_newest_run(pilot)
        await pilot.press("W")
        await until(pilot, lambda: bool(told))
    assert told[0].startswith(f"Queued: {run.id}")
    assert [entry.run for entry in queue.waiting(tmp_path)] == [run]


async def test_a_name_that_means_another_run_is_said_or_refused(tmp_path: Path, told: list[str]) -> None:
    runs = [finished_run(tmp_path, seed=seed, curves=False) for seed in (1, 2)]
    edit_labels(runs[0], name="best")
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 2)
        target = runs_screen(pilot).targets[0].run
        if target == runs[0]:
            await pilot.press("down")
        await type_line(pilot, "E", "best")
        await until(pilot, lambda: len(told) == 1)
        assert "so that it means none of them" in told[0]
        await until(pilot, lambda: read_labels(runs[1]).name == "best")
        await until(pilot, lambda: runs_screen(pilot).targets[0].summary.labels.name == "best")
        await asked(pilot, "E")
        await pilot.press(*["backspace"] * 4, *"last", "enter")
        await until(pilot, lambda: len(told) == 2)
        assert "always means the newest run" in told[1]
    assert read_labels(runs[1]).name == "best"


async def test_a_label_that_is_refused_says_what_may_be_typed(tmp_path: Path, told: list[str]) -> None:
    run = finished_run(tmp_path, curves=False)
    run.labels.write_text("no JSON")
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await type_line(pilot, "T", "paper")
        await until(pilot, lambda: bool(told))
        assert f"Not changed: the tags of {run.id}" in told[0]
        assert not runs_screen(pilot).can_undo
    assert run.labels.read_text() == "no JSON"


@pytest.mark.parametrize(
    ("typed", "suggested"), [("pa", "paper"), ("x -pa", "x -paper"), ("paper", None), ("x ", None), ("", None)]
)
def test_the_last_word_is_completed(typed: str, suggested: str | None) -> None:
    assert completed(typed, ["old", "paper"]) == suggested


async def test_a_tag_in_use_is_completed_by_tab(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, seed=seed, curves=False) for seed in (1, 2)]
    edit_labels(runs[0], add=["published"])
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 2)
        await pilot.press("ctrl+a")
        await asked(pilot, "T")
        await pilot.press("p", "u")
        line = pilot.app.screen.query_one("#prompt-line")
        await until(pilot, lambda: line._suggestion == "published")  # type: ignore[attr-defined]
        await pilot.press("tab", "enter")
        await until(pilot, lambda: read_labels(runs[1]).tags == ("published",))


async def test_pictures_of_the_question_for_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    runs = [finished_run(tmp_path, seed=seed, curves=False) for seed in (1, 2)]
    edit_labels(runs[0], name="first", add=["paper"], note="the one of table 2")
    edit_labels(runs[1], name="second")
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 2)
        await until(pilot, lambda: runs_screen(pilot).is_complete)
        await pilot.press("ctrl+a")
        await asked(pilot, "T")
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await assert_picture(pilot, f"prompt-{width}x{height}", lambda: lines_of(pilot.app))
