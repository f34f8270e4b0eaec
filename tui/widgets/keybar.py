"""The line of keys at the bottom of a screen."""

from __future__ import annotations

from textual import events
from textual.strip import Strip

from tui import theme
from tui.commands import Command, of_scope
from tui.text import Piece, cell_len, strip
from tui.widgets.strip import StripWidget

NARROW, TINY = 100, 40  # below them, the list of commands and the way back have to make room


class KeyBar(StripWidget):
    """The keys of the given scopes, as many as fit with the way back; help and quit where no dialogue is on top."""

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
        labelled = [command for scope in self.scopes for command in of_scope(scope) if command.label]
        fixed = [command for command in labelled if command.run == "back" and width >= TINY]
        if not self.screen.is_modal:
            everywhere = [command for command in of_scope("everywhere") if command.label]
            fixed += [command for command in everywhere if width >= NARROW or command.run != "palette"]
        available = width - sum(_width(command) for command in fixed)
        shown: list[Command] = []
        for command in labelled:
            if command not in fixed and _width(command) <= available:
                shown.append(command)
                available -= _width(command)
        pieces: list[Piece] = []
        self._click_targets = []
        start = 0
        for command in [*shown, *fixed]:
            pieces += [(" " + command.main_key, theme.TITLE), (" " + command.label + " ", theme.DIM)]
            self._click_targets.append((range(start, start + _width(command)), command.keys[0]))
            start += _width(command)
        return [strip(pieces, width)]

    def on_click(self, event: events.Click) -> None:
        for columns, key in self._click_targets:
            if event.x in columns:
                self.app.simulate_key(key)


def _width(command: Command) -> int:
    return cell_len(command.main_key) + cell_len(command.label) + 3
