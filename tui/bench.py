"""Benchmark of the app: ``python -m tui.bench FEW MANY REPEAT`` prints milliseconds as JSON.

FEW and MANY are folders of runs. The real app draws on a screen of 160 x 45 cells without a
terminal, whose own time is thus excluded. A repaint is the work of a widget for all of its lines.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from tui.app import AcclApp
from tui.feed import RunsFeed
from tui.panes.confusion import ConfusionPane
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.heatmap import Heatmap
from tui.widgets.strip import StripWidget
from tui.widgets.table import Table

WIDTH, HEIGHT = 160, 45
NEVER_S = 3600.0  # polling interval that leaves only the first poll, and those of the benchmark
TIMEOUT_S = 60.0

Samples = list[float]


async def measure(few: Path, many: Path, repeat: int) -> dict[str, Samples]:
    """Return ``repeat`` samples of each measurement, in milliseconds."""
    first: Samples = []
    for _ in range(repeat):  # from making the app until the table shows its runs
        start = time.perf_counter()
        async with _opened(few) as (_, screen):
            _paint(screen.query_one(Table))
            first.append(_ms_since(start))
    return {"first paint, without imports": first, **await _run(few, repeat), **await _runs(many, repeat)}


@asynccontextmanager
async def _opened(root: Path) -> AsyncIterator[tuple[Pilot[None], RunsScreen]]:
    """Open the app, and wait until the table shows its runs."""
    app = AcclApp(root, interval=NEVER_S)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await _until(pilot, lambda: bool(app.screen.query_one(Table).rows))
        assert isinstance(app.screen, RunsScreen)
        yield pilot, app.screen


async def _run(root: Path, repeat: int) -> dict[str, Samples]:
    """Measure opening a run and drawing its curves and its confusion matrix."""
    async with _opened(root) as (pilot, _):
        app = pilot.app
        opening: Samples = []
        for _ in range(repeat):
            if isinstance(app.screen, RunScreen):
                await pilot.press("escape")
            start = time.perf_counter()
            await pilot.press("enter")
            await _until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.view is not None)
            opening.append(_ms_since(start))
        charts = app.screen.query_one(ChartGrid)
        line_count, points = len(charts.plotted[0].lines), len(charts.plotted[0].lines[0].curve)
        all_charts = [_timed(lambda: _redraw(charts)) for _ in range(repeat)]
        cursor = [_timed(lambda: charts.move_cursor(-1)) for _ in range(repeat)]
        await pilot.press("3")
        grid = app.screen.query_one(ConfusionPane).query_one(Heatmap)
        await _until(pilot, lambda: len(grid.matrix) > 0)
        k = len(grid.matrix)
        return {
            f"opening a run of {points:,} steps": opening,
            f"curves pane repaint, {len(charts.displayed)} charts, {line_count} lines x {points:,} points": all_charts,
            f"curves pane, {len(charts.displayed)} charts, cursor": cursor,
            f"confusion repaint, {k} x {k}": [_timed(lambda: _paint(grid)) for _ in range(repeat)],
        }


async def _runs(many: Path, repeat: int) -> dict[str, Samples]:
    """Measure the first look at a long list: reading in a thread, then showing."""
    async with _opened(many) as (_, screen):
        reading: Samples = []
        showing: Samples = []
        for _ in range(repeat):
            start = time.perf_counter()
            (feed := RunsFeed(many)).fetch()
            reading.append(_ms_since(start))
            view = feed.last
            start = time.perf_counter()
            screen.update_view(view)
            _paint(screen.query_one(Table))
            showing.append(_ms_since(start))
        return {
            f"first look at {len(view.summaries)} runs, reading": reading,
            f"first look at {len(view.summaries)} runs, showing": showing,
        }


def _redraw(charts: ChartGrid) -> None:
    charts.show([replace(chart) for chart in charts.charts.values()], charts.marks)  # new ones: nothing is kept
    charts.draw(*charts.size)


def _paint(*widgets: StripWidget) -> None:
    for widget in widgets:
        widget.redraw()
        for y in range(widget.size.height):
            widget.render_line(y)


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return _ms_since(start)


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + TIMEOUT_S
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError("the app did not reach the expected state")
        await pilot.pause()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))))  # noqa: T201
