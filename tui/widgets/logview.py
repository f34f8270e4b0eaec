"""The visible part of a log of any size."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.commands import bindings
from tui.logfile import Part
from tui.text import Piece, centred, chopped, cut, strip
from tui.widgets.strip import Navigable, StripWidget

GUTTER = 2
MARGIN = 100  # lines: nearer to an end of what is known, more is asked for
SIDEWAYS = 20  # cells
LEVELS = {"warning:": Style(color=theme.WARN), "error:": theme.ERROR, "---": theme.TITLE}
FOUND = theme.MARK + Style(reverse=True)


class LogView(Navigable, StripWidget, can_focus=True):
    """Lines with a cursor, which stays at the end, `follows`, unless it was moved back.

    Attributes:
        place: start of the line at the cursor.
        found: text that is highlighted.
        marked: start of the line that belongs to the cursor of the charts.
    """

    BINDINGS = bindings("lists")
    follows = True
    wrap = False
    place = 0
    found = ""
    marked: int | None = None
    part = Part()
    empty = "reading …"
    _top = 0  # start of the first visible line
    _left = 0

    class Wanted(Message):
        """Lines around an offset, or those at the end, are to be shown."""

        def __init__(self, offset: int | None) -> None:
            super().__init__()
            self.offset = offset

    class Moved(Message):
        """The cursor is on another line."""

    def show(self, part: Part, empty: str) -> None:
        """Replace the lines; the cursor stays on its own."""
        if part.generation != self.part.generation:
            self.follows, self.marked = True, None
        self.part, self.empty = part, empty
        if self.follows and part.lines:
            self.place = part.lines[-1].start
        self.redraw()

    def index(self, offset: int) -> int:
        """Return the index of the line at an offset, or of the nearest one that is known."""
        starts = [line.start for line in self.part.lines]
        return max(0, bisect_right(starts, offset) - 1)

    @property
    def text_at_cursor(self) -> str:
        return self.part.lines[self.index(self.place)].text if self.part.lines else ""

    def go(self, offset: int) -> None:
        """Put the cursor on the line at an offset, wherever in the file that is."""
        self.follows = False
        if self.part.covers(offset):
            self._move_to(self.index(offset))
        else:
            self.place = offset
            self.post_message(self.Wanted(offset))

    def toggle_wrap(self) -> None:
        self.wrap, self._left = not self.wrap, 0
        self.redraw()

    def sideways(self, direction: int) -> None:
        """Scroll lines that are not wrapped."""
        if not self.wrap:
            self._left = max(0, self._left + direction * SIDEWAYS)
            self.redraw()

    @property
    def page_height(self) -> int:
        return max(1, self.size.height - 1)

    def action_move(self, lines: int) -> None:
        self._move_to(self.index(self.place) + lines)

    def action_edge(self, direction: int) -> None:
        if direction < 0:
            self.go(0)
        elif self.part.is_last:
            self._move_to(len(self.part.lines) - 1)
        else:
            self.follows = True
            self.post_message(self.Wanted(None))

    def _move_to(self, index: int) -> None:
        part = self.part
        if not part.lines:
            return
        index = max(0, min(index, len(part.lines) - 1))
        self.place = part.lines[index].start
        self.follows = part.is_last and index == len(part.lines) - 1
        beyond = (index < MARGIN and not part.is_first) or (index >= len(part.lines) - MARGIN and not part.is_last)
        if beyond:
            self.post_message(self.Wanted(self.place))
        self.redraw()
        self.post_message(self.Moved())

    def draw(self, width: int, height: int) -> list[Strip]:
        lines = self.part.lines
        if not lines:
            return centred(cut(self.empty, width), width, height, theme.VERY_DIM)
        cursor, room = self.index(self.place), max(1, width - GUTTER)
        lowest, left = cursor, height - len(self._rows(cursor, room))
        while lowest > 0 and (left := left - len(self._rows(lowest - 1, room))) >= 0:
            lowest -= 1
        top = max(min(self.index(self._top), cursor), lowest)
        self._top = lines[top].start
        drawn: list[Strip] = []
        for index in range(top, len(lines)):
            if len(drawn) >= height:
                break
            sign = "▸ " if lines[index].start == self.marked else "  "
            background = self._background() if index == cursor else Style()
            for row in self._rows(index, room):
                pieces = [(sign, theme.MARK), *self._pieces(row, lines[index].text)]
                drawn.append(strip([(text, style + background) for text, style in pieces], width, background))
                sign = "  "
        return drawn

    def _background(self) -> Style:
        return theme.CURSOR if self.has_focus else theme.CURSOR_UNFOCUSED

    def _rows(self, index: int, width: int) -> list[str]:
        """Return the rows that a line takes."""
        text = self.part.lines[index].text
        if self.wrap:
            return chopped(text, width)
        return [cut(text[self._left :], width)]

    def _pieces(self, row: str, line: str) -> Iterator[Piece]:
        style = next((style for start, style in LEVELS.items() if line.startswith(start)), theme.PLAIN)
        end = 0
        if self.found:
            for match in re.finditer(re.escape(self.found), row, re.IGNORECASE | re.ASCII):
                yield row[end : match.start()], style
                yield match[0], FOUND
                end = match.end()
        yield row[end:], style

    def on_click(self, event: events.Click) -> None:
        y, width = event.y, max(1, self.size.width - GUTTER)
        for index in range(self.index(self._top), len(self.part.lines)):
            y -= len(self._rows(index, width))
            if y < 0:
                self._move_to(index)
                return
