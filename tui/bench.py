"""Measures the app: ``python -m tui.bench FEW MANY REPEAT``, two folders of runs, prints milliseconds as JSON.

Everything is drawn by the real app on a screen of 160 x 45 cells, without a terminal: what a terminal adds is not
in the figures. A repaint is the widget's own work, from the first line to the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from tui.app import AcclApp
from tui.panes.confusion import ConfusionPane
from tui.panes.curves import CurvesPane
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.widgets.chart import Chart
from tui.widgets.drawn import Drawn
from tui.widgets.heatmap import Heatmap
from tui.widgets.table import Table

WIDTH, HEIGHT = 160, 45
NEVER_S = 3600.0  # between looks: only the first, and those that the bench asks for
PATIENCE_S = 60.0

Samples = list[float]


async def measure(few: Path, many: Path, repeat: int) -> dict[str, Samples]:
    """Samples by what was measured, ``repeat`` of each, in milliseconds."""
    first = [await _first_paint(few) for _ in range(repeat)]
    return {"first paint, without imports": first, **await _run(few, repeat), **await _runs(many, repeat)}


async def _first_paint(root: Path) -> float:
    """From making the app until the table shows its runs."""
    began = time.perf_counter()
    app = AcclApp(root, interval=NEVER_S)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await _until(pilot, lambda: bool(app.screen.query_one(Table).rows))
        _paint(app.screen.query_one(Table))
        return 1000 * (time.perf_counter() - began)


async def _run(root: Path, repeat: int) -> dict[str, Samples]:
    """Opening a run and drawing its curves and its confusion grid."""
    app = AcclApp(root, interval=NEVER_S)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await _until(pilot, lambda: bool(app.screen.query_one(Table).rows))
        opened: Samples = []
        for _ in range(repeat):
            if isinstance(app.screen, RunScreen):
                await pilot.press("escape")
            began = time.perf_counter()
            await pilot.press("enter")
            await _until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.view is not None)
            opened.append(1000 * (time.perf_counter() - began))
        charts = [chart for chart in app.screen.query_one(CurvesPane).query(Chart) if chart.display]
        chart = charts[0]  # the loss and its two terms: three lines
        [line_count, points] = [len(chart.lines), len(chart.lines[0].x)]
        alone = [_timed(lambda: chart.draw(WIDTH, HEIGHT)) for _ in range(repeat)]
        together = [_timed(lambda: _paint(*charts)) for _ in range(repeat)]
        await pilot.press("3")
        pane = app.screen.query_one(ConfusionPane)
        await _until(pilot, lambda: len(pane.query_one(Heatmap).matrix) > 0)
        grid = pane.query_one(Heatmap)
        k = len(grid.matrix)
        return {
            f"opening a run of {points:,} steps": opened,
            f"chart repaint, {line_count} lines x {points:,} points": alone,
            f"curves pane repaint, {len(charts)} charts": together,
            f"confusion repaint, {k} x {k}": [_timed(lambda: _paint(grid)) for _ in range(repeat)],
        }


async def _runs(root: Path, repeat: int) -> dict[str, Samples]:
    """One look at a long list, as it happens every second: reading in a thread, then showing what was found."""
    app = AcclApp(root, interval=NEVER_S)
    async with app.run_test(size=(WIDTH, HEIGHT)) as pilot:
        await _until(pilot, lambda: bool(app.screen.query_one(Table).rows))
        screen = app.screen
        assert isinstance(screen, RunsScreen)
        looks: Samples = []
        shows: Samples = []
        for _ in range(repeat):
            began = time.perf_counter()
            lines = screen.look()
            looks.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            screen.take(lines)
            _paint(screen.query_one(Table))
            shows.append(1000 * (time.perf_counter() - began))
        return {
            f"refresh tick of {len(lines)} runs, reading": looks,
            f"refresh tick of {len(lines)} runs, showing": shows,
        }


def _paint(*widgets: Drawn) -> None:
    for widget in widgets:
        widget.redraw()
        for y in range(widget.size.height):
            widget.render_line(y)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError("the app does not show what it should")
        await pilot.pause()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))))  # noqa: T201
