"""A K x K matrix as a navigable grid of coloured cells.

Cells come in three sizes: half a line (two rows share a line as upper and lower half block), two
columns, and wide enough for the number. The colour scale leaves the diagonal out: a task is always
most like itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip

from tui import theme
from tui.keys import bindings
from tui.raster import Floats, Range
from tui.scale import finite_range, short
from tui.text import Piece, cut, fit, strip
from tui.widgets.drawn import Drawn

CELL_COLUMNS = {"small": 1, "medium": 2, "numbers": 6}
SIZES = ("fitting", *CELL_COLUMNS)
NEVER, DIAGONAL = (22, 27, 36), (56, 66, 79)


class Heatmap(Drawn, can_focus=True):
    """Draws what `show` was given; `cursor` is (row, column) as drawn."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("confusion")

    class Moved(Message):
        """The cursor is somewhere else now."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.matrix: Floats = np.zeros((0, 0))
        self.names: list[str] = []
        self.groups: list[str] = []
        self.cursor = (0, 1)
        self.top = (0, 0)
        self.logarithmic = False
        self.zoom = "fitting"
        self._rgb: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
        self.bounds: Range | None = None

    def show(self, matrix: Floats, names: Sequence[str], groups: Sequence[str], log: bool) -> None:
        """``matrix``: K x K, NaN where nothing was ever seen; ``groups``: what each row belongs to."""
        self.matrix, self.names, self.groups, self.logarithmic = matrix, list(names), list(groups), log
        k = len(matrix)
        off = matrix[~np.eye(k, dtype=bool)]
        self.bounds = finite_range([off], positive=log)
        self._rgb = self._colours()
        self.cursor = (min(self.cursor[0], max(0, k - 1)), min(self.cursor[1], max(0, k - 1)))
        self.redraw()

    def share(self, values: Floats) -> Floats:
        """Place on the colour scale, 0 to 1."""
        if self.bounds is None:
            return np.zeros_like(values)
        low, high = self.bounds
        with np.errstate(all="ignore"):
            if self.logarithmic:
                values, low, high = np.log(np.maximum(values, low)), float(np.log(low)), float(np.log(high))
            result: Floats = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
        return np.clip(result, 0.0, 1.0)

    def _colours(self) -> NDArray[np.uint8]:
        rgb = theme.viridis(np.nan_to_num(self.share(self.matrix)))
        rgb[~np.isfinite(self.matrix)] = NEVER
        rgb[np.eye(len(self.matrix), dtype=bool)] = DIAGONAL
        return rgb

    # Moving --------------------------------------------------------------------------------------

    def move_to(self, row: int, column: int) -> None:
        k = len(self.matrix)
        cursor = (max(0, min(row, k - 1)), max(0, min(column, k - 1)))
        if k and cursor != self.cursor:
            self.cursor = cursor
            self.redraw()
            self.post_message(self.Moved())

    def action_move(self, rows: int, columns: int) -> None:
        self.move_to(self.cursor[0] + rows, self.cursor[1] + columns)

    def action_edge(self, side: int) -> None:
        self.move_to(self.cursor[0], 0 if side < 0 else len(self.matrix) - 1)

    def cycle_zoom(self) -> None:
        self.zoom = SIZES[(SIZES.index(self.zoom) + 1) % len(SIZES)]
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        size, gutter = self._cell_size(self.size.width, self.size.height)
        lines = 2 if size == "small" else 1
        if event.y >= 1 and event.x >= gutter:
            self.move_to(self.top[0] + (event.y - 1) * lines, self.top[1] + (event.x - gutter) // CELL_COLUMNS[size])

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(3, 0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-3, 0)

    # Drawing -------------------------------------------------------------------------------------

    def _cell_size(self, width: int, height: int) -> tuple[str, int]:
        """Cell size in force, and the width of the names on the left."""
        k = len(self.matrix)
        size = self.zoom
        if size == "fitting":
            size = "medium" if k * 2 + 10 <= width and k * 3 <= (height - 1) * 4 else "small"
        longest = max([len(name) for name in self.names] + [1])
        # Names take what the cells leave; wide cells do not fit anyway, so there they take a quarter.
        room = max(width - k * CELL_COLUMNS[size], width // 4 if size == "numbers" else 0)
        return size, 2 if room < 10 else min(longest + 2, room, 40)

    def draw(self, width: int, height: int) -> list[Strip]:
        k = len(self.matrix)
        if not k:
            text = "no confusion measured yet"
            return [
                *[Strip.blank(width)] * max(0, height // 2 - 1),
                strip([(text.center(width), theme.VERY_DIM)], width),
            ]
        size, gutter = self._cell_size(width, height)
        across, down = CELL_COLUMNS[size], 2 if size == "small" else 1
        columns, rows = max(1, (width - gutter) // across), max(1, (height - 1) * down)
        left = _into_view(self.top[1], self.cursor[1], columns, k)
        top = _into_view(self.top[0], self.cursor[0], rows, k)
        if down == 2 and top % 2:  # a line holds an even row and the odd one after it
            top += 1 if self.cursor[0] > top else -1
        self.top = (top, left)
        seen = range(left, min(k, left + columns))
        lines = [self._head(width, gutter, across, seen)]
        for row in range(top, min(k, top + rows), down):
            if len(lines) >= height:
                break
            lines.append(strip(self._gutter(row, down, gutter) + self._cells(row, size, seen), width))
        return lines

    def _head(self, width: int, gutter: int, across: int, seen: range) -> Strip:
        """The name of the cursor's column, beside a mark above it."""
        at = gutter + (self.cursor[1] - seen.start) * across + (across - 1) // 2
        name = self.names[self.cursor[1]]
        room_right, room_left = width - at - 2, at - 1
        if len(name) <= room_right or room_right >= room_left:
            return strip([(" " * at + "▾ ", theme.MARK), (cut(name, max(1, room_right)), theme.BOLD)], width)
        return strip([(fit(name, room_left, right=True), theme.BOLD), (" ▾", theme.MARK)], width)

    def _gutter(self, row: int, down: int, width: int) -> list[Piece]:
        here = row <= self.cursor[0] < row + down
        mark: Piece = ("▸", theme.MARK) if here else (" ", theme.PLAIN)
        if width <= 2:
            return [mark, (" ", theme.PLAIN)]
        if down == 2:  # two rows share the line: name the cursor's, or the group that begins here
            begins = [
                r for r in range(row, min(row + 2, len(self.groups))) if r == 0 or self.groups[r] != self.groups[r - 1]
            ]
            text = self.names[self.cursor[0]] if here else (self.groups[begins[0]] if begins else "")
        else:
            text = self.names[row]
        style = theme.BOLD if here else (theme.VERY_DIM if down == 2 else theme.DIM)
        return [(fit(text, width - 2, right=True) + " ", style), mark]

    def _cells(self, row: int, size: str, seen: range) -> list[Piece]:
        if size == "small":
            return [("▀", self._half(row, column)) for column in seen]
        pieces: list[Piece] = []
        for column in seen:
            rgb = self._rgb[row, column]
            here = (row, column) == self.cursor
            if size == "medium":
                text = "[]" if here else "  "
            else:
                value = self.matrix[row, column]
                number = short(float(value)) if np.isfinite(value) else "·"
                text = f"[{cut(number, 4):^4}]" if here else f"{cut(number, 5):^6}"
            pieces.append((text, Style(color=_ink(rgb), bgcolor=_colour(rgb), bold=here)))
        return pieces

    def _half(self, row: int, column: int) -> Style:
        """Upper half: this row; lower half: the next. The cursor's half is white."""
        white = (255, 255, 255)
        upper = white if (row, column) == self.cursor else tuple(self._rgb[row, column])
        if row + 1 >= len(self.matrix):
            return Style(color=_colour(upper))
        lower = white if (row + 1, column) == self.cursor else tuple(self._rgb[row + 1, column])
        return Style(color=_colour(upper), bgcolor=_colour(lower))


