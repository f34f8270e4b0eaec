"""A K x K matrix as a grid of coloured cells with a cursor.

There are three cell sizes: half a line (two rows share a line as upper and lower half block), two
columns, and wide enough for the number. The colour scale excludes the diagonal, which is the
largest value of each row by definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.commands import bindings, next_choice
from tui.raster import Floats, Range
from tui.scale import finite_range, short
from tui.text import Piece, cell_len, centred, cut, fit, strip
from tui.widgets.strip import Navigable, StripWidget

CELL_COLUMNS = {"small": 1, "medium": 2, "numbers": 6}
ZOOMS = ("fitting", *CELL_COLUMNS)
NO_DATA_RGB, DIAGONAL_RGB, CURSOR_RGB = (22, 27, 36), (56, 66, 79), (255, 255, 255)


class Heatmap(Navigable, StripWidget, can_focus=True):
    """A heatmap of a matrix; `cursor` and `top` (first visible cell) are (row, column) as drawn."""

    BINDINGS = bindings("grid")

    class CursorMoved(Message):
        """The cursor is on another cell."""

    cursor = (0, 1)
    top = (0, 0)
    matrix: Floats = np.zeros((0, 0))
    names: Sequence[str] = ()
    groups: Sequence[str] = ()
    log_scale = False
    zoom = "fitting"
    bounds: Range | None = None
    _rgb: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)

    def show(self, matrix: Floats, names: Sequence[str], groups: Sequence[str], log: bool) -> None:
        """Replace the content: K x K values, NaN where nothing was measured, and K names of rows and their groups."""
        self.matrix, self.names, self.groups, self.log_scale = matrix, names, groups, log
        diagonal = np.eye(len(matrix), dtype=bool)
        self.bounds = finite_range([matrix[~diagonal]], positive=log)
        last = max(0, len(matrix) - 1)
        self.cursor = (min(self.cursor[0], last), min(self.cursor[1], last))
        self.redraw()

    def _colours(self) -> NDArray[np.uint8]:
        """Return the colour of each cell in the palette in use."""
        rgb = theme.viridis(np.nan_to_num(self.normalized(self.matrix)))
        rgb[~np.isfinite(self.matrix)] = NO_DATA_RGB
        rgb[np.eye(len(rgb), dtype=bool)] = DIAGONAL_RGB
        return rgb

    def normalized(self, values: Floats) -> Floats:
        """Map values to positions on the colour scale, 0 to 1."""
        if self.bounds is None:
            return np.zeros_like(values)
        low, high = self.bounds
        with np.errstate(all="ignore"):
            if self.log_scale:
                values, low, high = np.log(np.maximum(values, low)), float(np.log(low)), float(np.log(high))
            result: Floats = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
        return np.clip(result, 0.0, 1.0)

    def move_to(self, row: int, column: int) -> None:
        """Put the cursor on a cell, or on the nearest one there is."""
        last = len(self.matrix) - 1
        cursor = (max(0, min(row, last)), max(0, min(column, last)))
        if last >= 0 and cursor != self.cursor:
            self.cursor = cursor
            self.redraw()
            self.post_message(self.CursorMoved())

    def action_move(self, lines: int, columns: int = 0) -> None:
        self.move_to(self.cursor[0] + lines, self.cursor[1] + columns)

    def action_edge(self, direction: int) -> None:
        """Move to the first column (-1) or the last (1)."""
        self.action_move(0, direction * len(self.matrix))

    def cycle_zoom(self) -> None:
        self.zoom = next_choice(ZOOMS, self.zoom)
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        size, gutter = self._cell_size(self.size.width, self.size.height)
        rows_per_line = _rows_per_line(size)
        if event.y >= 1 and event.x >= gutter:
            column = self.top[1] + (event.x - gutter) // CELL_COLUMNS[size]
            self.move_to(self.top[0] + (event.y - 1) * rows_per_line, column)

    def _cell_size(self, width: int, height: int) -> tuple[str, int]:
        """Return the cell size and the width of the names on the left."""
        k = len(self.matrix)
        size = self.zoom
        if size == "fitting":
            size = "medium" if k * 2 + 10 <= width and k * 3 <= (height - 1) * 4 else "small"
        longest = max([cell_len(name) for name in self.names] + [1])
        # Names get the width that the cells leave, or a quarter beside number cells, which never all fit.
        available = max(width - k * CELL_COLUMNS[size], width // 4 if size == "numbers" else 0)
        return size, 2 if available < 10 else min(longest + 2, available, 40)

    def draw(self, width: int, height: int) -> list[Strip]:
        k = len(self.matrix)
        if not k:
            return centred("no confusion measured yet", width, height, theme.VERY_DIM)
        size, gutter = self._cell_size(width, height)
        cell_columns, rows_per_line = CELL_COLUMNS[size], _rows_per_line(size)
        self._rgb = self._colours()
        columns, rows = max(1, (width - gutter) // cell_columns), max(1, (height - 1) * rows_per_line)
        top, left = map(_scroll_to, self.top, self.cursor, (rows, columns), (k, k))
        if rows_per_line == 2 and top % 2:  # a line holds an even row and the odd one after it
            top += 1 if self.cursor[0] > top else -1
        self.top = (top, left)
        visible = range(left, min(k, left + columns))
        return [
            self._head(width, gutter, cell_columns, visible),
            *(
                strip(self._gutter(row, rows_per_line, gutter) + self._cells(row, size, visible), width)
                for row in range(top, min(k, top + rows), rows_per_line)
            ),
        ]

    def _head(self, width: int, gutter: int, cell_columns: int, visible: range) -> Strip:
        """Draw a mark above the cursor's column, with the name of the column beside it."""
        x = gutter + (self.cursor[1] - visible.start) * cell_columns + (cell_columns - 1) // 2
        name = self.names[self.cursor[1]]
        left_width, right_width = x - 1, width - x - 2
        if cell_len(name) <= right_width or right_width >= left_width:
            return strip([(" " * x + "▾ ", theme.MARK), (cut(name, max(1, right_width)), theme.BOLD)], width)
        return strip([(fit(name, left_width, right=True), theme.BOLD), (" ▾", theme.MARK)], width)

    def _gutter(self, row: int, rows_per_line: int, width: int) -> list[Piece]:
        at_cursor = row <= self.cursor[0] < row + rows_per_line
        mark: Piece = ("▸" if at_cursor else " ", theme.MARK)
        if width <= 2:
            return [mark, (" ", theme.PLAIN)]
        text, style = self.names[row], theme.DIM
        if rows_per_line == 2:  # one name for two rows: the cursor's, or the group that begins in them
            pair = range(row, min(row + 2, len(self.groups)))
            begins = (self.groups[r] for r in pair if r == 0 or self.groups[r] != self.groups[r - 1])
            text, style = self.names[self.cursor[0]] if at_cursor else next(begins, ""), theme.VERY_DIM
        return [(fit(text, width - 2, right=True) + " ", theme.BOLD if at_cursor else style), mark]

    def _cells(self, row: int, size: str, visible: range) -> list[Piece]:
        if theme.current().ramp:
            return [self._ramp_cell(row, column, size) for column in visible]
        if size == "small":  # this row is the upper half of the line, the next one the lower
            marked = self._rgb.copy()
            marked[self.cursor] = CURSOR_RGB
            halves = marked[row : row + 2, visible.start : visible.stop].tolist()
            upper, lower = halves if len(halves) == 2 else (halves[0], [None] * len(visible))
            return [
                ("▀", Style(color=_colour(above), bgcolor=_colour(below) if below else None))
                for above, below in zip(upper, lower, strict=True)
            ]
        pieces: list[Piece] = []
        for column in visible:
            rgb = self._rgb[row, column]
            at_cursor = (row, column) == self.cursor
            if size == "medium":
                text = "[]" if at_cursor else "  "
            else:
                value = self.matrix[row, column]
                number = short(float(value)) if np.isfinite(value) else "·"
                text = f"[{cut(number, 4):^4}]" if at_cursor else f"{cut(number, 5):^6}"
            pieces.append((text, Style(color=_contrasting(rgb), bgcolor=_colour(rgb), bold=at_cursor)))
        return pieces

    def _ramp_cell(self, row: int, column: int, size: str) -> Piece:
        """Draw a cell without colours: a character that is the denser the higher the value."""
        value = self.matrix[row, column]
        share = float(self.normalized(np.array(value)))
        symbol = "╲" if row == column else theme.ramp(share) if np.isfinite(value) else "·"
        text = symbol * CELL_COLUMNS[size]
        if size == "numbers":
            text = f"{cut(short(float(value)), 5):^6}" if np.isfinite(value) else f"{'·':^6}"
        return (text, theme.PLAIN + Style(reverse=True) if (row, column) == self.cursor else theme.PLAIN)


