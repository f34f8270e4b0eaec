"""Pane 3: how much the tasks are confused with each other, as a heatmap and as a ranking of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Input

from accl.store.query import Comparison
from accl.store.reader import Confusion
from tui import theme
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.matrix import (
    SCALES,
    cluster_order,
    compact,
    found,
    is_symmetric,
    rank_in_row,
    rank_of,
    ranked_pairs,
    rows_to_one,
)
from tui.messages import ShowQuestions
from tui.panes.matrices import KIND_NAMES, History, Matrices, Reference, known
from tui.panes.pair import PAIR_COLUMNS, over_time, pair_rows, question_lines, signed, value_text, weights_text
from tui.panes.pane import Pane
from tui.panes.recall import Recall
from tui.raster import Floats
from tui.text import Piece
from tui.widgets.filter import Filter
from tui.widgets.heatmap import Heatmap
from tui.widgets.legend import Legend
from tui.widgets.listing import Listing
from tui.widgets.table import Table
from tui.widgets.text import Text

MAX_PAIRS = 100
MAX_QUESTIONS = 4
FRAMES = 60  # of a play through time, at most
FRAME_S = 0.2
DIFFERENCES = ("run", "moment", "none")
LEAST_WIDTH = 72


class ConfusionPane(Pane):
    """The confusion matrix of a kind at a moment, below the diagonal its difference to another run or moment.

    Attributes:
        kind: chosen kind; empty for the test questions as soon as there are any, and for the training stream before.
        step: chosen moment; None for the newest.
        difference: what stands below the diagonal.
        reference: id of the run of the difference; empty for the baseline, or the oldest, of the same seed.
        base_step: moment of the difference; None for the first.
        by_rows: whether each row is divided by its sum.
        scale: kind of the colour scale.
        confusion: what is drawn.
        matrix: its K x K values as they are drawn, in the order of the tasks; NaN for pairs that never met.
        task_order: task indices in the order of the heatmap's rows.
        ranking: pairs of task indices, most confused first.
    """

    needs = frozenset({"confusion", "curriculum"})
    scope = "confusion"
    BINDINGS = bindings(scope)
    main_widget = Heatmap
    orders: ClassVar = dict.fromkeys(("category", "name", "cluster"), str)
    settings: ClassVar = {
        "order": list(orders),
        "kind": None,
        "scale": SCALES,
        "difference": DIFFERENCES,
        "reference": None,
        "by_rows": (False, True),
    }
    order = "category"
    kind = ""
    scale = SCALES[0]
    difference = DIFFERENCES[0]
    reference = ""
    by_rows = False
    step: int | None = None
    base_step: int | None = None
    confusion: Confusion | None = None
    matrix: Floats = np.zeros((0, 0))
    task_order: Sequence[int] = ()
    ranking: Sequence[tuple[int, int]] = ()
    _is_symmetric = True
    _names: Sequence[str] = ()
    _base: Reference | None = None
    _history = History()
    _drawn: tuple[object, ...] = ()
    _timer: Timer | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._recall = Recall(self, self.show)
        self._matrices = Matrices(self._recall)

    def compose(self) -> ComposeResult:
        with Horizontal(id="confusion-body"):
            with Vertical(id="confusion-left"):
                yield Text(id="pair")
                yield (grid := Heatmap(id="grid"))
                yield Legend(grid, id="legend")
                yield Filter("row, or row and column: part of their names", id="find")
            with Vertical(id="confusion-side"):
                yield Text(id="pair-detail")
                yield Table(PAIR_COLUMNS, "no pairs yet", id="pairs")

    @property
    def pending(self) -> str:
        return "matrices that are being read" if self._recall.is_pending else ""

    @property
    def pair(self) -> tuple[int, int]:
        """Task indices of the cell at the cursor."""
        row, column = self.query_one(Heatmap).cursor
        return (self.task_order[row], self.task_order[column]) if self.task_order else (0, 0)

    @property
    def moments(self) -> Sequence[int]:
        """Steps of the matrices of the kind that is shown."""
        if self.view is None or self.confusion is None:
            return ()
        return self.view.confusion_steps.get(self.confusion.kind, ())

    # What the keys can do now, see `tui.commands`.

    @property
    def has_moments(self) -> bool:
        return len(self.moments) > 1

    @property
    def has_earlier(self) -> bool:
        return self.has_moments and self.step != self.moments[0]

    @property
    def has_later(self) -> bool:
        return self.has_moments and self.step is not None

    @property
    def has_base(self) -> bool:
        return self.view is not None and (self.difference == "moment" or self._matrices.references(self.view, "") != [])

    @property
    def has_kinds(self) -> bool:
        return self.view is not None and len(self.view.confusion) > 1

    @property
    def shows_list(self) -> bool:
        return not any(map(self.screen.has_class, ("-narrow", "-no-side")))

    def update_view(self, view: RunView) -> None:
        self._recall.forget_problems()
        super().update_view(view)

    def show_view(self, view: RunView) -> None:
        kind, matrices = Matrices.kind(view, self.kind), self._matrices
        if not kind or len(view.tasks) != len(view.confusion[kind].matrix):
            grid = self.query_one(Heatmap)
            grid.otherwise = "no confusion measured yet"
            grid.redraw()
            return
        confusion = matrices.at(view, kind, self.step)
        if confusion is not None:  # else it is being read, and what is shown stays
            self.confusion, self._names = confusion, [task.name for task in view.tasks]
            self._base = matrices.base(view, confusion, self.difference, self.reference, self.base_step)
            self._history = matrices.history(view, kind)
            base = (self.reference, self._base and self._base.label)
            content = (id(confusion), base, self.order, self.scale, self.by_rows)
            if content != self._drawn:
                self._drawn = content
                self._draw(view, confusion)
        self._show_pair()

    def _draw(self, view: RunView, confusion: Confusion) -> None:
        pair = self.pair if self.task_order else None  # the cursor stays on its pair when the order changes
        tasks, base = view.tasks, self._base
        other = base.of(self._names) if base and base.names else None
        self.matrix = known(confusion)
        if self.by_rows:
            self.matrix, other = rows_to_one(self.matrix), None if other is None else rows_to_one(other)
        change = None if other is None else self.matrix - other
        self.task_order = self._ordered(view)
        grid, index = self.query_one(Heatmap), np.ix_(self.task_order, self.task_order)
        groups = [tasks[i].category for i in self.task_order] if self.order == "category" else []
        # Only a matrix whose triangles say the same leaves one of them free.
        self._is_symmetric = is_symmetric(self.matrix)
        lower = change[index] if change is not None and self._is_symmetric else None
        self.ranking = ranked_pairs(self.matrix)
        if pair is not None:
            grid.cursor = (self.task_order.index(pair[0]), self.task_order.index(pair[1]))
        elif self.ranking:
            grid.cursor = self._place(*self.ranking[0])
        grid.show(self.matrix[index], [self._names[i] for i in self.task_order], groups, self.scale, lower)
        legend = self.query_one(Legend)
        legend.titles = ("upper" if lower is not None else "", "lower")
        legend.redraw()
        rows = pair_rows(self.ranking[:MAX_PAIRS], self.matrix, change, confusion.counts, self._names)
        self.query_one(Table).show(rows)

    def _ordered(self, view: RunView) -> list[int]:
        """Return the task indices in the order that was chosen; clusters are those of the newest matrix."""
        tasks = view.tasks
        if self.order == "cluster":
            return cluster_order(known(view.confusion[Matrices.kind(view, self.kind)]))
        if self.order == "name":
            return sorted(range(len(tasks)), key=lambda i: tasks[i].name)
        return sorted(range(len(tasks)), key=lambda i: (tasks[i].category, tasks[i].subcategory, tasks[i].name))

    @on(Heatmap.CursorMoved)
    def _show_pair(self) -> None:
        confusion, view = self.confusion, self.view
        if confusion is None or view is None:
            return
        a, b = self.pair
        value: list[Piece] = [(value_text(confusion, a, b), theme.BOLD)]
        if self.by_rows:
            value.append((f" · {compact(self.matrix[a, b])} of its row", theme.PLAIN))
        if self._base is not None and self._base.names:
            other = float(self._base.of(self._names)[a, b])
            change = float(known(confusion)[a, b]) - other
            value.append((f" · {self._base.label} {compact(other)} ({signed(change)})", theme.PLAIN))
        if a != b and (overall := rank_of(self.ranking, a, b)):
            in_row = rank_in_row(self.matrix, a, b)
            value.append((f" · rank {overall:,} of {len(self.ranking):,}, {in_row} in its row", theme.DIM))
        self.query_one("#pair", Text).show(
            self._head(view, confusion),
            [(self._names[a], theme.BOLD), (" × ", theme.VERY_DIM), (self._names[b], theme.BOLD)],
            value,
        )
        history = over_time(self._history, a, b)
        between = self._matrices.taken(view).get(frozenset((a, b)), [])
        found_text = f"test questions of one that are nearest to the other: {len(between)}" if between else ""
        self.query_one("#pair-detail", Text).show(
            [("over time  ", theme.VERY_DIM), *history] if history else [],
            [(weights_text(view, a, b, confusion.step), theme.DIM)],
            [(found_text, theme.DIM), ("  enter: all", theme.VERY_DIM)] if between else [],
            *question_lines(between[:MAX_QUESTIONS], self._names),
        )

    def _head(self, view: RunView, confusion: Confusion) -> list[Piece]:
        """Return kind and moment, and what the triangles are."""
        kind, steps = confusion.kind, view.confusion_steps[confusion.kind]
        head: list[Piece] = [(KIND_NAMES.get(kind, kind), theme.TITLE), (" · step ", theme.DIM)]
        earlier, later = "◂ " * (confusion.step > steps[0]), " ▸" * (confusion.step < steps[-1])
        head.append((f"{earlier}{confusion.step:,}{later}", theme.BOLD))
        if self._timer is not None:
            head.append((" playing", theme.MARK))
        if self._base is not None and self._base.names:
            where = "lower: " if self.query_one(Heatmap).lower is not None else ""
            head.append((f" · {where}minus {self._base.label}", theme.DIM))
        head.append((f" · by {self.order}", theme.VERY_DIM))
        if (problem := self._recall.problem) is not None:
            head.append((f" · {problem.kind}: {problem}", theme.ERROR))
        return head

    def on_resize(self, event: events.Resize) -> None:
        """Give the grid the width of its cells and of names beside them, and the rest to what stands at the side."""
        slots, height = len(self.query_one(Heatmap).slots) or 60, event.size.height
        # However few tasks there are, the lines above the grid have to be read.
        grid_width = max(LEAST_WIDTH, slots * (2 if slots < height - 4 else 1) + 30)
        width = max(36, min(72, event.size.width - grid_width - 2))
        self.query_one("#confusion-side").styles.width = width if event.size.width >= 106 else "1fr"

    @on(Listing.Chosen)
    def action_jump(self) -> None:
        table = self.query_one(Table)
        if not table.has_focus:
            names = tuple(self._names[i] for i in self.pair) if self._names else ()
            if names:
                self.post_message(ShowQuestions(str(Comparison("pair", ":", names, (None, None), pair=True))))
        elif table.key is not None:
            self._move_to(*(int(index) for index in table.key.split()))
            self.focus_main_widget()

    def _move_to(self, a: int, b: int) -> None:
        """Put the cursor on a pair of tasks."""
        self.query_one(Heatmap).move_to(*self._place(a, b))

    def _place(self, a: int, b: int) -> tuple[int, int]:
        """Return row and column of a pair of tasks, above the diagonal where both triangles say the same."""
        row, column = self.task_order.index(a), self.task_order.index(b)
        return (min(row, column), max(row, column)) if self._is_symmetric else (row, column)

    def action_rank(self, ranks: int) -> None:
        if self.ranking:
            rank = rank_of(self.ranking, *self.pair) - 1
            start = -1 if rank < 0 < ranks else max(rank, 0)
            self._move_to(*self.ranking[(start + ranks) % len(self.ranking)])

    def action_find(self) -> None:
        self.query_one("#find", Filter).open()

    @on(Input.Changed, "#find")
    def _go_to_typed(self, event: Input.Changed) -> None:
        """Move to the row of the first word that was typed and to the column of the second."""
        event.stop()
        grid = self.query_one(Heatmap)
        at = [found(grid.names, word) for word in event.value.split()[:2]]
        row, column = (place if place is not None else now for place, now in zip_longest(at, grid.cursor))
        grid.move_to(row, column)

    @on(Filter.Closed)
    def _leave_find(self) -> None:
        line = self.query_one("#find", Filter)
        line.value, line.display = "", False
        self.focus_main_widget()

    def action_scrub(self, matrices: int) -> None:
        """Show a matrix so many earlier or later; the newest again follows the run."""
        if not (steps := self.moments):
            return
        now = self.step if self.step in steps else steps[-1]
        at = max(0, steps.index(now) + matrices)
        self.step = steps[at] if at < len(steps) - 1 else None
        self.show()

    def action_play(self) -> None:
        if self._timer is not None:
            self._pause()
        elif self.moments:
            if self.step is None:
                self.step = self.moments[0]
            self._timer = self.set_interval(FRAME_S, self._advance)
        self.show()

    def _pause(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _advance(self) -> None:
        """Show the next matrix of a play, once the one before is there."""
        if not self._recall.is_pending and self.moments:
            if self.step is None or not self.display:
                self._pause()
                self.show()
            else:
                self.action_scrub(max(1, len(self.moments) // FRAMES))

    def peel(self) -> bool:
        if self._timer is None and self.step is None:
            return False
        self._pause()
        self.step = None
        self.show()
        return True

    def action_scale(self) -> None:
        self.scale = next_choice(SCALES, self.scale)
        self.show()

    def action_rows(self) -> None:
        self.by_rows = not self.by_rows
        self.show()

    def action_zoom(self) -> None:
        self.query_one(Heatmap).cycle_zoom()

    def action_numbers(self) -> None:
        self.query_one(Heatmap).toggle_numbers()

    def action_kind(self) -> None:
        if self.view is not None and self.confusion is not None:
            self.kind = next_choice(sorted(self.view.confusion), self.confusion.kind)
            self.step = None
            self.show()

    def action_difference(self) -> None:
        self.difference = next_choice(DIFFERENCES, self.difference)
        self.show()

    def action_base(self) -> None:
        """Compare with the next run, or, where the difference is to a moment, with the one that is shown."""
        if self.view is None or self.confusion is None:
            return
        if self.difference == "moment":
            self.base_step = self.confusion.step
        elif others := self._matrices.references(self.view, ""):
            ids = ["", *(run.id for run, _ in others[1:])]
            self.reference = next_choice(ids, self.reference if self.reference in ids else "")
            self.difference = "run"
        self.show()
