"""Pane 3: which tasks the encoder holds for alike, as a grid to walk through and a ranking of pairs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from accl.store.reader import Confusion
from tui import theme
from tui.feed import RunView
from tui.keys import bindings
from tui.panes.pane import Pane
from tui.raster import Floats
from tui.scale import short
from tui.text import Piece
from tui.widgets.frame import Text
from tui.widgets.heatmap import Heatmap, Legend
from tui.widgets.table import Column, Row, Table

ORDERS = ("category", "name")
TOP = 100
PREFERRED = "similarity/test"
COLUMNS = (
    Column("#", 3, right=True),
    Column("value", 7, right=True),
    Column("task", 26, grow=True),
    Column("confused with", 26, grow=True),
    Column("pairs", 9, right=True, rank=1),
)


class ConfusionPane(Pane):
    """The grid shows the matrix in the order chosen; `pair` is the cursor in task indices."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("confusion pane")
    keys = ("confusion pane",)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.order = "category"
        self.kind = PREFERRED
        self.logarithmic = False
        self.view: RunView | None = None
        self.matrix: Floats = np.zeros((0, 0))
        self.sequence: list[int] = []
        self.ranking: list[tuple[int, int]] = []
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        with Horizontal(id="confusion-body"):
            with Vertical(id="confusion-left"):
                yield Text(id="pair")
                yield (grid := Heatmap(id="grid"))
                yield Legend(grid, id="legend")
            yield Table(COLUMNS, "no pairs yet", id="pairs")

    def enter(self) -> None:
        self.query_one(Heatmap).focus()

    def take(self, view: RunView) -> None:
        self.view = view
        self.show()

    @property
    def confusion(self) -> Confusion | None:
        """The matrix on screen: of the kind chosen, or of the one there is."""
        if self.view is None or not self.view.confusion:
            return None
        kinds = self.view.confusion
        return kinds.get(self.kind) or kinds[sorted(kinds)[0]]

    @property
    def pair(self) -> tuple[int, int]:
        row, column = self.query_one(Heatmap).cursor
        return (self.sequence[row], self.sequence[column]) if self.sequence else (0, 0)

    def show(self) -> None:
        found, view = self.confusion, self.view
        if found is None or view is None or len(view.tasks) != len(found.matrix):
            return
        mark = (id(found), self.order, self.logarithmic)
        if mark == self._shown:
            return
        self._shown = mark
        before = self.pair if self.sequence else None
        tasks = view.tasks
        self.matrix = np.where(found.counts > 0, found.matrix, np.nan)
        self.sequence = list(range(len(tasks)))
        if self.order == "category":
            self.sequence.sort(key=lambda i: (tasks[i].category, tasks[i].subcategory, tasks[i].name))
        else:
            self.sequence.sort(key=lambda i: tasks[i].name)
        grid = self.query_one(Heatmap)
        if before is not None:  # the cursor stays on its pair when the order changes
            grid.cursor = (self.sequence.index(before[0]), self.sequence.index(before[1]))
        ordered = self.matrix[np.ix_(self.sequence, self.sequence)]
        names = [tasks[i].name for i in self.sequence]
        grid.show(ordered, names, [tasks[i].category for i in self.sequence], self.logarithmic)
        self.query_one(Legend).redraw()
        self.ranking = ranked_pairs(self.matrix)
        self.query_one(Table).show(
            [
                Row(
                    f"{a} {b}",
                    (
                        (str(rank), theme.VERY_DIM),
                        (short(float(self.matrix[a, b])), theme.BOLD),
                        (tasks[a].name, theme.PLAIN),
                        (tasks[b].name, theme.PLAIN),
                        (f"{found.counts[a, b]:,}", theme.DIM),
                    ),
                )
                for rank, (a, b) in enumerate(self.ranking[:TOP], start=1)
            ]
        )
        self._show_pair()

    def _show_pair(self) -> None:
        found, view = self.confusion, self.view
        if found is None or view is None or not self.sequence:
            return
        a, b = self.pair
        tasks = view.tasks
        what = {"similarity": "training stream", "similarity/test": "test questions"}.get(found.kind, found.kind)
        kind: Piece = (f"{what} · step {found.step:,} · by {self.order}", theme.DIM)
        names: list[Piece] = [(tasks[a].name, theme.BOLD), (" × ", theme.VERY_DIM), (tasks[b].name, theme.BOLD)]
        value: Piece
        if found.counts[a, b] == 0:
            value = ("never seen together", theme.DIM)
        elif a == b:
            value = (f"{short(float(self.matrix[a, b]))} with itself, {found.counts[a, b]:,} pairs", theme.PLAIN)
        else:
            in_row, total = rank_in_row(self.matrix, a, b), rank_of(self.ranking, a, b)
            value = (
                f"{short(float(self.matrix[a, b]))} · {found.counts[a, b]:,} pairs · rank {in_row} in its row, "
                f"{total} of {len(self.ranking):,}",
                theme.PLAIN,
            )
        where: Piece = (f"  {tasks[a].category} × {tasks[b].category}", theme.VERY_DIM)
        self.query_one(Text).show([("confusion  ", theme.TITLE), kind], [*names, where], [value])

    def on_resize(self, event: events.Resize) -> None:
        """The grid gets what it needs for its largest fitting cells, the list of pairs the rest."""
        grid = 2 * len(self.sequence or [0] * 57) + 26
        grid = grid if event.size.width - grid >= 40 else 62
        width = max(36, min(64, event.size.width - grid - 4))
        self.query_one(Table).styles.width = width if event.size.width >= 110 else "1fr"

    @on(Heatmap.Moved)
    def _moved(self) -> None:
        self._show_pair()

    # Keys ----------------------------------------------------------------------------------------

    def action_jump(self) -> None:
        table = self.query_one(Table)
        if table.has_focus and table.key is not None:
            a, b = (int(index) for index in table.key.split())
            self.query_one(Heatmap).move_to(self.sequence.index(a), self.sequence.index(b))
            self.query_one(Heatmap).focus()

    def action_scale(self) -> None:
        self.logarithmic = not self.logarithmic
        self.show()

    def action_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.show()

    def action_zoom(self) -> None:
        self.query_one(Heatmap).cycle_zoom()

    def action_kind(self) -> None:
        found = self.confusion
        if self.view is not None and found is not None:
            kinds = sorted(self.view.confusion)
            self.kind = kinds[(kinds.index(found.kind) + 1) % len(kinds)]
            self.show()


def ranked_pairs(matrix: Floats) -> list[tuple[int, int]]:
    """Pairs of different tasks, most confused first; of a symmetric matrix each pair once."""
    off: NDArray[np.bool_] = np.isfinite(matrix) & ~np.eye(len(matrix), dtype=bool)
    if np.allclose(matrix, matrix.T, equal_nan=True):
        off &= np.triu(np.ones_like(off), 1)
    rows, columns = np.nonzero(off)
    order = np.argsort(-matrix[rows, columns], kind="stable")
    return [(int(rows[i]), int(columns[i])) for i in order]


def rank_in_row(matrix: Floats, a: int, b: int) -> int:
    """1 for the task that a is confused with most."""
    row = np.where(np.arange(len(matrix)) == a, np.nan, matrix[a])
    return int((row > matrix[a, b]).sum()) + 1


def rank_of(ranking: list[tuple[int, int]], a: int, b: int) -> int:
    """Place of the pair, either way round, in the ranking of all."""
    for rank, pair in enumerate(ranking, start=1):
        if pair == (a, b):
            return rank
    return ranking.index((b, a)) + 1 if (b, a) in ranking else 0
