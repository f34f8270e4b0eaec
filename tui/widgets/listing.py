"""Base of the widgets that list entries and have a cursor."""

from __future__ import annotations

from textual import events
from textual.message import Message

from tui.keys import bindings
from tui.widgets.strip import Navigable, StripWidget


class Listing(Navigable, StripWidget, can_focus=True):
    """Entries of one line each, with a cursor and an offset that keeps the cursor visible.

    Subclasses set `count`, the number of entries, and call `visible_entries` while drawing.
    """

    BINDINGS = bindings("lists")

    class CursorMoved(Message):
        """The cursor is on another entry."""

        def __init__(self, listing: Listing) -> None:
            super().__init__()
            self.listing = listing

        @property
        def control(self) -> Listing:
            return self.listing

    header_height = 1
    cursor = 0
    top = 0
    count = 0

    def visible_entries(self, rows: int) -> range:
        """Return the entries to draw in ``rows`` lines, after scrolling to the cursor."""
        rows = max(1, rows)
        self.cursor = max(0, min(self.cursor, self.count - 1))
        self.top = max(0, min(self.top, self.cursor, self.count - rows))
        self.top = max(self.top, self.cursor - rows + 1)
        return range(self.top, min(self.count, self.top + rows))

    def move_to(self, entry: int) -> None:
        """Put the cursor on an entry, or on the nearest one there is."""
        entry = max(0, min(entry, self.count - 1))
        if entry != self.cursor:
            self.cursor = entry
            self.redraw()
            self.post_message(self.CursorMoved(self))

    @property
    def page_height(self) -> int:
        return max(1, self.size.height - self.header_height - 1)

    def action_move(self, lines: int) -> None:
        self.move_to(self.cursor + lines)

    def on_click(self, event: events.Click) -> None:
        entry = self.top + event.y - self.header_height
        if event.y >= self.header_height and entry < self.count:
            self.move_to(entry)
