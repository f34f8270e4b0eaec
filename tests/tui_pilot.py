"""Drive the app in tests, without a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import textual._wait
from snapshots import assert_snapshot, is_kept
from textual.pilot import Pilot
from textual.widget import Widget

from tui.app import AcclApp
from tui.screens.compare import CompareScreen
from tui.screens.run import RunScreen
from tui.screens.runs import RunsScreen
from tui.widgets.strip import StripWidget

TICK = 0.05
TIMEOUT_S, DRAWN_S = 20.0, 5.0

# The pilot waits after each key until the process has rested for so long, and for a share of it has computed at most.
textual._wait.SLEEP_GRANULARITY = 1 / 200
textual._wait.SLEEP_IDLE = textual._wait.SLEEP_GRANULARITY / 20


@asynccontextmanager
async def open_app(root: Path, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """Run the app on a screen of columns x rows."""
    async with AcclApp(root, interval=TICK).run_test(size=size) as pilot:
        yield pilot


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for the condition; fail if it does not become true in time."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        await pilot.pause()
        if condition():
            return
        assert time.monotonic() < deadline, f"the condition did not become true; on screen:\n{on_screen(pilot)}"
        await asyncio.sleep(0.01)


async def assert_picture(pilot: Pilot[None], name: str, lines: Callable[[], Iterable[object]]) -> None:
    """Compare the lines of a screen with those kept as NAME, once they are: it takes a while to be drawn anew."""
    deadline = time.monotonic() + DRAWN_S
    await pilot.pause()
    while not is_kept(name, lines()) and time.monotonic() < deadline:
        await pilot.pause()
        await asyncio.sleep(TICK)
    assert_snapshot(name, lines())


def on_screen(pilot: Pilot[None]) -> str:
    """Return the text of all visible widgets of the top screen."""
    widgets = [widget for widget in pilot.app.screen.query(StripWidget) if _visible(widget)]
    return "\n".join(line for widget in widgets for line in widget.text_lines)


def _visible(widget: Widget) -> bool:
    return all(node.display for node in widget.ancestors_with_self if isinstance(node, Widget))


def runs_screen(pilot: Pilot[None]) -> RunsScreen:
    assert isinstance(pilot.app.screen, RunsScreen)
    return pilot.app.screen


async def runs_listed(pilot: Pilot[None], count: int = 1) -> None:
    """Wait until the table of runs has so many rows."""
    await until(pilot, lambda: len(runs_screen(pilot).summaries) == count)


async def open_newest_run(pilot: Pilot[None]) -> RunScreen:
    """Open the newest run, and wait until its data were fetched."""
    await until(pilot, lambda: bool(runs_screen(pilot).summaries))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.view is not None)
    assert isinstance(pilot.app.screen, RunScreen)
    return pilot.app.screen


async def open_comparison(pilot: Pilot[None], *keys: str) -> CompareScreen:
    """Press the keys that select runs and compare them, and wait for the comparison."""
    app = pilot.app
    await pilot.press(*keys)
    await until(pilot, lambda: isinstance(app.screen, CompareScreen) and app.screen.comparing.comparison is not None)
    assert isinstance(app.screen, CompareScreen)
    return app.screen
