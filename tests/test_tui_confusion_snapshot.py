"""The confusion pane as it looks at three sizes."""

from __future__ import annotations

from pathlib import Path

from factory import ALL_TASKS, STARTED, finished_run
from snapshots import SIZES, assert_snapshot
from tui_pilot import open_app, open_newest_run, until

from tui.snapshot import _lines
from tui.widgets.heatmap import Heatmap


async def test_the_confusion_pane_looks_as_it_did(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", tasks=ALL_TASKS, steps=100, started=STARTED - 60)
    finished_run(tmp_path, "full", tasks=ALL_TASKS, steps=100)
    async with open_app(tmp_path) as pilot:
        screen = await open_newest_run(pilot)
        await pilot.press("3")
        grid = screen.query_one(Heatmap)
        await until(pilot, lambda: grid.lower is not None and screen.is_complete)
        for columns, rows in SIZES:
            await pilot.resize_terminal(columns, rows)
            await until(pilot, lambda: screen.is_complete and screen.size.width == columns)  # noqa: B023
            lines = _lines(pilot.app)[3:-1]  # without the head of the screen and its keys
            assert_snapshot(f"confusion-{columns}x{rows}", lines)