class Legend(StripWidget):
    """The colour scale of a heatmap: lowest value, the colours, highest value."""

    def __init__(self, heatmap: Heatmap, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.heatmap = heatmap

    def draw(self, width: int, height: int) -> list[Strip]:
        if self.heatmap.bounds is None:
            return []
        low, high = (short(bound) for bound in self.heatmap.bounds)
        note = f"  {'log' if self.heatmap.log_scale else 'linear'}, diagonal left out"
        available = width - len(low) - len(high) - 2
        if available - len(note) < 8:
            note = ""
        shares = np.linspace(0.0, 1.0, max(4, min(32, available - len(note))))
        scale: list[Piece] = [(" ", Style(bgcolor=_colour(rgb))) for rgb in theme.viridis(shares)]
        if theme.current().ramp:
            scale = [(theme.ramp(float(share)), theme.PLAIN) for share in shares]
        return [strip([(low + " ", theme.DIM), *scale, (" " + high, theme.DIM), (note, theme.VERY_DIM)], width)]


def _rows_per_line(size: str) -> int:
    """Return 2 where half blocks show two rows in a line, for which they need colours."""
    return 2 if size == "small" and not theme.current().ramp else 1


def _scroll_to(top: int, cursor: int, size: int, count: int) -> int:
    """Return the first visible index: the nearest to ``top`` with which the cursor is visible."""
    return max(0, min(max(top, cursor - size + 1), cursor, max(0, count - size)))


def _colour(rgb: NDArray[np.uint8] | tuple[int, ...]) -> Color:
    return Color.from_rgb(int(rgb[0]), int(rgb[1]), int(rgb[2]))


def _contrasting(rgb: NDArray[np.uint8]) -> Color:
    """Return black or white, by the luma (ITU-R BT.601) of the colour."""
    luma = 0.299 * float(rgb[0]) + 0.587 * float(rgb[1]) + 0.114 * float(rgb[2])
    return Color.from_rgb(0, 0, 0) if luma > 130 else Color.from_rgb(255, 255, 255)