class Legend(Drawn):
    """The colour scale of a heatmap: lowest value, the colours, highest value."""

    def __init__(self, heatmap: Heatmap, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.heatmap = heatmap

    def draw(self, width: int, height: int) -> list[Strip]:
        del height
        if self.heatmap.bounds is None:
            return [Strip.blank(width)]
        low, high = self.heatmap.bounds
        words = f"  {'log' if self.heatmap.logarithmic else 'linear'}, diagonal left out"
        ends = len(short(low)) + len(short(high)) + 2
        words = words if width - ends - len(words) >= 8 else ""
        steps = max(4, min(32, width - ends - len(words)))
        colours = theme.viridis(np.linspace(0.0, 1.0, steps))
        pieces: list[Piece] = [(short(low) + " ", theme.DIM)]
        pieces += [(" ", Style(bgcolor=_colour(rgb))) for rgb in colours]
        pieces += [(" " + short(high), theme.DIM), (words, theme.VERY_DIM)]
        return [strip(pieces, width)]


def _into_view(top: int, cursor: int, room: int, count: int) -> int:
    return max(0, min(max(top, cursor - room + 1), cursor, max(0, count - room)))


def _colour(rgb: NDArray[np.uint8] | tuple[int, ...]) -> Color:
    return Color.from_rgb(int(rgb[0]), int(rgb[1]), int(rgb[2]))


def _ink(rgb: NDArray[np.uint8]) -> Color:
    """Black or white, whichever reads better on the colour."""
    light = 0.299 * float(rgb[0]) + 0.587 * float(rgb[1]) + 0.114 * float(rgb[2])
    return Color.from_rgb(0, 0, 0) if light > 130 else Color.from_rgb(255, 255, 255)
