"""Pane 3: similarity of the tasks to the encoder, as a heatmap and as a ranking of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from accl.store.reader import Confusion, Task
from tui import theme
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.raster import Floats
from tui.scale import short
from tui.text import Piece
from tui.widgets.heatmap import Heatmap, Legend
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Text

MAX_PAIRS = 100
PREFERRED_KIND = "similarity/test"
KIND_NAMES = {"similarity": "training stream", "similarity/test": "test questions"}
COLUMNS = (
    Column("#", 3, right=True),
    Column("value", 7, right=True),
    Column("task", 26, grow=True),
    Column("confused with", 26, grow=True),
    Column("pairs", 9, right=True, rank=1),
)


class ConfusionPane(Pane):
    """The confusion matrix in the chosen order of tasks.

    Attributes:
        confusion: what is drawn: the chosen kind, or another if that was not measured.
        matrix: K x K in the order of `tasks`, NaN for pairs that never met.
        task_order: task indices in the order of the heatmap's rows.
        ranking: pairs of task indices, most confused first.
    """

    needs = frozenset({"confusion"})
    scope = "confusion"
    BINDINGS = bindings(scope)
    main_widget = Heatmap
    orders: ClassVar = {"category": attrgetter("category", "subcategory", "name"), "name": attrgetter("name")}
    settings: ClassVar = {"order": list(orders), "kind": None, "log_scale": (False, True)}
    order = "category"
    kind = PREFERRED_KIND
    log_scale = False
    confusion: Confusion | None = None
    tasks: Sequence[Task] = ()
    matrix: Floats = np.zeros((0, 0))
    task_order: Sequence[int] = ()
    ranking: Sequence[tuple[int, int]] = ()
    _drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        with Horizontal(id="confusion-body"):
            with Vertical(id="confusion-left"):
                yield Text(id="pair")
                yield (grid := Heatmap(id="grid"))
                yield Legend(grid, id="legend")
            yield Table(COLUMNS, "no pairs yet", id="pairs")

    @property
    def pair(self) -> tuple[int, int]:
        """Task indices of the cell at the cursor."""
        row, column = self.query_one(Heatmap).cursor
        return (self.task_order[row], self.task_order[column]) if self.task_order else (0, 0)

    def show_view(self, view: RunView) -> None:
        kinds, tasks = view.confusion, view.tasks
        confusion = (kinds.get(self.kind) or kinds[min(kinds)]) if kinds else None
        if confusion is None or len(tasks) != len(confusion.matrix):
            return
        self.confusion, self.tasks = confusion, tasks
        content = (id(confusion), self.order, self.log_scale)
        if content == self._drawn:
            return
        self._drawn = content
        pair = self.pair if self.task_order else None
        self.matrix = np.where(confusion.counts > 0, confusion.matrix, np.nan)
        self.task_order = sorted(range(len(tasks)), key=lambda i: self.orders[self.order](tasks[i]))
        grid = self.query_one(Heatmap)
        if pair is not None:  # the cursor stays on its pair when the order changes
            grid.cursor = (self.task_order.index(pair[0]), self.task_order.index(pair[1]))
        ordered = [tasks[i] for i in self.task_order]
        matrix = self.matrix[np.ix_(self.task_order, self.task_order)]
        grid.show(matrix, [task.name for task in ordered], [task.category for task in ordered], self.log_scale)
        self.query_one(Legend).redraw()
        self.ranking = ranked_pairs(self.matrix)
        rows = []
        for rank, (a, b) in enumerate(self.ranking[:MAX_PAIRS], start=1):
            names: list[Piece] = [(tasks[a].name, theme.PLAIN), (tasks[b].name, theme.PLAIN)]
            value, count = short(float(self.matrix[a, b])), f"{confusion.counts[a, b]:,}"
            cells = ((str(rank), theme.VERY_DIM), (value, theme.BOLD), *names, (count, theme.DIM))
            rows.append(Row(f"{a} {b}", cells))
        self.query_one(Table).show(rows)
        self._show_pair()

    @on(Heatmap.CursorMoved)
    def _show_pair(self) -> None:
        confusion, tasks = self.confusion, self.tasks
        if confusion is None:
            return
        a, b = self.pair
        count, number = confusion.counts[a, b], short(float(self.matrix[a, b]))
        kind = KIND_NAMES.get(confusion.kind, confusion.kind)
        value = f"{number} with itself, {count:,} pairs"
        if a != b:
            in_row, overall = rank_in_row(self.matrix, a, b), rank_of(self.ranking, a, b)
            value = f"{number} · {count:,} pairs · rank {in_row} in its row, {overall} of {len(self.ranking):,}"
        self.query_one(Text).show(
            [("confusion  ", theme.TITLE), (f"{kind} · step {confusion.step:,} · by {self.order}", theme.DIM)],
            [
                (tasks[a].name, theme.BOLD),
                (" × ", theme.VERY_DIM),
                (tasks[b].name, theme.BOLD),
                (f"  {tasks[a].category} × {tasks[b].category}", theme.VERY_DIM),
            ],
            [(value, theme.PLAIN) if count else ("never seen together", theme.DIM)],
        )

    def on_resize(self, event: events.Resize) -> None:
        """Give the heatmap the width of its largest fitting cells, and the list of pairs the rest."""
        grid_width = 2 * (len(self.task_order) or 57) + 26
        if event.size.width - grid_width < 40:
            grid_width = 62
        width = max(36, min(64, event.size.width - grid_width - 4))
        self.query_one(Table).styles.width = width if event.size.width >= 110 else "1fr"

    @on(Listing.Chosen)
    def action_jump(self) -> None:
        table = self.query_one(Table)
        if table.has_focus and table.key is not None:
            row, column = (self.task_order.index(int(index)) for index in table.key.split())
            self.query_one(Heatmap).move_to(row, column)
            self.focus_main_widget()

    def action_scale(self) -> None:
        self.log_scale = not self.log_scale
        self.show()

    def action_zoom(self) -> None:
        self.query_one(Heatmap).cycle_zoom()

    def action_kind(self) -> None:
        if self.view is not None and self.confusion is not None:
            self.kind = next_choice(sorted(self.view.confusion), self.confusion.kind)
            self.show()


def ranked_pairs(matrix: Floats) -> list[tuple[int, int]]:
    """Return the pairs of different tasks, most confused first; each pair once if the matrix is symmetric."""
    off_diagonal: NDArray[np.bool_] = np.isfinite(matrix) & ~np.eye(len(matrix), dtype=bool)
    if np.allclose(matrix, matrix.T, equal_nan=True):
        off_diagonal &= np.triu(np.ones_like(off_diagonal), 1)
    rows, columns = np.nonzero(off_diagonal)
    order = np.argsort(-matrix[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def rank_in_row(matrix: Floats, a: int, b: int) -> int:
    """Return the rank of b among the tasks that a is confused with; 1 is the most confused."""
    row = np.where(np.arange(len(matrix)) == a, np.nan, matrix[a])
    return int((row > matrix[a, b]).sum()) + 1


def rank_of(ranking: Sequence[tuple[int, int]], a: int, b: int) -> int:
    """Return the rank of the pair, in either order, or 0 if it is not in the ranking."""
    return next((ranking.index(pair) + 1 for pair in ((a, b), (b, a)) if pair in ranking), 0)
