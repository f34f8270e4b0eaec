"""Base of the widgets that list entries and have a cursor."""

from __future__ import annotations

from collections.abc import Callable

from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.commands import bindings
from tui.text import Piece, strip
from tui.widgets.strip import Navigable, StripWidget


class Listing(Navigable, StripWidget, can_focus=True):
    """Entries of one line each below a head, with a cursor and an offset that keeps the cursor visible.

    Subclasses set `count`, the number of entries, and draw with `draw_entries`.
    """

    BINDINGS = bindings("lists")

    class CursorMoved(Message):
        """The cursor is on another entry."""

    class Chosen(Message):
        """The entry at the cursor was clicked twice."""

    class HeadClicked(Message):
        """The head was clicked, at this cell."""

        def __init__(self, x: int) -> None:
            super().__init__()
            self.x = x

    header_height = 1
    cursor = 0
    top = 0
    count = 0

    def draw_entries(self, width: int, height: int, pieces: Callable[[int], list[Piece]]) -> list[Strip]:
        """Draw the entries that are visible below the head, after scrolling to the cursor."""
        rows = max(1, height - self.header_height)
        self.cursor = max(0, min(self.cursor, self.count - 1))
        self.top = max(0, min(self.top, self.cursor, self.count - rows), self.cursor - rows + 1)
        lines = []
        for entry in range(self.top, min(self.count, self.top + rows)):
            if entry == self.cursor:
                background = self.background()
                lines.append(strip([(text, style + background) for text, style in pieces(entry)], width, background))
            else:
                lines.append(self.draw_entry(entry, width, pieces))
        return lines

    def draw_entry(self, entry: int, width: int, pieces: Callable[[int], list[Piece]]) -> Strip:
        """Draw an entry without the cursor."""
        return strip(pieces(entry), width)

    def background(self) -> Style:
        """Return the background at the cursor."""
        return theme.CURSOR if self.has_focus else theme.CURSOR_UNFOCUSED

    def move_to(self, entry: int) -> None:
        """Put the cursor on an entry, or on the nearest one there is."""
        entry = max(0, min(entry, self.count - 1))
        if entry != self.cursor:
            self.cursor = entry
            self.redraw()
            self.post_message(self.CursorMoved())

    @property
    def page_height(self) -> int:
        return max(1, self.size.height - self.header_height - 1)

    def action_move(self, lines: int) -> None:
        self.move_to(self.cursor + lines)

    def on_click(self, event: events.Click) -> None:
        entry = self.top + event.y - self.header_height
        if event.y < self.header_height:
            self.post_message(self.HeadClicked(event.x))
        elif entry < self.count:
            self.move_to(entry)
            if event.chain == 2:
                self.post_message(self.Chosen())
