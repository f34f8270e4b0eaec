"""A table that drops its least important columns when they do not fit, instead of truncating them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from tui import theme
from tui.text import Piece, cell_len, cut_middle, fit, strip
from tui.widgets.listing import Listing


@dataclass(frozen=True)
class Column:
    """A column, aligned to the ``right`` or left; with ``grow``, it gets the width that is left over.

    Attributes:
        max_width: cells at most, before growing.
        rank: order of dropping: 0 is never dropped, the largest goes first.
        sparse: whether it is left out while all its cells are empty.
        ends: whether both ends of a text that does not fit are shown, not only its beginning.
    """

    title: str
    max_width: int
    right: bool = False
    rank: int = 0
    grow: bool = False
    sparse: bool = False
    ends: bool = False

    def fitted(self, text: str, width: int) -> str:
        """Return the text of a cell in exactly ``width`` cells."""
        return fit(cut_middle(text, width) if self.ends else text, width, self.right)


@dataclass(frozen=True)
class Row:
    """A row; ``key`` identifies it when the rows are replaced."""

    key: str
    cells: tuple[Piece, ...]

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Cells that the text of each cell takes."""
        return tuple(cell_len(text) for text, _ in self.cells)


class Table(Listing):
    """Rows with a cursor that stays on its row when rows come and go."""

    def __init__(self, columns: Sequence[Column], empty: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.empty = empty
        self.rows: list[Row] = []
        self.sorted_by = ""
        self._version = 0  # of the rows
        self._drawn_for: object = None  # what the rows that were drawn depend on
        self._drawn: dict[str, tuple[Row, Strip]] = {}  # by their keys
        self._laid_out: tuple[object, list[tuple[int, int]]] = None, []

    def show(
        self,
        rows: Sequence[Row],
        empty: str | None = None,
        columns: Sequence[Column] | None = None,
        sorted_by: str | None = None,
    ) -> None:
        """Replace the rows, what is said if there are none, and the columns; the cursor stays with its key.

        Args:
            sorted_by: title of a column and an arrow, which its head shows.
        """
        empty = self.empty if empty is None else empty
        columns = self.columns if columns is None else list(columns)
        sorted_by = self.sorted_by if sorted_by is None else sorted_by
        if (list(rows), empty, columns, sorted_by) == (self.rows, self.empty, self.columns, self.sorted_by):
            return
        self.empty, self.columns, self.sorted_by = empty, columns, sorted_by
        key, keys = self.key, [row.key for row in rows]
        self.rows, self.count = list(rows), len(rows)
        self._version += 1
        self.cursor = keys.index(key) if key in keys else max(0, min(self.cursor, self.count - 1))
        self.redraw()
        if self.styles.auto_dimensions:
            self.refresh(layout=True)
        if self.key != key:
            self.post_message(self.CursorMoved())

    @property
    def key(self) -> str | None:
        """Key of the row at the cursor."""
        return self.rows[self.cursor].key if self.rows and self.cursor < len(self.rows) else None

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return self.header_height + (len(self.rows) or 1 + len(self.empty.splitlines()))

    def layout_columns(self, width: int) -> list[tuple[int, int]]:
        """Return (column index, cells) of the columns that fit into ``width``."""
        no_row = (0,) * len(self.columns)
        filled = [max(cells) for cells in zip(no_row, *(row.widths for row in self.rows), strict=True)]
        wanted = [max(w, cell_len(self._title(c))) for w, c in zip(filled, self.columns, strict=True)]
        widths = [min(w, max(c.max_width, cell_len(self._title(c)))) for w, c in zip(wanted, self.columns, strict=True)]
        kept = [i for i, c in enumerate(self.columns) if not c.sparse or filled[i]]
        dropped: list[int] = []
        while sum(widths[i] + 1 for i in kept) > width + 1:
            worst = max(kept, key=lambda i: (self.columns[i].rank, i))
            if self.columns[worst].rank == 0:
                break
            kept.remove(worst)
            dropped.append(worst)
        # A narrow one may fit where a wide one that was more important did not.
        for i in reversed(dropped):
            if sum(widths[j] + 1 for j in (i, *kept)) <= width + 1:
                kept = sorted((i, *kept))
        growing = [i for i in kept if self.columns[i].grow]
        left = width - sum(widths[i] + 1 for i in kept) + 1
        change = 1 if left > 0 else -1
        for _ in range(abs(left)):  # widen the column that lacks most, or narrow the widest
            able = [i for i in growing if (wanted[i] > widths[i] if left > 0 else widths[i] > 4)]
            if not able:
                break
            widths[max(able, key=lambda i: wanted[i] - widths[i] if left > 0 else widths[i])] += change
        return [(i, widths[i]) for i in kept]

    def column_at(self, x: int) -> Column | None:
        """Return the column that is drawn at a cell of a line."""
        layout, gap = self._layout(self.size.width)
        for i, cells in layout:
            if x < cells + len(gap):
                return self.columns[i]
            x -= cells + len(gap)
        return None

    def _layout(self, width: int) -> tuple[list[tuple[int, int]], str]:
        key = (width, self.sorted_by, tuple(self.columns), self._version)
        if self._laid_out[0] != key:
            self._laid_out = key, self.layout_columns(width)
        layout = self._laid_out[1]
        left = width - sum(cells + 1 for _, cells in layout) + 1
        return layout, " " * (1 + max(0, min(2, left // max(1, len(layout) - 1))))

    def _title(self, column: Column) -> str:
        """Return the title of a column, with an arrow if the rows are sorted by it."""
        return self.sorted_by if column.title and self.sorted_by[:-1] == column.title else column.title

    def draw(self, width: int, height: int) -> list[Strip]:
        layout, gap = self._layout(width)
        if not self.rows:
            return [strip([("  " + line, theme.DIM)], width) for line in ["", *self.empty.splitlines()]]
        drawn_for = (width, layout, gap, theme.current())
        if drawn_for != self._drawn_for:
            self._drawn_for, self._drawn = drawn_for, {}
        titles = [fit(self._title(self.columns[i]), cells, self.columns[i].right) + gap for i, cells in layout]

        def pieces(entry: int) -> list[Piece]:
            row = [(i, cells, *self.rows[entry].cells[i]) for i, cells in layout]
            line = [(self.columns[i].fitted(text, w) + gap, style) for i, w, text, style in row]
            if entry == self.cursor and self.has_focus:
                return [(text, style + Style(bold=True)) for text, style in line]
            return line

        return [strip([("".join(titles), theme.VERY_DIM)], width), *self.draw_entries(width, height, pieces)]

    def draw_entry(self, entry: int, width: int, pieces: Callable[[int], list[Piece]]) -> Strip:
        """Draw a row without the cursor, once: a move of the cursor changes two rows."""
        row = self.rows[entry]
        found = self._drawn.get(row.key)
        if found is None or found[0] is not row:
            found = self._drawn[row.key] = row, super().draw_entry(entry, width, pieces)
        return found[1]
