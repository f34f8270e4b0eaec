"""The line of keys at the bottom of a screen."""

from __future__ import annotations

from textual import events
from textual.strip import Strip

from tui import theme
from tui.keys import KEYS, Key
from tui.text import Piece, cell_len, strip
from tui.widgets.strip import StripWidget


class KeyBar(StripWidget):
    """The keys of the given scopes, as many as fit; help and quit are always shown."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = scopes
        self._click_targets: list[tuple[range, str]] = []

    def show(self, *scopes: str) -> None:
        """Show the keys of other scopes."""
        if scopes != self.scopes:
            self.scopes = scopes
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        in_help = "help" in self.scopes
        fixed = [key for key in KEYS["everywhere"] if key.label and not (in_help and key.action == "help")]
        available = width - sum(_width(key) for key in fixed)
        shown: list[Key] = []
        for key in (key for scope in self.scopes for key in KEYS[scope] if key.label):
            if _width(key) <= available:
                shown.append(key)
                available -= _width(key)
        pieces: list[Piece] = []
        self._click_targets = []
        start = 0
        for key in [*shown, *fixed]:
            pieces += [(" " + key.main_key, theme.TITLE), (" " + key.label + " ", theme.DIM)]
            self._click_targets.append((range(start, start + _width(key)), key.keys[0]))
            start += _width(key)
        return [strip(pieces, width)]

    def on_click(self, event: events.Click) -> None:
        for columns, key in self._click_targets:
            if event.x in columns:
                self.app.simulate_key(key)


def _width(key: Key) -> int:
    return cell_len(key.main_key) + cell_len(key.label) + 3
