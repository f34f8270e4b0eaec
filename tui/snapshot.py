"""A screen of the app without a terminal: as lines of text, and as an SVG file for a README, a paper or a message."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from textual._compositor import LayoutUpdate
from textual.keys import REPLACED_KEYS, Keys, key_to_character
from textual.pilot import Pilot, WaitForScreenTimeout
from textual.strip import Strip

from accl.errors import AcclError, ConfigError
from accl.files import replace_file
from accl.store.rundir import RunDir
from tui.app import AcclApp

INTERVAL_S = 0.1  # between two reads of the run directories
DEADLINE_S = 300.0  # for a screen to be complete, also on a machine that is very busy
LOOK_S = 0.01
MODIFIERS = re.compile(r"((ctrl|alt|shift|super|hyper|meta)\+)*")
NAMES = sorted(key.value for key in Keys if not key.value.startswith("<"))


@dataclass(frozen=True)
class Snapshot:
    """A screen as it was once complete: its lines from top to bottom, and the same as an SVG document."""

    lines: list[Strip]
    svg: str

    def save(self, file: Path) -> None:
        """Write the SVG document, whole or not at all.

        Raises:
            AcclError: the file cannot be written.
        """
        try:
            replace_file(file, self.svg.encode())
        except OSError as error:
            raise AcclError(f"{file} cannot be written ({error.strerror}).", "Name another file.") from error


def check_keys(keys: Sequence[str]) -> None:
    """Make sure that a keyboard could send every key.

    Raises:
        ConfigError: Textual has no key of that name.
    """
    for key in keys:
        plain = MODIFIERS.sub("", key, count=1)
        printed = key_to_character(REPLACED_KEYS.get(plain, plain))
        if key not in NAMES and plain not in NAMES and (printed is None or not printed.isprintable()):
            near = get_close_matches(key, [*NAMES, "question_mark", "slash"], n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"There is no key {key!r}.", f"{hint}Keys are named as enter, space, escape, down, ctrl+p, 3."
            )


def take_snapshot(
    root: Path,
    opened: Sequence[RunDir],
    size: tuple[int, int],
    keys: Sequence[str] = (),
    deadline: float = DEADLINE_S,
) -> Snapshot:
    """Open the app without a terminal, press keys one after the other, and return what it shows then.

    Every key and the snapshot wait until the screen is complete.

    Args:
        root: folder of the run directories.
        opened: runs to open over the list, as `AcclApp` does.
        size: columns and rows of the screen.
        keys: Textual key names, for example ``enter``, ``space``, ``down``, ``3``.
        deadline: seconds for which each screen is waited for.

    Raises:
        AcclError: a screen was not complete within ``deadline`` seconds, or a key left the app.
        ConfigError: there is no such key.
    """
    check_keys(keys)
    return asyncio.run(_take(AcclApp(root, INTERVAL_S, opened), size, keys, deadline))


async def _take(app: AcclApp, size: tuple[int, int], keys: Sequence[str], deadline: float) -> Snapshot:
    async with app.run_test(size=size, notifications=True) as pilot:
        lines = await _complete(app, pilot, deadline)
        for key in keys:
            await pilot.press(key)
            lines = await _complete(app, pilot, deadline)
        # Every reader would download the web fonts that the export names; a local font does as well.
        return Snapshot(lines, re.sub(r"@font-face[^}]*\}", "", app.export_screenshot()))


async def _complete(app: AcclApp, pilot: Pilot[None], deadline: float) -> list[Strip]:
    """Wait until nothing is pending and two looks in a row agree, and return the lines of the screen."""
    end = time.monotonic() + deadline
    before: list[Strip] | None = None
    while True:
        with suppress(WaitForScreenTimeout):  # a machine so busy has until the deadline
            await pilot.pause(0)  # all messages that were under way are processed, and the layout is up to date
        if not app.is_running or not app.screen_stack:
            raise AcclError("A key left the app: there is no screen to show.", "Leave out that --press.")
        waits_for = pending(app)
        lines = None if waits_for else _lines(app)
        if lines is not None and lines == before:
            return lines
        before = lines
        if time.monotonic() > end:
            raise AcclError(
                f"The screen was not complete within {deadline:g} s; it waits for: {waits_for or 'rest'}.",
                "Nothing was written. Is the machine, or the disk of the runs, very busy?",
            )
        await asyncio.sleep(LOOK_S)


def pending(app: AcclApp) -> str:
    """Return words for that which the screen on top waits for; none when it is complete."""
    if words := getattr(app.screen, "pending", ""):
        return str(words)
    nodes = (app, *app.screen.walk_children(with_self=True))
    return "messages between its parts" if any(node.message_queue_size for node in nodes) else ""


def _lines(app: AcclApp) -> list[Strip]:
    """Return the screen with those below it that a dialogue leaves visible; Textual makes only pictures of it."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    assert isinstance(update, LayoutUpdate)
    return [Strip.join(line) for line in update.strips]
