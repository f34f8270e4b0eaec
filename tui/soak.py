"""A visit to every run of a folder, for `accl bench soak`: ``python -m tui.soak ROOT ID...``.

The app opens without a terminal, shows the list, opens each run and each of its panes, goes back and leaves. The exit
status is 0 if every screen came and the runs named were among those opened.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from accl.store.deadline import ending
from tui.app import AcclApp
from tui.screens.run import PANES, RunScreen
from tui.screens.runs import RunsScreen
from tui.widgets.table import Table

TIMEOUT_S = 60.0


async def visit(root: Path, at_least: int) -> set[str]:
    """Open every run of a list of so many rows or more, and return their ids.

    Raises:
        AssertionError: a screen does not come.
    """
    app = AcclApp(root, interval=0.5)
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one(Table)
        await _until(pilot, lambda: len(table.rows) >= at_least)
        visited = set()
        for index in range(len(table.rows)):
            table.focus()
            await pilot.press("home", *["down"] * index)
            key = table.rows[table.cursor].key
            if not os.path.lexists(root / key):  # the head of a group
                continue
            await pilot.press("enter")
            await _until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.view is not None)
            visited.add(key)
            for number in range(len(PANES)):
                await pilot.press(str(number + 1))
            await pilot.press("escape")
            await _until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("q")
    return visited


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "a screen did not come"
        await pilot.pause(0.01)


if __name__ == "__main__":
    with ending():
        ids = set(sys.argv[2:])
        lost = ids - asyncio.run(visit(Path(sys.argv[1]), len(ids)))
        sys.exit(f"the list lost {', '.join(sorted(lost))}" if lost else 0)
