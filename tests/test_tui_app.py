"""The app as a whole: the table of runs, keys, help, and stopping a run."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from factory import crashed_run, finished_run, running_run
from tui_pilot import TICK, on_screen, open_app, open_newest_run, runs_listed, until

from accl.errors import RunError
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.vocabulary import QUESTIONS, RUNS
from tui.app import AcclApp
from tui.commands import COMMANDS
from tui.feed import RunsFeed
from tui.messages import Ask, OpenLaunch, Prompt
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen, KeyPage
from tui.screens.launch import LaunchScreen
from tui.screens.palette import PaletteScreen
from tui.screens.prompt import PromptScreen
from tui.screens.queue import QueueScreen
from tui.screens.runs import RunsScreen
from tui.widgets.keybar import KeyBar
from tui.widgets.table import Table
from tui.widgets.text import Text

SIZES = [(20, 5), (80, 24), (200, 60)]


async def test_an_empty_folder_says_what_to_type(tmp_path: Path) -> None:
    async with open_app(tmp_path / "none") as pilot:
        await until(pilot, lambda: "accl train full --profile demo" in on_screen(pilot))
        await pilot.press("enter", "space", "c", "t", "escape", "down")
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_the_newest_run_is_on_top_and_a_new_one_appears_by_itself(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", started=time.time() - 900)
    async with open_app(tmp_path, (120, 24)) as pilot:
        await runs_listed(pilot)
        newest = running_run(tmp_path, "full")
        await runs_listed(pilot, 2)
        table = pilot.app.screen.query_one(Table)
        assert table.rows[0].key == newest.id
        await until(pilot, lambda: "▶ running" in table.text_lines[1] and "80/200" in table.text_lines[1])
        assert table.key != newest.id, "the cursor stays on its run"


async def test_the_essentials_of_a_run_fit_into_eighty_columns(tmp_path: Path) -> None:
    finished_run(tmp_path, "contrastive", steps=12000, curves=False)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        head, row = pilot.app.screen.query_one(Table).text_lines[:2]
        for word in ("arm/run", "state", "step", "loss, all steps", "val", "test"):
            assert word in head
        for word in ("✓ finished", "contrastive s42", "12,000", "%"):
            assert word in row


async def test_a_killed_process_shows_as_crashed_with_its_reason(tmp_path: Path) -> None:
    crashed_run(tmp_path, console="RuntimeError: CUDA error: device-side assert triggered")
    async with open_app(tmp_path) as pilot:
        await until(pilot, lambda: "☠ crashed" in on_screen(pilot))
        assert "device-side assert" in "\n".join(pilot.app.screen.query_one("#detail", Text).text_lines)


async def test_the_table_parses_a_state_file_again_only_when_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = running_run(tmp_path)
    reads: list[RunDir] = []

    def counted(run: RunDir) -> object:
        reads.append(run)
        return read_state(run)

    monkeypatch.setattr("accl.store.summary.read_state", counted)
    async with open_app(tmp_path) as pilot:
        looks: list[int] = []
        fetch = RunsFeed.fetch
        monkeypatch.setattr(RunsFeed, "fetch", lambda feed: (looks.append(1), fetch(feed))[1])
        await until(pilot, lambda: len(looks) > 3)
        before = len(reads)
        await until(pilot, lambda: len(looks) > 8)
        assert len(reads) == before <= 2, "once for the list, and once for the run at the cursor"
        write_state(run, read_state(run).changed(step=123))
        await until(pilot, lambda: "123/200" in on_screen(pilot))
        assert len(reads) > before


async def test_the_filter_keeps_runs_that_contain_all_words(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline")
    finished_run(tmp_path, "full", seed=43)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot, 2)
        await pilot.press("f", *"full s43", "enter")
        await until(pilot, lambda: len(pilot.app.screen.query_one(Table).rows) == 1)
        assert "1 shown" in on_screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: len(pilot.app.screen.query_one(Table).rows) == 2)


async def test_stop_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = running_run(tmp_path)
    stopped: list[str] = []
    monkeypatch.setattr(process, "stop", lambda run: stopped.append(run.id))
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen))
        assert run.id in on_screen(pilot)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert stopped == []
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: stopped == [run.id])


async def test_a_stop_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running_run(tmp_path)

    def refuse(run: RunDir) -> None:
        raise RunError(f"{run.id} runs on another machine.", "Stop it there.")

    monkeypatch.setattr(process, "stop", refuse)
    app = AcclApp(tmp_path, interval=TICK)
    said: list[str] = []
    monkeypatch.setattr(app, "notify", lambda message, **_: said.append(message))
    async with app.run_test(size=(80, 24)) as pilot:
        await runs_listed(pilot)
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: bool(said))
        assert "another machine" in said[0]


async def test_a_finished_run_is_not_stopped(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await pilot.press("t")
        await pilot.pause()
        assert isinstance(pilot.app.screen, RunsScreen)


async def test_help_lists_every_key_also_those_of_filters(tmp_path: Path) -> None:
    async with open_app(tmp_path) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        page = [line for block in pilot.app.screen.query_one(KeyPage).blocks() for line in block]
        for command in COMMANDS:
            assert (command.keys_display or ":", command.title) in page
        for key in (*RUNS.keys, *QUESTIONS.keys):
            assert (key.name, key.help) in page
        first = pilot.app.screen.query_one(KeyPage).text_lines
        await pilot.press("end")
        assert pilot.app.screen.query_one(KeyPage).text_lines != first
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_no_key_is_dead(tmp_path: Path) -> None:
    """Each action of the key table exists on the screen or widget that binds it."""
    finished_run(tmp_path)
    finished_run(tmp_path, "full")
    app = AcclApp(tmp_path, interval=TICK)
    bound: set[tuple[str, str]] = set()

    def check() -> None:
        for node in [app, app.screen, *app.screen.query("*")]:
            for key, binding in node._bindings:
                name = binding.action.split("(")[0]
                owner, action = (app, name[4:]) if name.startswith("app.") else (node, name)
                if name.startswith("screen."):
                    owner, action = app.screen, name[7:]
                assert hasattr(owner, f"action_{action}"), f"{node}: {key} -> {binding.action}"
                bound.add((key, binding.action))

    async with app.run_test(size=(120, 40)) as pilot:
        check()
        await open_newest_run(pilot)
        check()
        await pilot.press("escape", "space", "down", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        check()
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        check()
        await pilot.press("escape", "colon")
        await until(pilot, lambda: isinstance(app.screen, PaletteScreen))
        check()
        app.screen.dismiss()
        app.push_screen(ConfirmScreen(Ask("Stop this run?", "some-run", (), AsyncMock())))
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        check()
        app.screen.dismiss()
        app.push_screen(QueueScreen(app.services))
        await until(pilot, lambda: isinstance(app.screen, QueueScreen))
        check()
        app.screen.dismiss()
        app.push_screen(LaunchScreen(app.services, OpenLaunch()))
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))
        check()
        app.screen.dismiss()
        app.push_screen(PromptScreen(Prompt("Note", "some-run", (), AsyncMock())))
        await until(pilot, lambda: isinstance(app.screen, PromptScreen))
        check()
    for command in COMMANDS:
        assert {(key, command.run) for key in command.keys} <= bound


@pytest.mark.parametrize("size", SIZES)
async def test_how_to_leave_is_always_at_the_foot(tmp_path: Path, size: tuple[int, int]) -> None:
    finished_run(tmp_path)
    async with open_app(tmp_path, size) as pilot:
        await open_newest_run(pilot)
        (foot,) = pilot.app.screen.query_one(KeyBar).text_lines
        assert "? help" in foot
        assert "q quit" in foot
        assert "esc back" in foot or size[0] < 80


async def test_leaving_does_not_touch_the_run(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    async with open_app(tmp_path) as pilot:
        await runs_listed(pilot)
        await pilot.press("q")
        await until(pilot, lambda: not pilot.app.is_running or pilot.app._exit)
    assert read_state(run).state is State.RUNNING


async def test_a_damaged_run_is_shown_as_such_and_harms_no_other(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline")
    broken = finished_run(tmp_path, "full", started=time.time())
    broken.state.write_text("{", encoding="utf-8")
    broken.database.write_bytes(b"no database" * 500)
    async with open_app(tmp_path, (120, 24)) as pilot:
        await runs_listed(pilot, 2)
        assert "baseline" in on_screen(pilot)
        await until(pilot, lambda: "state.json is not valid JSON" in on_screen(pilot))
        assert "? damaged" in on_screen(pilot)
        assert "0 active" in on_screen(pilot)
        screen = await open_newest_run(pilot)
        assert "DuckDB" in "\n".join(screen.query_one("#reason", Text).text_lines)
