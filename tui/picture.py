"""Screenshots of the app as SVG files, taken without a terminal: for a README, a paper or a message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from accl.errors import AcclError
from tui.app import AcclApp

# Seconds between two polls, and the number of polls to wait for after each key.
INTERVAL_S = 0.1
POLLS_PER_KEY = 8


def take_picture(root: Path, file: Path, size: tuple[int, int], keys: Sequence[str]) -> None:
    """Open the app on ``root``, press ``keys`` one after the other, and write a screenshot.

    Args:
        root: folder of the run directories.
        file: SVG file to write.
        size: columns and rows of the screen.
        keys: Textual key names, for example ``enter``, ``space``, ``down``, ``3``.

    Raises:
        AcclError: the file cannot be written.
    """
    svg = asyncio.run(_capture(AcclApp(root, interval=INTERVAL_S), size, keys))
    # Every reader would download the web fonts that the export names; a local font does as well.
    try:
        file.write_text(re.sub(r"@font-face[^}]*\}", "", svg), encoding="utf-8")
    except OSError as error:
        raise AcclError(f"{file} cannot be written ({error.strerror}).", "Name another file.") from error


async def _capture(app: AcclApp, size: tuple[int, int], keys: Sequence[str]) -> str:
    async with app.run_test(size=size) as pilot:
        await pilot.pause(INTERVAL_S * POLLS_PER_KEY)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(INTERVAL_S * POLLS_PER_KEY)
        return app.export_screenshot()
