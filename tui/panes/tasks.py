"""Pane 4: accuracy of each task at the newest evaluation, the events, and the console output."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from tui import theme
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.scale import percent, short
from tui.text import Piece, bar, duration
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Log, Text

BAR_WIDTH = 20
COLUMNS = (
    Column("task", 34, grow=True),
    Column("category", 16, rank=2),
    Column("right", 6, right=True, rank=1),
    Column("of", 6, right=True, rank=1),
    Column("accuracy", 8, right=True),
    Column("±", 5, right=True, rank=3),
    Column("", BAR_WIDTH, rank=4),
)
LEVEL_STYLES = {"warning": Style(color=theme.WARN), "error": theme.ERROR}


class TasksPane(Pane):
    """A sortable table of the tasks beside the events and the console."""

    needs = frozenset({"tasks", "events", "console"})
    scope = "tasks"
    BINDINGS = bindings(scope)
    main_widget = Table
    orders: ClassVar = {  # of (task, n, accuracy or -1, row)
        "accuracy": lambda entry: (-entry[2], entry[0].name),
        "accuracy, worst first": lambda entry: (entry[2], entry[0].name),
        "questions": lambda entry: (-entry[1], entry[0].name),
        "name": lambda entry: entry[0].name,
        "category": lambda entry: (entry[0].category, -entry[2], entry[0].name),
    }
    settings: ClassVar = {"order": list(orders), "chosen_split": None}
    order = "accuracy"
    chosen_split = ""

    def compose(self) -> ComposeResult:
        yield Text(id="evaluation")
        with Horizontal(id="tasks-body"):
            yield Table(COLUMNS, "No evaluation yet.", id="task-table")
            with Vertical(id="logs"):
                yield Log("events", "nothing happened yet", wrap=True, id="events")
                yield Log("console", "nothing was printed yet", id="console")

    def show_view(self, view: RunView) -> None:
        events = []
        for event in view.events:
            level = [(f"{event.level}: ", LEVEL_STYLES[event.level])] if event.level in LEVEL_STYLES else []
            events.append([(f"{duration(event.seconds):>9} ", theme.VERY_DIM), *level, (event.message, theme.PLAIN)])
        self.query_one("#events", Log).show(events)
        self.query_one("#console", Log).show([[(line, theme.DIM)] for line in view.console])
        if not view.task_accuracy or not view.tasks:
            self.query_one(Text).show([("accuracy by task", theme.TITLE)])
            return
        split = self._split(view)
        step, n_K, correct_K = view.task_accuracy[split]
        self.query_one(Table).show(self._rows(view, n_K, correct_K))
        self._show_head(view, split, step)

    def _split(self, view: RunView) -> str:
        """Return the chosen split, or else the test split, or else any."""
        splits = view.task_accuracy
        return next((split for split in (self.chosen_split, "test") if split in splits), min(splits))

    def _rows(self, view: RunView, n_K: NDArray[np.int64], correct_K: NDArray[np.int64]) -> list[Row]:
        entries = []
        for task, n, correct in zip(view.tasks, n_K.tolist(), correct_K.tolist(), strict=False):
            accuracy = correct / n if n else math.nan
            cells: tuple[Piece, ...] = (
                (task.name, theme.PLAIN),
                (task.category, theme.DIM),
                (f"{correct:,}", theme.DIM),
                (f"{n:,}", theme.DIM),
                (percent(accuracy), theme.BOLD),
                (f"{100 * math.sqrt(accuracy * (1 - accuracy) / n):.1f}" if n else "", theme.VERY_DIM),
                (bar(accuracy, BAR_WIDTH), Style(color=theme.ACCENT)),
            )
            entries.append((task, n, accuracy if n else -1.0, Row(task.name, cells)))
        return [row for *_, row in sorted(entries, key=self.orders[self.order])]

    def _show_head(self, view: RunView, split: str, step: int) -> None:
        title: Piece = ("accuracy by task", theme.TITLE)
        summary: list[Piece] = []
        if newest := next((e for e in reversed(view.evaluations) if e.split == split), None):
            accuracy, macro, loss, ece = map(newest.value, ("accuracy", "macro_accuracy", "loss", "ece"))
            summary.append((f"{percent(accuracy)} of {newest.n:,} questions", theme.BOLD))
            if floors := view.floors(split):
                best, floor = max(floors.items(), key=lambda item: item[1])
                above = accuracy > floor
                text = f" · {'above' if above else 'NOT ABOVE'} the floor {percent(floor)} ({best})"
                summary.append((text, theme.PLAIN if above else theme.MARK))
            text = f" · mean over tasks {percent(macro)} · loss {short(loss)} · calibration error {percent(ece)}"
            summary.append((text, theme.DIM))
        self.query_one(Text).show([title, (f"  {split} · step {step:,} · by {self.order}", theme.DIM)], summary)

    @on(Listing.HeadClicked)
    def _sort_by_head(self, event: Listing.HeadClicked) -> None:
        column = self.query_one(Table).column_at(event.x)
        orders = {
            "task": ("name",),
            "category": ("category",),
            "of": ("questions",),
            "accuracy": tuple(self.orders)[:2],
        }
        if column is not None and (choices := orders.get(column.title)):
            self.order = next_choice(choices, self.order) if self.order in choices else choices[0]
            self.show()

    def action_split(self) -> None:
        if self.view is not None and self.view.task_accuracy:
            self.chosen_split = next_choice(sorted(self.view.task_accuracy), self._split(self.view))
            self.show()
