"""The Textual app: theme, style sheet and the keys that work on every screen.

The app only reads run directories. Training processes run in sessions of their own: leaving the
app, in whatever way, never affects them.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from textual.app import App
from textual.notifications import SeverityLevel
from textual.screen import Screen

from accl.text import printable
from tui import narrow
from tui.keys import bindings
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen
from tui.theme import THEME

POLL_S = 1.0


class AcclApp(App[None], inherit_bindings=False):
    """Watch and compare the runs under ``root``.

    Args:
        root: folder of the run directories.
        interval: seconds between two reads of the run directories.
    """

    TITLE = "accl"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = bindings("everywhere")

    def __init__(self, root: Path, interval: float = POLL_S) -> None:
        super().__init__()
        # The traceback of a bug may quote a run: without colours it can pass a stream that lets no escape through.
        self.error_console = Console(stderr=True, markup=False, highlight=False, color_system=None)
        # Classes for the style sheet, set on every screen by its size.
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-tall")]
        self.root = root
        self.interval = interval

    def get_default_screen(self) -> Screen[None]:
        return RunsScreen(self.root, self.interval)

    def on_load(self) -> None:
        narrow.install()
        self.register_theme(THEME)
        self.theme = THEME.name

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a notification; its text is never read as ``markup``."""
        super().notify(printable(message), title=printable(title), severity=severity, timeout=timeout, markup=False)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())
