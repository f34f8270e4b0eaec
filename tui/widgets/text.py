"""Lines of styled text, and a log that can be scrolled."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.style import Style
from textual.strip import Strip

from accl.text import printable
from tui import theme
from tui.text import Piece, cell_len, cut, strip
from tui.widgets.listing import Listing
from tui.widgets.strip import StripWidget


class Text(StripWidget):
    """Lines of styled pieces; a line that does not fit ends in an ellipsis."""

    content: Sequence[list[Piece]] = ()

    def show(self, *lines: Sequence[Piece]) -> None:
        """Replace the lines."""
        content = [list(line) for line in lines]
        if content != self.content:
            self.content = content
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        return [strip(shorten(line, width), width) for line in self.content[:height]]


class Log(Listing):
    """Lines of text that follow the newest, at the end, unless the cursor was moved back."""

    def __init__(self, title: str, empty: str, *, wrap: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.wrap = wrap
        self.empty = empty
        self.entries: list[list[Piece]] = []

    def show(self, entries: Sequence[Sequence[Piece]]) -> None:
        """Replace the entries."""
        new_entries = [list(entry) for entry in entries]
        if new_entries != self.entries:
            following = self.cursor >= self.count - 1
            self.entries, self.count = new_entries, len(new_entries)
            if following:
                self.cursor = max(0, self.count - 1)
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        title = strip([(self.title, theme.TITLE)], width)
        if not self.entries:
            return [title, strip([(cut(self.empty, width), theme.VERY_DIM)], width)]
        entries = [part for entry in self.entries for part in _wrapped(entry, width)] if self.wrap else self.entries
        self.count = len(entries)
        return [title, *self.draw_entries(width, height, lambda index: shorten(entries[index], width))]

    def background(self) -> Style:
        return theme.CURSOR_UNFOCUSED if self.has_focus else Style()


def _wrapped(entry: Sequence[Piece], width: int) -> list[list[Piece]]:
    """Wrap an entry, its first piece being a label beside which the rest is indented."""
    (label, label_style), *rest = entry
    indent = " " * cell_len(label)
    text = printable("".join(text for text, _ in rest))
    lines = textwrap.wrap(text, max(8, width - len(indent)), break_on_hyphens=False)
    style = rest[0][1] if rest else label_style
    return [[(indent if i else label, label_style), (line, style)] for i, line in enumerate(lines)] or [list(entry)]


def shorten(pieces: Sequence[Piece], width: int) -> list[Piece]:
    """Return the pieces in at most ``width`` cells."""
    if sum(cell_len(text) for text, _ in pieces) <= width:
        return list(pieces)
    kept: list[Piece] = []
    for text, style in pieces:
        size = cell_len(text)
        kept.append((text if size < width else cut(text + "…", width), style))
        width -= size
        if width <= 0:
            break
    return kept
