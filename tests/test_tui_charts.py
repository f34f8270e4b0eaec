"""The grid of charts: one cursor, one gutter, values beside lines, pages, filter and mouse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from rich.style import Style
from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot

from accl.store.curve import Curve, raw_curve
from tui.raster import Range
from tui.repaint import shortened
from tui.widgets.chart import Chart, Floor, Line, Mark
from tui.widgets.chartgrid import ChartGrid

BLUE, ORANGE = Style(color="#5cb8e6"), Style(color="#f2a93b")


def curve(values: Sequence[float], every: int = 1) -> Curve:
    steps = (np.arange(len(values)) + 1) * every
    return raw_curve(steps, steps / 100, steps * 16.0, steps * 0.5, np.array(values, np.float64))


def falling(count: int = 1000, end: float = 0.0) -> Curve:
    return curve(np.linspace(9.0, end, count).tolist())


class Shown(App[None]):
    CSS = "ChartGrid { height: 1fr; }"

    def compose(self) -> ComposeResult:
        yield ChartGrid()


@asynccontextmanager
async def grid_of(
    charts: Sequence[Chart], size: tuple[int, int] = (100, 20), marks: Sequence[Mark] = ()
) -> AsyncIterator[tuple[ChartGrid, Pilot[None]]]:
    app = Shown()
    async with app.run_test(size=size) as pilot:
        grid = app.query_one(ChartGrid)
        grid.show(charts, marks)
        await pilot.pause()
        assert len(grid.text_lines) == size[1]
        yield grid, pilot


def displayed(grid: ChartGrid) -> list[str]:
    assert grid.text_lines, "what is stale is drawn"
    return grid.displayed


def y_range(grid: ChartGrid) -> Range | None:
    assert grid.text_lines, "what is stale is drawn"
    return grid._drawings["loss"][1].y_range


def loss(*lines: Line) -> Chart:
    return Chart("loss", lines or (Line("total", falling(), BLUE),), metrics=("train/loss",))


async def test_the_value_of_a_line_that_became_nan_is_nan_and_says_since_when() -> None:
    async with grid_of([loss(Line("total", curve([3.0, 2.0, np.nan, np.inf]), BLUE))]) as (grid, _):
        assert "NaN since 3 total" in "\n".join(grid.text_lines)
        assert "×" in next(line for line in grid.text_lines if "└" in line)


async def test_finer_bins_are_taken_where_they_cover_what_is_visible() -> None:
    steps = np.arange(400, 601)
    fine = raw_curve(steps, steps / 100, steps * 16.0, steps * 0.5, np.full(201, 7.0))
    async with grid_of([loss(Line("total", falling(), BLUE, detail=fine))]) as (grid, _):
        grid.jump(500)
        assert "4.50 total" in "\n".join(grid.text_lines)
        for _ in range(3):
            grid.zoom(1)
        assert "7 total" in "\n".join(grid.text_lines)
        assert grid.extent == (0.0, 1000.0)


async def test_both_ends_of_the_axis_are_labelled_and_a_step_stands_in_one_column_in_all_charts() -> None:
    charts = [
        loss(),
        Chart("share", (Line("a", curve([0.00012] * 500), ORANGE),)),
        Chart("big", (Line("b", falling(), BLUE),)),
    ]
    async with grid_of(charts, (100, 34)) as (grid, _):
        lines = grid.text_lines
        labels = lines[-1].split()
        assert labels[:2] == ["step", "0"]
        assert labels[-1] == "1,000"
        assert len({line.index("└") for line in lines if "└" in line}) == 1
        grid.jump(500)
        assert len({line.index("▲") for line in grid.text_lines if "▲" in line}) == 1
        assert "step 500 · epoch 5.00" in grid.text_lines[0]


async def test_values_at_the_cursor_are_sorted_and_compared_with_the_reference() -> None:
    lines = [
        Line("baseline", curve([1.0] * 500 + [2.0] * 500), BLUE),
        Line("full", curve([3.0] * 500 + [1.5] * 500), ORANGE),
    ]
    async with grid_of([loss(*lines)]) as (grid, _):
        grid.reference = "baseline"
        grid.jump(100)
        assert "━ baseline" in grid.text_lines[0], "lines that all charts have are named once"
        text = "\n".join(grid.text_lines)
        assert "3 +2" in text
        grid.jump(900)
        assert "1.50 -0.500" in "\n".join(grid.text_lines)


async def test_values_in_a_title_stand_in_the_order_of_the_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = [Line(name, curve([9.0, end]), style) for name, end, style in (("low", 1.0, BLUE), ("high", 2.0, ORANGE))]
    async with grid_of([loss(*lines)], (50, 20)) as (grid, _):
        assert "━ low  ━ high" in grid.text_lines[0]
        assert grid.text_lines[1].split() == ["loss", "1", "2"]


async def test_a_title_that_is_cut_says_so() -> None:
    async with grid_of([loss(Line("n" * 60, falling(), BLUE))], (50, 20)) as (grid, _):
        assert grid.text_lines[1].endswith("nn…")


async def test_a_line_that_has_ended_has_no_value_at_the_cursor() -> None:
    async with grid_of([loss(Line("short", curve([5.0] * 100), BLUE), Line("long", falling(), ORANGE))]) as (grid, _):
        grid.jump(900)
        drawing = grid._drawings["loss"][1]
        labels = [(label.text, label.name.split()[0]) for label in drawing.labels(900.0, "")]
        assert labels == [("–", "short"), ("0.901", "long")]
        side = [line.text for line in drawing.side(drawing.labels(900.0, "")) if line.text.strip()]
        assert [line.split()[1] for line in side] == ["long", "short"], "beside the plot they are sorted by value"


async def test_charts_are_being_read_until_they_are_shown() -> None:
    async with Shown().run_test() as pilot:
        grid = pilot.app.query_one(ChartGrid)
        assert "reading …" in "\n".join(grid.text_lines)
        grid.show([])
        assert "no values yet" in "\n".join(grid.text_lines)


async def test_a_single_value_is_a_text_and_no_chart() -> None:
    charts = [loss(), Chart("test accuracy", (Line("accuracy", curve([0.25], 200), BLUE),), shares=True)]
    async with grid_of(charts) as (grid, _):
        assert displayed(grid) == ["loss"]
        assert "test accuracy 25.0 % @200" in grid.text_lines[1]


async def test_a_constant_is_a_text_unless_floors_are_compared_with_it() -> None:
    constant = (Line("tasks", curve([57.0] * 9), BLUE),)
    broken = Line("tasks", curve([57.0, np.nan, 57.0]), BLUE)
    floored = Chart("floored", constant, (Floor("majority", 25.0, ORANGE),))
    charts = [Chart("effective tasks", constant), floored, Chart("broken", (broken,))]
    async with grid_of(charts, (100, 34)) as (grid, _):
        assert displayed(grid) == ["floored", "broken"]
        assert "effective tasks 57 @9" in grid.text_lines[1]
        grid.show([Chart("effective tasks", constant)])
        assert "no curve" in "\n".join(grid.text_lines)


async def test_floors_marks_and_evaluations_are_drawn() -> None:
    line = Line("accuracy", curve([0.3, 0.4, 0.5], 100), BLUE, "points")
    chart = Chart("accuracy", (line,), (Floor("majority", 0.25, ORANGE),), shares=True)
    marks = [Mark("◆", BLUE, 200.0), Mark("!", ORANGE, 50.0, "time")]
    async with grid_of([chart], marks=marks) as (grid, _):
        text = "\n".join(grid.text_lines)
        assert text.count("•") == 3
        assert "25.0 % ╌ majority" in text
        rule = next(line for line in grid.text_lines if "└" in line)
        assert rule.index("!") < rule.index("◆")


async def test_zoom_refits_the_y_axis_and_asks_for_finer_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with grid_of([loss()]) as (grid, _):
        asked: list[Message] = []
        post_message = grid.post_message
        monkeypatch.setattr(grid, "post_message", lambda message: asked.append(message) or post_message(message))
        before = y_range(grid)
        grid.jump(750)
        grid.zoom(1)
        grid.zoom(1)
        after = y_range(grid)
        assert before is not None
        assert after is not None
        assert after[1] - after[0] < 0.3 * (before[1] - before[0])
        assert [message.step for message in asked if isinstance(message, ChartGrid.CursorMoved)] == [750]
        zooms = [message for message in asked if isinstance(message, ChartGrid.Zoomed)]
        assert len(zooms) == 2
        assert zooms[-1].high - zooms[-1].low == pytest.approx(250)
        grid.zoom(0)
        assert grid.view.range(grid.extent) == grid.extent


async def test_a_filter_is_a_regular_expression_and_a_bad_one_keeps_the_view() -> None:
    charts = [loss(), Chart("gradient norm", (Line("norm", falling(), BLUE),), metrics=("train/grad_norm",))]
    async with grid_of(charts) as (grid, _):
        grid.filter("^train/.*norm$")
        assert displayed(grid) == ["gradient norm"]
        assert "1 of 2" in grid.text_lines[0]
        grid.filter("norm(")
        assert displayed(grid) == ["gradient norm"]
        assert "unterminated" in grid.text_lines[0]
        grid.filter("nothing like it")
        assert "no metric matches" in "\n".join(grid.text_lines)
        grid.filter("")
        assert len(displayed(grid)) == 2


async def test_pages_focus_and_full_screen() -> None:
    charts = [Chart(f"chart {i}", (Line("a", falling(), BLUE),)) for i in range(7)]
    async with grid_of(charts) as (grid, _):
        assert displayed(grid) == ["chart 0", "chart 1"]
        grid.turn(1)
        assert displayed(grid) == ["chart 2", "chart 3"]
        grid.focus_chart(0, 1)
        grid.toggle_full()
        assert displayed(grid) == ["chart 3"]
        assert grid.peel()
        assert displayed(grid) == ["chart 2", "chart 3"]
        grid.turn(100)
        assert displayed(grid) == ["chart 6"]
        assert not grid.peel()


async def test_the_mouse_sets_the_cursor_and_a_drag_zooms() -> None:
    async with grid_of([loss()]) as (grid, pilot):
        frame = grid._drawings["loss"][1].frame
        await pilot.click(ChartGrid, (frame.left + frame.cells // 2, 5))
        assert grid.view.cursor == pytest.approx(500, abs=20)
        await pilot.mouse_down(ChartGrid, (frame.left, 5))
        await pilot.mouse_up(ChartGrid, (frame.left + (frame.cells - 1) // 2, 5))
        low, high = grid.view.range(grid.extent)
        assert low == 0
        assert high == pytest.approx(500, abs=20)


async def test_moving_the_cursor_rasterizes_nothing_and_repaints_few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    charts = [Chart(f"chart {i}", tuple(Line(f"{j}", falling(end=j), BLUE) for j in range(3))) for i in range(6)]
    async with grid_of(charts, (160, 45)) as (grid, pilot):
        grid.jump(500)
        assert grid.text_lines
        monkeypatch.setattr("tui.widgets.drawing.median_line", None)
        monkeypatch.setattr("tui.widgets.chartview.gather", None)
        areas: list[int] = []
        monkeypatch.setattr(grid, "refresh", lambda *regions: areas.append(sum(region.area for region in regions)))
        grid.move_cursor(-1)
        await pilot.pause()
        assert 0 < areas[0] < 500


async def test_a_partial_repaint_sends_only_the_changed_cells() -> None:
    async with grid_of([loss()]) as (grid, pilot):
        compositor = pilot.app.screen._compositor
        grid.jump(900)
        grid._repaint()
        compositor.update_widgets({grid})
        update = compositor.render_partial_update()
        assert update is not None
        assert len(shortened(update).render_segments(pilot.app.console)) < 1500


@pytest.mark.parametrize("patterned", [False, True])
async def test_lines_differ_without_colours(patterned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if patterned:
        monkeypatch.setenv("NO_COLOR", "1")
    async with grid_of([loss(Line("a", curve([1.0] * 500), BLUE), Line("b", curve([9.0] * 500), ORANGE))]) as (grid, _):
        rows = [line[6:60] for line in grid.text_lines if "⠤" in line or "⣀" in line or "⠒" in line or "⠉" in line]
        assert len({tuple(sorted(set(row))) for row in rows}) > 1 if patterned else rows


SIZES = [(20, 5), (30, 9), (80, 24), (300, 100)]


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_draws_anything(size: tuple[int, int]) -> None:
    odd = curve([np.nan, 1e300, -1e300, 0.0, np.inf, 5e-324])
    charts = [
        loss(),
        Chart("odd", (Line("x\x1b[31m", odd, BLUE), Line("", curve([]), ORANGE), Line("p", odd, ORANGE, "points"))),
        Chart("nothing"),
        Chart("broken", (Line("b", curve([np.nan, np.nan]), BLUE),), (Floor("f", 0.5, ORANGE),)),
    ]
    async with grid_of(charts, size, [Mark("!", BLUE, 1e9)]) as (grid, _):
        for change in ("next_axis", "toggle_log", "toggle_raw", "toggle_full", "next_axis", "toggle_log", "next_axis"):
            getattr(grid, change)()
            grid.move_cursor(-3)
            grid.zoom(1)
            grid.pan(0.5)
            assert all(line.cell_length == size[0] for line in map(grid.render_line, range(size[1])))
            assert "\x1b" not in "".join(grid.text_lines)
