"""The app: its look, its keys that hold everywhere, and how a run is stopped.

It only reads run directories. Training processes are their own sessions: leaving the app, however
it happens, never touches them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import BindingType
from textual.screen import Screen

from accl.errors import AcclError
from accl.store.rundir import RunDir
from tui.keys import bindings
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen
from tui.theme import THEME

POLL_S = 1.0


class AcclApp(App[None], inherit_bindings=False):
    """Watch and compare the runs under ``root``. ``interval``: seconds between looks."""

    TITLE = "accl"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = bindings("everywhere")

    def __init__(self, root: Path, interval: float = POLL_S) -> None:
        super().__init__()
        # Classes of every screen, for the style sheet: how much room there is.
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-tall")]
        self.root = root
        self.interval = interval

    def get_default_screen(self) -> Screen[None]:
        return RunsScreen(self.root)

    def on_load(self) -> None:
        self.register_theme(THEME)
        self.theme = THEME.name

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def stop(self, run: RunDir) -> None:
        """Ask, then ask the run to stop after its step."""

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._stop(run), group="stop")

        self.push_screen(ConfirmScreen(run.id), answered)

    async def _stop(self, run: RunDir) -> None:
        from accl.launch import process

        try:
            await asyncio.to_thread(process.stop, run)
        except AcclError as error:
            self.notify(str(error), title="Not stopped", severity="error", markup=False)
        else:
            self.notify("It finishes its step, writes a checkpoint and ends.", title=f"Stopping {run.id}", markup=False)
