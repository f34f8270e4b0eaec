"""A K x K matrix as a grid of coloured cells, with a crosshair and with gaps between groups.

There are three cell sizes: half a line (two rows share a line as upper and lower half block), two columns, and wide
enough for the number. The lower triangle may show another matrix, in diverging colours. The colour scales leave out the
diagonal, which is the largest value of each row by definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.commands import bindings, next_choice
from tui.matrix import Scale, compact, off_diagonal
from tui.raster import Floats
from tui.text import Piece, beside, block, cell_len, centred, cut, fit, strip
from tui.widgets.strip import Navigable, StripWidget

if TYPE_CHECKING:
    from rich.segment import Segment

SIZES = ("small", "medium", "numbers")
ZOOMS = ("fitting", *SIZES)
GAP = -1  # in place of an index, where a group ends
MARKED = theme.MARK + Style(reverse=True)
NO_DATA, DIAGONAL, CURSOR = 0x161B24, 0x38424F, 0xFFFFFF
# A half block costs a terminal forty bytes, twice in each line that the cursor leaves or enters: dots cost a third.
DOTS = 3


class Heatmap(Navigable, StripWidget, can_focus=True):
    """A heatmap of a matrix.

    Attributes:
        cursor: row and column.
        top: first visible cell, or gap, of both axes.
        otherwise: what is said while there is no matrix.
    """

    BINDINGS = bindings("grid")

    class CursorMoved(Message):
        """The cursor is on another cell."""

    cursor = (0, 1)
    top = (0, 0)
    matrix: Floats = np.zeros((0, 0))
    lower: Floats | None = None
    names: Sequence[str] = ()
    groups: Sequence[str] = ()
    slots: Sequence[int] = ()
    zoom = "fitting"
    otherwise = "reading …"
    scale = lower_scale = Scale("linear", False, np.zeros(0))
    _painted: tuple[object, ...] = ()
    _rgb: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    _tinted: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    _symbols: list[list[str]]
    _numbers: list[list[str]] | None = None

    def show(
        self, matrix: Floats, names: Sequence[str], groups: Sequence[str], scale: str, lower: Floats | None = None
    ) -> None:
        """Replace the content.

        Args:
            matrix: K x K values, NaN where nothing was measured.
            names: of the K rows and columns.
            groups: of the names, where they stand in the order of their groups; else empty.
            scale: kind of the colour scale, one of `SCALES`.
            lower: K x K differences to show below the diagonal.
        """
        self.matrix, self.names, self.groups, self.lower = matrix, names, groups, lower
        self.scale = Scale.of(off_diagonal(matrix), scale)
        if lower is not None:
            self.lower_scale = Scale.of(off_diagonal(lower), scale, diverging=True)
        self.slots = []
        for i in range(len(matrix)):
            if i and groups and groups[i] != groups[i - 1]:
                self.slots.append(GAP)
            self.slots.append(i)
        last = max(0, len(matrix) - 1)
        self.cursor = (min(self.cursor[0], last), min(self.cursor[1], last))
        self._painted, self._numbers = (), None
        self.redraw()

    @property
    def values(self) -> Floats:
        """Values as the cells show them: differences below the diagonal where there are any."""
        return self.matrix if self.lower is None else np.where(np.tri(len(self.matrix), k=-1), self.lower, self.matrix)

    @property
    def numbers(self) -> list[list[str]]:
        """Texts of the values."""
        if self._numbers is None:
            self._numbers = [list(map(compact, row)) for row in self.values.tolist()]
        return self._numbers

    def _paint(self) -> None:
        """Give each cell its colours, or its character where there are none, in the palette in use."""
        palette = theme.current()
        if self._painted == (palette.name,):
            return
        self._painted = (palette.name,)
        k = len(self.matrix)
        below = np.tri(k, k=-1, dtype=bool) & (self.lower is not None)
        shares, diagonal = self.scale.shares(self.matrix), np.eye(k, dtype=bool)
        rgb = theme.viridis(np.nan_to_num(shares)).astype(np.int64)
        if self.lower is not None:
            shares = np.where(below, self.lower_scale.shares(self.lower), shares)
            rgb[below] = theme.diverging(np.nan_to_num(shares[below], nan=0.5))
        tinted = np.where((rgb @ LUMA)[..., None] > 128, rgb * 0.55, rgb * 0.55 + 115).astype(np.int64)
        self._rgb, self._tinted = rgb @ BYTES, tinted @ BYTES
        self._rgb[np.isnan(shares)] = NO_DATA
        self._rgb[diagonal] = DIAGONAL
        self._tinted[np.isnan(shares) | diagonal] = 0x5A6575
        ramps = (theme.ramp, theme.diverging_ramp)
        self._symbols = [
            [
                "╲" if a == b else "·" if np.isnan(share) else ramps[bool(below[a, b])](float(share))
                for b, share in enumerate(row)
            ]
            for a, row in enumerate(shares)
        ]

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
        """Take the next size that looks different."""
        before = self._shown_size(*self.size)
        self.zoom = next_choice(ZOOMS, self.zoom)
        if self._shown_size(*self.size) == before:
            self.zoom = next_choice(ZOOMS, self.zoom)
        self.redraw()

    def toggle_numbers(self) -> None:
        self.zoom = ZOOMS[0] if self.zoom == SIZES[-1] else SIZES[-1]
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        size, gutter = self._cell_size(self.size.width, self.size.height)
        row = self.top[0] + (event.y - 1) * _rows_per_line(size)
        column = self.top[1] + (event.x - gutter) // self._cell_columns(size)
        if event.y >= 1 and event.x >= gutter and max(row, column) < len(self.slots):
            at = self.slots[row], self.slots[column]
            self.move_to(*(i if i != GAP else before for i, before in zip(at, self.cursor, strict=True)))

    def _cell_columns(self, size: str) -> int:
        if size == "numbers":
            return 1 + max(len(text) for row in self.numbers for text in row)
        return 2 if size == "medium" else 1

    def _shown_size(self, width: int, height: int) -> str:
        """Return which of `SIZES` a cell has."""
        if self.zoom != "fitting":
            return self.zoom
        count = len(self.slots)
        return "medium" if count * 2 + 10 <= width and count <= height - 1 else "small"

    def _cell_size(self, width: int, height: int) -> tuple[str, int]:
        """Return the cell size and the width of the names on the left."""
        count, size = len(self.slots), self._shown_size(width, height)
        longest = max([cell_len(name) for name in self.names] + [1])
        # Names get the width that the cells leave, or a quarter beside number cells, which never all fit.
        available = max(width - count * self._cell_columns(size), width // 4 if size == "numbers" else 0)
        return size, 2 if available < 8 else min(longest + 2, available, 40)

    def draw(self, width: int, height: int) -> list[Strip]:
        if not len(self.matrix):
            return centred(self.otherwise, width, height, theme.VERY_DIM)
        self._paint()
        size, gutter = self._cell_size(width, height)
        cell_columns, rows_per_line = self._cell_columns(size), _rows_per_line(size)
        columns, rows = max(1, (width - gutter) // cell_columns), max(1, (height - 1) * rows_per_line)
        at = (self.slots.index(self.cursor[0]), self.slots.index(self.cursor[1]))
        top, left = map(_scroll_to, self.top, at, (rows, columns), (len(self.slots),) * 2)
        if rows_per_line == 2 and top % 2:  # a line holds an even slot and the odd one after it
            top += 1 if at[0] > top else -1
        self.top = (top, left)
        across = self.slots[left : left + columns]
        lines = [self._head(width, gutter, cell_columns, across)]
        for first in range(top, min(len(self.slots), top + rows), rows_per_line):
            down = [*self.slots[first : first + rows_per_line], GAP][:rows_per_line]
            if rows_per_line == 2:
                cells = self._halves(down, across)
            else:
                cells = self._cells(down[0], across, size, cell_columns)
            names = strip(self._gutter(down, gutter), gutter)
            lines.append(beside(names, cells, width))
        return lines

    def _head(self, width: int, gutter: int, cell_columns: int, across: Sequence[int]) -> Strip:
        """Draw the groups above their columns, and a mark above the cursor's; without groups, the column's name."""
        at = across.index(self.cursor[1])
        x = gutter + at * cell_columns + (cell_columns - 1) // 2
        if self.groups:
            text, start = " " * gutter, 0
            for end in [*(i for i, slot in enumerate(across) if slot == GAP), len(across)]:
                columns = (end - start) * cell_columns
                text += fit(self.groups[across[start]] if end > start else "", columns)
                text += " " * cell_columns * (end < len(across))
                start = end + 1
            # A letter that is in the place of the mark stays, and is marked itself.
            mark: Piece = ("▾", theme.MARK) if text[x] == " " else (text[x], MARKED)
            return strip([(text[:x], theme.VERY_DIM), mark, (text[x + 1 :], theme.VERY_DIM)], width)
        name = self.names[self.cursor[1]]
        left_width, right_width = x - 1, width - x - 2
        if cell_len(name) <= right_width or right_width >= left_width:
            return strip([(" " * x + "▾ ", theme.MARK), (cut(name, max(1, right_width)), theme.BOLD)], width)
        return strip([(fit(name, left_width, right=True), theme.BOLD), (" ▾", theme.MARK)], width)

    def _gutter(self, down: Sequence[int], width: int) -> list[Piece]:
        at_cursor = self.cursor[0] in down
        mark: Piece = ("▸" if at_cursor else " ", theme.MARK)
        if width <= 2:
            return [mark, (" ", theme.PLAIN)]
        text, style = self.names[down[0]] if down[0] != GAP else "", theme.DIM
        if len(down) == 2:  # one name for two rows: the cursor's, or the group that begins in them
            starts = [i for i in down if i != GAP and self.groups and (i == 0 or self.groups[i] != self.groups[i - 1])]
            text, style = self.groups[starts[0]] if starts else "", theme.VERY_DIM
        if at_cursor:
            text, style = self.names[self.cursor[0]], theme.BOLD
        return [(fit(text, width - 2, right=True) + " ", style), mark]

    def _halves(self, down: Sequence[int], across: Sequence[int]) -> list[Segment]:
        """Draw two rows in one line."""
        upper, lower = (self._row_colours(i, across, DOTS) for i in down)
        return [_half(above, below) for above, below in zip(upper, lower, strict=True)]

    def _row_colours(self, row: int, across: Sequence[int], every: int) -> list[int]:
        """Return the colours of a row's visible cells, a gap's being -1; the crosshair tints each so many cells."""
        if row == GAP:
            return [GAP] * len(across)
        cursor_row, cursor_column = self.cursor
        colours_K = self._rgb[row].copy()
        if row == cursor_row:
            colours_K[::every] = self._tinted[row, ::every]
            colours_K[cursor_column] = CURSOR
        elif row % every == 0:
            colours_K[cursor_column] = self._tinted[row, cursor_column]
        colours: list[int] = np.append(colours_K, GAP)[across].tolist()
        return colours

    def _cells(self, row: int, across: Sequence[int], size: str, width: int) -> list[Segment]:
        """Draw a row in a line of its own."""
        if row == GAP:
            return [block(" " * width, Style())] * len(across)
        plain, cursor_row, cursor_column = theme.current().ramp, *self.cursor
        cells = []
        for column, rgb in zip(across, self._row_colours(row, across, 1), strict=True):
            if column == GAP:
                cells.append(block(" " * width, Style()))
                continue
            at_cursor = (row, column) == self.cursor
            text = self._symbols[row][column] * width if plain else "[]" if at_cursor else " " * width
            if size == "numbers":
                text = self.numbers[row][column].rjust(width)
            if plain:
                crossed = not at_cursor and (row == cursor_row or column == cursor_column)
                cells.append(block(text, Style(reverse=at_cursor, underline=crossed)))
            else:
                cells.append(_filled(text, rgb))
        return cells


LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
BYTES = np.array([1 << 16, 1 << 8, 1])


def _rows_per_line(size: str) -> int:
    """Return 2 where half blocks show two rows in a line, for which they need colours."""
    return 2 if size == "small" and not theme.current().ramp else 1


def _scroll_to(top: int, cursor: int, size: int, count: int) -> int:
    """Return the first visible index: it stays while the cursor is visible; else the cursor comes into the middle.

    If it came to the edge, each further move would change every cell.
    """
    if not top <= cursor < top + size:
        top = cursor - size // 2
    return max(0, min(top, count - size))


def _colour(rgb: int) -> Color:
    return Color.from_rgb(rgb >> 16, rgb >> 8 & 255, rgb & 255)


@lru_cache(65536)
def _half(above: int, below: int) -> Segment:
    """Draw two colours in one cell; where there is a gap the background shows."""
    if above == GAP:
        return block(" ", Style()) if below == GAP else block("▄", Style(color=_colour(below)))
    return block("▀", Style(color=_colour(above), bgcolor=_colour(below) if below != GAP else None))


@lru_cache(65536)
def _filled(text: str, rgb: int) -> Segment:
    """Draw a text in black or white on a colour."""
    dark = np.array([rgb >> 16, rgb >> 8 & 255, rgb & 255]) @ LUMA <= 130
    return block(text, Style(color=_colour(0xFFFFFF if dark else 0), bgcolor=_colour(rgb)))
