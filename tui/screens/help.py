"""The help page, made from the key table."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.strip import Strip

from tui import theme
from tui.keys import KEYS, bindings
from tui.text import Piece, cut, fit, strip
from tui.widgets.drawn import Drawn
from tui.widgets.frame import KeyBar

TITLES = {
    "everywhere": "Everywhere",
    "runs": "Runs",
    "lists": "Lists and tables",
    "run": "One run",
    "curves": "1 Curves",
    "charts": "Charts",
    "curriculum": "2 Curriculum",
    "confusion": "3 Confusion: the grid",
    "confusion pane": "3 Confusion: grid and list",
    "tasks": "4 Tasks",
    "compare": "Compare",
    "filter": "While typing a filter",
    "confirm": "Before stopping a run",
    "help": "Help",
}
SIGNS = "… queued  ◌ starting  ▶ running  ◍ stalled  ✓ finished  ✗ failed  ■ stopped  ☠ crashed"


class KeyPage(Drawn):
    """The whole key table; `top` is the first line in view."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.top = 0

    def page(self) -> list[list[Piece]]:
        """Every line of the page."""
        lines: list[list[Piece]] = []
        for scope, keys in KEYS.items():
            lines.append([(TITLES[scope], theme.TITLE)])
            lines += [[("  " + fit(key.shown, 14), theme.BOLD), (" " + key.meaning, theme.DIM)] for key in keys]
            lines.append([])
        return [*lines, [("States", theme.TITLE)], *([("  " + sign, theme.DIM)] for sign in SIGNS.split("  "))]

    def scroll_by(self, lines: int) -> None:
        self.top = max(0, min(self.top + lines, len(self.page()) - self.size.height))
        self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        lines = self.page()[self.top : self.top + height]
        return [strip([(cut(text, width), style) for text, style in line], width) for line in lines]


class HelpScreen(ModalScreen[None]):
    """All keys, by where they hold."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("help")

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield KeyPage(id="keys")
            yield KeyBar("help")

    @property
    def _keys(self) -> KeyPage:
        return self.query_one(KeyPage)

    def action_up(self) -> None:
        self._keys.scroll_by(-1)

    def action_down(self) -> None:
        self._keys.scroll_by(1)

    def action_page_up(self) -> None:
        self._keys.scroll_by(-self._keys.size.height)

    def action_page_down(self) -> None:
        self._keys.scroll_by(self._keys.size.height)

    def action_first(self) -> None:
        self._keys.scroll_by(-10_000)

    def action_last(self) -> None:
        self._keys.scroll_by(10_000)

    def on_mouse_scroll_down(self) -> None:
        self._keys.scroll_by(3)

    def on_mouse_scroll_up(self) -> None:
        self._keys.scroll_by(-3)

    def action_back(self) -> None:
        self.dismiss()
