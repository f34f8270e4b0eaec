"""The help page, made from the key table."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from tui import theme
from tui.keys import KEYS, bindings
from tui.text import Piece, cut, fit, strip
from tui.widgets.keybar import KeyBar
from tui.widgets.strip import Navigable, StripWidget

TITLES = {
    "everywhere": "Everywhere",
    "runs": "Runs",
    "lists": "Lists and tables",
    "run": "One run",
    "curves": "1 Curves",
    "curriculum": "2 Curriculum",
    "confusion": "3 Confusion: the grid",
    "confusion pane": "3 Confusion: grid and list",
    "tasks": "4 Tasks",
    "compare": "Compare",
    "filter": "While typing a filter",
    "confirm": "Before stopping a run",
    "help": "Help",
}
STATES = "… queued  ◌ starting  ▶ running  ◍ stalled  ✓ finished  ✗ failed  ■ stopped  ☠ crashed"


class KeyPage(Navigable, StripWidget, can_focus=True):
    """The whole key table; `top` is the first visible line."""

    BINDINGS = bindings("help")
    top = 0

    def page(self) -> list[list[Piece]]:
        """Return every line of the page."""
        lines: list[list[Piece]] = []
        for scope, keys in KEYS.items():
            lines.append([(TITLES[scope], theme.TITLE)])
            lines += [[("  " + fit(key.display, 14), theme.BOLD), (" " + key.description, theme.DIM)] for key in keys]
            lines.append([])
        return [*lines, [("States", theme.TITLE)], *([("  " + state, theme.DIM)] for state in STATES.split("  "))]

    @property
    def page_height(self) -> int:
        return self.size.height

    def action_move(self, lines: int) -> None:
        self.top = max(0, min(self.top + lines, len(self.page()) - self.size.height))
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        lines = self.page()[self.top : self.top + height]
        return [strip([(cut(text, width), style) for text, style in line], width) for line in lines]


class HelpScreen(ModalScreen[None]):
    """All keys, by the screen or widget in which they work."""

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield KeyPage(id="keys")
            yield KeyBar("help")
