"""A table that drops its least important columns when there is no room, instead of cutting them off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from tui import theme
from tui.text import Piece, fit, strip
from tui.widgets.drawn import Listing


@dataclass(frozen=True)
class Column:
    """``most``: cells at most; ``rank``: 0 always stays, the largest goes first; ``grow``: takes what is left."""

    title: str
    most: int
    right: bool = False
    rank: int = 0
    grow: bool = False


@dataclass(frozen=True)
class Row:
    key: str
    cells: tuple[Piece, ...]


class Table(Listing):
    """Rows with a cursor that stays on its row when rows come and go."""

    def __init__(
        self, columns: Sequence[Column], empty: str = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.columns = list(columns)
        self.empty = empty
        self.rows: list[Row] = []

    def show(self, rows: Sequence[Row]) -> None:
        """Replace the rows; the cursor stays with its key."""
        rows = list(rows)
        if rows == self.rows:
            return
        key = self.key
        self.rows, self.count = rows, len(rows)
        keys = [row.key for row in rows]
        self.cursor = keys.index(key) if key in keys else max(0, min(self.cursor, self.count - 1))
        self.redraw()
        if self.styles.auto_dimensions:
            self.refresh(layout=True)
        if self.key != key:
            self.post_message(self.Moved(self))

    @property
    def key(self) -> str | None:
        """Key of the highlighted row."""
        return self.rows[self.cursor].key if self.rows and self.cursor < len(self.rows) else None

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        del container, viewport, width
        return self.head + (len(self.rows) or 1 + len(self.empty.splitlines()))

    def layout_columns(self, width: int) -> list[tuple[int, int]]:
        """(column index, cells) of the columns that fit into ``width``."""
        wanted = [
            max([cell_len(column.title), *(cell_len(row.cells[i][0]) for row in self.rows)])
            for i, column in enumerate(self.columns)
        ]
        widths = [min(wanted[i], max(column.most, cell_len(column.title))) for i, column in enumerate(self.columns)]
        kept = list(range(len(self.columns)))
        while sum(widths[i] + 1 for i in kept) > width + 1:
            worst = max(kept, key=lambda i: (self.columns[i].rank, i))
            if self.columns[worst].rank == 0:
                break
            kept.remove(worst)
        growing = [i for i in kept if self.columns[i].grow]
        left = width - sum(widths[i] + 1 for i in kept) + 1
        while left and growing:
            if left > 0:  # to the one that lacks most
                i = max(growing, key=lambda i: wanted[i] - widths[i])
                if wanted[i] <= widths[i]:
                    break
            else:  # from the widest
                i = max(growing, key=lambda i: widths[i])
                if widths[i] <= 4:
                    break
            change = 1 if left > 0 else -1
            widths[i] += change
            left -= change
        return [(i, widths[i]) for i in kept]

    def draw(self, width: int, height: int) -> list[Strip]:
        layout = self.layout_columns(width)
        left = width - sum(cells + 1 for _, cells in layout) + 1
        gap = " " * (1 + max(0, min(2, left // max(1, len(layout) - 1))))
        head: list[Piece] = []
        for i, cells in layout:
            head += [(fit(self.columns[i].title, cells, self.columns[i].right), theme.VERY_DIM), (gap, theme.PLAIN)]
        lines = [strip(head, width)]
        if not self.rows:
            return [*(strip([("  " + line, theme.DIM)], width) for line in ["", *self.empty.splitlines()])]
        for entry in self.window(height - self.head):
            row = self.rows[entry]
            over = Style()
            if entry == self.cursor:
                over = theme.CURSOR if self.has_focus else theme.CURSOR_UNFOCUSED
            pieces: list[Piece] = []
            for i, cells in layout:
                text, style = row.cells[i]
                # The cursor's ground, the cell's own ink.
                pieces += [
                    (fit(text, cells, self.columns[i].right), style + Style(bgcolor=over.bgcolor, bold=over.bold)),
                    (gap, Style(bgcolor=over.bgcolor)),
                ]
            lines.append(strip(pieces, width, Style(bgcolor=over.bgcolor)))
        return lines
