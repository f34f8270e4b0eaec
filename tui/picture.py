"""A screen of the app as an SVG file, taken without a terminal: for a README, a paper or a message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tui.app import AcclApp

# Looks at the run directories happen this often while posing, and each screen gets so many to settle.
INTERVAL_S = 0.1
LOOKS = 8


def take_picture(root: Path, file: Path, size: tuple[int, int], keys: Sequence[str]) -> None:
    """Open the app on ``root``, press ``keys`` one after the other, and write what it shows.

    Args:
        file: the SVG to write. size: columns and rows.
        keys: names as Textual spells them: ``enter``, ``space``, ``down``, ``3``.
    """
    asyncio.run(_pose(AcclApp(root, interval=INTERVAL_S), file, size, keys))


async def _pose(app: AcclApp, file: Path, size: tuple[int, int], keys: Sequence[str]) -> None:
    async with app.run_test(size=size) as pilot:
        for key in ("", *keys):
            if key:
                await pilot.press(key)
            await pilot.pause(INTERVAL_S * LOOKS)
        # The web font that an export names would be fetched by every reader: theirs will do.
        svg = app.export_screenshot()
    file.write_text(_without_web_fonts(svg), encoding="utf-8")


def _without_web_fonts(svg: str) -> str:
    start = svg.find("@font-face")
    while start >= 0:
        svg = svg[:start] + svg[svg.index("}", start) + 1 :]
        start = svg.find("@font-face")
    return svg
