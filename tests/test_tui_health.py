"""Panes 1 and 2: everything over one time, and what was going on at the cursor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factory import ALL_TASKS, finished_run, running_run
from snapshots import SIZES, freeze
from tui_pilot import assert_picture, on_screen, open_app, open_newest_run, until

from accl.store.columns import RunReader
from accl.store.curve import Curve, raw_curve
from accl.store.writer import Recorder
from tui import theme
from tui.panes.health import HealthPane
from tui.snapshot import _lines, pending
from tui.widgets.chart import Frame
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.rows import RowsChart, RowsDrawing, Series


async def test_health_and_curriculum_look_as_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(monkeypatch)
    finished_run(tmp_path, "full", tasks=ALL_TASKS)
    async with open_app(tmp_path, SIZES[0]) as pilot:
        screen = await open_newest_run(pilot)
        await until(pilot, lambda: bool(screen.query_one(ChartGrid).displayed))
        await pilot.press("at", *"100", "enter")
        for pane, key in (("health", "1"), ("curriculum", "2")):
            await pilot.press(key)
            for columns, rows in SIZES:
                await pilot.resize_terminal(columns, rows)
                await until(pilot, lambda size=(columns, rows): screen.size == size and not pending(pilot.app))
                await assert_picture(pilot, f"run-{pane}-{columns}x{rows}", lambda: _lines(pilot.app))


async def test_values_matrix_and_weights_are_those_at_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accl.store.bins.MAX_BINS", 64)  # bins of four steps
    run = finished_run(tmp_path)
    reader = RunReader(run)
    reader.refresh()
    loss = reader.values_at(101)["train/loss"]
    async with open_app(tmp_path, (120, 36)) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: bool(grid.displayed))
        await pilot.press("at", *"101", "enter")
        await until(pilot, lambda: f" {loss:#.3g} total" in on_screen(pilot))
        assert "hardest pairs  step 100, training" in on_screen(pilot)
        assert "0.9" in on_screen(pilot)
        await pilot.press("left")
        assert f"~{grid.charts['loss'].lines[0].curve.median[24]:#.3g}" in on_screen(pilot), "a median, at first"
        await pilot.press("plus", "plus", "plus")
        await until(pilot, lambda: len(_detail(grid)) > 0 and _detail(grid).raw)
        assert _detail(grid).first[0] < 100 < _detail(grid).last[-1]
        await pilot.press("2")
        await until(pilot, lambda: "since step 50" in on_screen(pilot))
        assert "at the cursor, step 9" in on_screen(pilot)


def _detail(grid: ChartGrid) -> Curve:
    return grid.charts["loss"].lines[0].detail or raw_curve(*[np.zeros(0, int)] * 5)


async def test_the_axis_goes_on_to_the_last_step_of_a_live_run(tmp_path: Path) -> None:
    running_run(tmp_path, step=80, steps=200)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: grid.extent == (0.0, 80.0))
        await pilot.press("e")
        await until(pilot, lambda: grid.extent == (0.0, 200.0))
        assert grid.text_lines[-1].split()[-1] == "200"
        assert grid.displayed[:3] == ["loss", "accuracy", "task weights"]
        await pilot.press("tab")
        assert "hardest pairs" in on_screen(pilot)
        await pilot.press("escape")
        assert screen.query_one(HealthPane).query_one("#charts").display


async def test_a_run_with_one_value_of_each_is_text(tmp_path: Path) -> None:
    run = running_run(tmp_path, step=0)
    recorder = Recorder(run.database)
    recorder.metrics(1, 0.1, 1.0, {"train/loss": 1.5})
    recorder.curriculum(1, "uniform", [1 / 6] * 6, [0] * 6)
    recorder.close()
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        grid = screen.query_one(ChartGrid)
        await until(pilot, lambda: bool(grid.charts))
        assert not grid.displayed
        assert "loss 1.50 @1 · accuracy no values yet · task weights uniform" in grid.text_lines[1]


STEPS = np.arange(1, 101)
CLOCK = raw_curve(STEPS, STEPS / 50, STEPS * 16.0, STEPS * 0.5, np.ones(100))
FRAME = Frame(60, 8, 4, 20, "step", (0.0, 200.0))


def weights(*ratios: float) -> RowsChart:
    series = [
        Series(f"task {i}", np.array([10.0, 50.0]), np.array([1.0, ratio]), f"group {i // 2}")
        for i, ratio in enumerate(ratios)
    ]
    return RowsChart("task weights", series=series, clock=CLOCK, heat=True)


def test_weights_are_in_force_from_their_step_on_and_not_beyond_the_newest_step_of_the_run() -> None:
    (row,) = weights(4.0).by_cell(FRAME)
    x = np.array([FRAME.x(cell) for cell in range(FRAME.cells)])
    assert np.isnan(row[x < 5]).all()
    assert (row[(x > 15) & (x < 45)] == 1).all()
    assert (row[(x > 55) & (x < 95)] == 4).all()
    assert np.isnan(row[x > 105]).all()


@pytest.mark.parametrize("count", [1, 3, 12, 57])
def test_a_heat_map_has_a_label_for_each_row_and_fits_with_any_number_of_tasks(count: int) -> None:
    chart = weights(*np.linspace(0.2, 3.0, count).tolist())
    drawing = RowsDrawing(chart, FRAME, [], theme.PLAIN)
    assert [line.cell_length for line in drawing.plot] == [FRAME.left + FRAME.cells] * FRAME.rows
    labels = drawing.labels(None, "")
    assert len(labels) == FRAME.rows
    assert {label.name for label in labels} <= {series.name for series in chart.series}
    assert all(line.cell_length == FRAME.side + 1 for line in drawing.side(labels))
    assert "×" in drawing.title(labels, focused=False).text


def test_a_heat_map_without_colours_is_a_ramp() -> None:
    chart = weights(8.0, 0.1)
    assert "▀" in RowsDrawing(chart, FRAME, [], theme.PLAIN).plot[0].text
    theme.use("no-colours")
    try:
        text = [line.text for line in RowsDrawing(chart, FRAME, [], theme.PLAIN).plot]
    finally:
        theme.use(theme.DEFAULT)
    assert "#" in text[0]
    assert "=" in text[-1]


def test_odd_weights_and_no_room_are_drawn() -> None:
    chart = weights(np.nan, np.inf, 0.0, -1.0)
    for height, width in ((2, 60), (8, 20)):
        assert RowsDrawing(chart, replace(FRAME, height=height, width=width), [], theme.PLAIN).labels(None, "") == []
    odd = Series("odd", np.arange(4.0), np.array([1e308, 1e308, np.inf, np.nan]), top=1e308)
    for shown in (chart, replace(chart, series=[odd, Series("none", np.zeros(0), np.zeros(0))], heat=False)):
        drawing = RowsDrawing(shown, FRAME, [], theme.PLAIN)
        assert len(drawing.side(drawing.labels(70.0, ""))) == FRAME.rows
        assert len(drawing.with_hairline(70.0)) == FRAME.rows
