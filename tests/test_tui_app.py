"""The app as somebody at a terminal meets it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factory import ALL_TASKS, crashed_run, finished_run, running_run
from textual.pilot import Pilot
from textual.widget import Widget

from accl.errors import RunError
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import State, read_state, write_state
from accl.store.writer import Recorder
from tui.app import AcclApp
from tui.keys import KEYS
from tui.panes.confusion import ConfusionPane
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen, KeyPage
from tui.screens.run import PANES, RunScreen
from tui.screens.runs import RunsScreen
from tui.widgets.bars import Bars
from tui.widgets.charts import Charts
from tui.widgets.drawn import Drawn
from tui.widgets.frame import KeyBar, Log, Text
from tui.widgets.heatmap import Heatmap
from tui.widgets.table import Table

SIZES = [(20, 5), (80, 24), (200, 60)]
TICK = 0.05
PATIENCE_S = 20.0


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for the condition; fail when it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        await pilot.pause()
        if condition():
            return
        assert time.monotonic() < deadline, f"it never came to that; on screen:\n{on_screen(pilot)}"
        await asyncio.sleep(TICK)


def on_screen(pilot: Pilot[None]) -> str:
    """Everything that the top screen shows, as text."""
    found = pilot.app.screen.query(Drawn)
    return "\n".join("\n".join(w.shown) for w in found if w.display and _shown(w))


def _shown(widget: Widget) -> bool:
    return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))


def runs_screen(pilot: Pilot[None]) -> RunsScreen:
    assert isinstance(pilot.app.screen, RunsScreen)
    return pilot.app.screen


async def opened(pilot: Pilot[None]) -> RunScreen:
    """The newest run, opened and read."""
    await until(pilot, lambda: bool(runs_screen(pilot).lines))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.view is not None)
    assert isinstance(pilot.app.screen, RunScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_every_screen_and_pane_opens_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    finished_run(tmp_path, "baseline", tasks=ALL_TASKS, steps=60)
    finished_run(tmp_path, "full", tasks=ALL_TASKS, steps=60, correct=0.7)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        for number, name in enumerate(PANES, start=1):
            await pilot.press(str(number))
            await pilot.pause()
            assert screen.pane.id == name
            await pilot.press("down", "o", "y", "pagedown", "up", "s")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and app.screen.comparison is not None)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert app.is_running


async def test_an_empty_folder_says_what_to_type(tmp_path: Path) -> None:
    app = AcclApp(tmp_path / "none", interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "accl train full --profile demo" in on_screen(pilot))
        await pilot.press("enter", "space", "c", "t", "escape", "down")
        assert isinstance(app.screen, RunsScreen)


async def test_the_newest_run_is_on_top_and_a_new_one_appears_by_itself(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", started=time.time() - 900)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 1)
        newest = running_run(tmp_path, "full")
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 2)
        table = app.screen.query_one(Table)
        assert table.rows[0].key == newest.id
        assert "▶ running" in table.shown[1]
        assert "80/200" in table.shown[1]
        assert table.key != newest.id, "the cursor stays on its run"


async def test_the_essentials_of_a_run_fit_into_eighty_columns(tmp_path: Path) -> None:
    finished_run(tmp_path, "contrastive", steps=12000, curves=False)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(runs_screen(pilot).lines))
        head, row = app.screen.query_one(Table).shown[:2]
        for word in ("state", "recipe", "seed", "step", "loss", "val", "test"):
            assert word in head
        for word in ("✓ finished", "contrastive", "42", "12,000/12,000", "%"):
            assert word in row


async def test_a_killed_process_shows_as_crashed_with_its_reason(tmp_path: Path) -> None:
    crashed_run(tmp_path, console="RuntimeError: CUDA error: device-side assert triggered")
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "☠ crashed" in on_screen(pilot))
        assert "device-side assert" in "\n".join(app.screen.query_one("#detail", Text).shown)


async def test_the_table_parses_a_state_file_again_only_when_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = running_run(tmp_path)
    reads: list[RunDir] = []

    def counted(run: RunDir) -> object:
        reads.append(run)
        return read_state(run)

    monkeypatch.setattr("tui.feed.read_state", counted)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = runs_screen(pilot)
        looks: list[int] = []
        take = screen.take
        monkeypatch.setattr(screen, "take", lambda found: (looks.append(1), take(found)))
        await until(pilot, lambda: len(looks) > 3)
        assert len(reads) == 1
        write_state(run, read_state(run).changed(step=123))
        await until(pilot, lambda: "123/200" in on_screen(pilot))
        assert len(reads) == 2


async def test_the_filter_keeps_runs_that_contain_all_words(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline")
    finished_run(tmp_path, "full", seed=43)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 2)
        await pilot.press("f", *"full s43", "enter")
        await until(pilot, lambda: len(app.screen.query_one(Table).rows) == 1)
        assert "1 shown" in on_screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen.query_one(Table).rows) == 2)


async def test_stop_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = running_run(tmp_path)
    stopped: list[str] = []
    monkeypatch.setattr(process, "stop", lambda run: stopped.append(run.id))
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(runs_screen(pilot).lines))
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert run.id in on_screen(pilot)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert stopped == []
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
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
        await until(pilot, lambda: bool(runs_screen(pilot).lines))
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: bool(said))
        assert "another machine" in said[0]


async def test_a_finished_run_is_not_stopped(tmp_path: Path) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(runs_screen(pilot).lines))
        await pilot.press("t")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)


async def test_curves_grow_while_a_recorder_writes(tmp_path: Path) -> None:
    run = running_run(tmp_path, step=60)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        chart = screen.query_one(Charts).charts["training loss"]
        await until(pilot, lambda: bool(chart.lines) and chart.lines[0].x[-1] == 60)
        recorder = Recorder(run.database, interval=TICK)
        recorder.metrics(61, 1.0, 4.0, {"train/loss": 0.125, "train/brand_new": 7.0})
        recorder.evaluation(61, "validation", {"n": 4, "new_score": 0.5})
        await until(pilot, lambda: chart.lines[0].x[-1] == 61)
        await until(pilot, lambda: "validation/new_score" in screen.query_one(Charts).displayed)
        assert "train/brand_new" in screen.query_one(Charts).displayed
        recorder.event(4.0, "warning", "precision", "bf16 is not to be had here, so fp32 it is")
        await pilot.press("4")
        await until(pilot, lambda: "bf16 is not to be had here" in on_screen(pilot))
        recorder.close()


async def test_axis_smoothing_and_scale_change_what_is_drawn(tmp_path: Path) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        chart = screen.query_one(Charts).charts["training loss"]
        await until(pilot, lambda: bool(chart.lines))
        assert chart.lines[0].x[-1] == 200
        smoothed = chart.lines[0].y.copy()
        await pilot.press("x")
        assert chart.lines[0].x[-1] == pytest.approx(3.0)
        await pilot.press("x")
        assert chart.lines[0].x[-1] == pytest.approx(10.0)
        assert all(tick in chart.shown[-1] for tick in ("2.5 s", "5.0 s", "7.5 s"))
        await pilot.press("s", "s")
        assert chart.lines[0].raw is None
        assert np.abs(np.diff(chart.lines[0].y)).mean() > np.abs(np.diff(smoothed)).mean()
        await pilot.press("y")
        assert chart.logarithmic
        assert "log" in chart.shown[0]


async def test_validation_accuracy_is_shown_with_both_floors(tmp_path: Path) -> None:
    finished_run(tmp_path, trivial_baselines={"majority_letter": 0.278, "longest_option": 0.262})
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        chart = screen.query_one(Charts).charts["validation accuracy"]
        await until(pilot, lambda: bool(chart.lines))
        text = "\n".join(chart.shown)
        assert "majority letter 27.8 %" in text
        assert "longest option 26.2 %" in text
        assert "accuracy 75.0 %" in text


async def test_the_metric_filter_narrows_the_charts_and_escape_drops_it_first(tmp_path: Path) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        charts = screen.query_one(Charts)
        await until(pilot, lambda: bool(charts.charts["training loss"].lines))
        await pilot.press("slash", *"rate", "enter")
        await until(pilot, lambda: charts.displayed == ["learning rate"])
        await pilot.press("escape")
        await until(pilot, lambda: len(charts.displayed) > 1)
        assert app.screen is screen


async def test_task_weights_are_sorted_and_compared_with_uniform(tmp_path: Path) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    weights = np.arange(1, 58) / np.arange(1, 58).sum()
    recorder = Recorder(run.database)
    recorder.curriculum(100, "confusion", weights.tolist(), list(range(57)))
    recorder.close()
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("2")
        bars = screen.query_one(Bars)
        await until(pilot, lambda: len(bars.bars) == 57)
        assert bars.bars[0].name == ALL_TASKS[-1][0]
        assert bars.bars[0].drawn == 56
        assert bars.mark == pytest.approx(1 / 57)
        assert "▾ uniform" in bars.shown[0]
        assert ALL_TASKS[-1][0] in bars.shown[1]
        assert "×1.97" in bars.shown[1]
        assert "policy confusion" in on_screen(pilot)
        await pilot.press("end")
        assert ALL_TASKS[0][0] in bars.shown[-1]
        await pilot.press("o", "o", "home")
        assert bars.bars[0].name == min(name for name, _, _ in ALL_TASKS)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_cursor_names_its_pair_and_value(tmp_path: Path, size: tuple[int, int]) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    matrix = np.arange(57 * 57, dtype=float).reshape(57, 57) / 10000
    matrix = (matrix + matrix.T) / 2
    counts = np.full((57, 57), 11)
    counts[0, 5] = counts[5, 0] = 0
    recorder = Recorder(run.database)
    recorder.confusion(10, "similarity", matrix.ravel().tolist(), counts.ravel().tolist())
    recorder.close()
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        await pilot.press("3")
        pane = screen.query_one(ConfusionPane)
        await until(pilot, lambda: len(pane.sequence) == 57)
        assert "training stream" in on_screen(pilot)
        await pilot.press("down", "down", "l", "right", "j")
        a, b = pane.pair
        assert (a, b) == (pane.sequence[3], pane.sequence[3])
        await pilot.press("l", "l")
        a, b = pane.pair
        text = "\n".join(screen.query_one("#pair", Text).shown)
        assert ALL_TASKS[a][0] in text
        assert ALL_TASKS[b][0] in text
        assert f"{matrix[a, b]:#.3g}" in text
        assert "11 pairs" in text
        row = [matrix[a, c] for c in range(57) if c != a]
        assert f"rank {sum(value > matrix[a, b] for value in row) + 1} in its row" in text
        # The order changes, the pair does not.
        await pilot.press("o")
        assert pane.pair == (a, b)
        assert pane.sequence == sorted(range(57), key=lambda i: ALL_TASKS[i][0])
        grid = screen.query_one(Heatmap)
        grid.move_to(0, 5)
        await until(pilot, lambda: "never seen together" in on_screen(pilot))


async def test_the_list_of_pairs_moves_the_cursor(tmp_path: Path) -> None:
    run = running_run(tmp_path, tasks=ALL_TASKS, step=10)
    matrix = np.zeros((57, 57))
    matrix[7, 30] = matrix[30, 7] = 0.9
    matrix[2, 3] = matrix[3, 2] = 0.5
    recorder = Recorder(run.database)
    recorder.confusion(10, "similarity", matrix.ravel().tolist(), [1] * 57 * 57)
    recorder.close()
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.press("3")
        pane = screen.query_one(ConfusionPane)
        await until(pilot, lambda: bool(pane.ranking))
        assert pane.ranking[:2] == [(7, 30), (2, 3)], "a symmetric pair stands once"
        await pilot.press("tab", "enter")
        await until(pilot, lambda: pane.pair == (7, 30))
        assert "1 of 1,596" in "\n".join(screen.query_one("#pair", Text).shown)
        assert screen.query_one(Heatmap).has_focus


async def test_the_matrix_of_the_test_questions_is_preferred_and_v_changes_it(tmp_path: Path) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("3")
        await until(pilot, lambda: "test questions" in on_screen(pilot))
        await pilot.press("v")
        await until(pilot, lambda: "training stream" in on_screen(pilot))


async def test_the_scale_leaves_the_diagonal_out(tmp_path: Path) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        await pilot.press("3")
        grid = screen.query_one(Heatmap)
        await until(pilot, lambda: grid.bounds is not None)
        off = grid.matrix[~np.eye(6, dtype=bool)]
        assert grid.bounds == (pytest.approx(off.min()), pytest.approx(off.max()))
        for zoom in ("small", "medium", "numbers"):
            await pilot.press("z")
            assert grid.zoom == zoom
            assert len(grid.shown) == grid.size.height
        assert f"{off.max():#.3g}"[:4] in "\n".join(grid.shown)


async def test_tasks_can_be_sorted_and_the_split_changed(tmp_path: Path) -> None:
    finished_run(tmp_path, correct=0.5)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.press("4")
        table = screen.query_one("#task-table", Table)
        await until(pilot, lambda: len(table.rows) == 6)
        assert "test · step 200" in on_screen(pilot)
        best = [float(row.cells[4][0].split()[0]) for row in table.rows]
        assert best == sorted(best, reverse=True)
        await pilot.press("o")
        assert [float(row.cells[4][0].split()[0]) for row in table.rows] == sorted(best)
        await pilot.press("v")
        assert "validation · step 200" in on_screen(pilot)
        assert "1,000 parameters, all trained" in "\n".join(screen.query_one("#events", Log).shown)


async def test_comparison_shows_deltas_and_overlaid_curves(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", correct=[i % 2 == 0 for i in range(120)])
    finished_run(tmp_path, "full", correct=[i % 4 != 3 for i in range(120)], started=time.time() - 50)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 2)
        await pilot.press("end", "space", "up", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and app.screen.comparison is not None)
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        chart = screen.query_one(Charts).charts["validation/accuracy"]
        assert [line.name for line in chart.lines] == ["baseline", "full"]
        assert chart.lines[0].style != chart.lines[1].style
        arms = "\n".join(screen.query_one("#arms", Table).shown)
        assert "+25.0" in arms
        assert "full against baseline" in on_screen(pilot)


async def test_runs_that_cannot_be_compared_say_why_and_still_show_their_curves(tmp_path: Path) -> None:
    running_run(tmp_path, "baseline", seed=1)
    running_run(tmp_path, "full", seed=2)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 2)
        await pilot.press("c")
        assert isinstance(app.screen, RunsScreen), "nothing is selected yet"
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen) and bool(app.screen.why_not))
        await until(pilot, lambda: "not compared" in on_screen(pilot))
        assert isinstance(app.screen, CompareScreen)
        assert len(app.screen.query_one(Charts).charts["train/loss"].lines) == 2


async def test_help_lists_every_key(tmp_path: Path) -> None:
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        page = "\n".join("".join(text for text, _ in line) for line in app.screen.query_one(KeyPage).page())
        for keys in KEYS.values():
            for key in keys:
                assert key.meaning in page
                assert key.shown in page
        first = app.screen.query_one(KeyPage).shown
        await pilot.press("end")
        assert app.screen.query_one(KeyPage).shown != first
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


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
        await opened(pilot)
        check()
        await pilot.press("escape", "space", "down", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        check()
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        check()
        app.push_screen(ConfirmScreen("some-run"))
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        check()
    for keys in KEYS.values():
        for entry in keys:
            assert {(key, entry.action) for key in entry.keys} <= bound


@pytest.mark.parametrize("size", SIZES)
async def test_help_and_quit_are_always_at_the_foot(tmp_path: Path, size: tuple[int, int]) -> None:
    finished_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        assert "? help" in app.screen.query_one(KeyBar).shown[0]
        assert "q quit" in app.screen.query_one(KeyBar).shown[0]


async def test_leaving_does_not_touch_the_run(tmp_path: Path) -> None:
    run = running_run(tmp_path)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(runs_screen(pilot).lines))
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running or app._exit)
    assert read_state(run).state is State.RUNNING


async def test_a_damaged_run_is_shown_as_such_and_harms_no_other(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline")
    broken = finished_run(tmp_path, "full", started=time.time())
    broken.state.write_text("{", encoding="utf-8")
    broken.database.write_bytes(b"no database" * 500)
    app = AcclApp(tmp_path, interval=TICK)
    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: len(runs_screen(pilot).lines) == 2)
        assert "baseline" in on_screen(pilot)
        await until(pilot, lambda: "state.json is not valid JSON" in on_screen(pilot))
        assert "? unreadable" in on_screen(pilot)
        assert "0 active" in on_screen(pilot)
        screen = await opened(pilot)
        assert "DuckDB" in "\n".join(screen.query_one("#reason", Text).shown)
