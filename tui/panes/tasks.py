"""Pane 4: accuracy of each task at the newest evaluation, what happened, and what the process said."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from tui import theme
from tui.feed import RunView
from tui.keys import bindings
from tui.panes.pane import Pane
from tui.scale import percent, short
from tui.text import Piece, bar, duration
from tui.widgets.frame import Log, Text
from tui.widgets.table import Column, Row, Table

ORDERS = ("accuracy", "accuracy, worst first", "questions", "name", "category")
BAR = 20
COLUMNS = (
    Column("task", 34, grow=True),
    Column("category", 16, rank=2),
    Column("right", 6, right=True, rank=1),
    Column("of", 6, right=True, rank=1),
    Column("accuracy", 8, right=True),
    Column("±", 5, right=True, rank=3),
    Column("", BAR, rank=4),
)
LEVEL_STYLES = {"warning": Style(color=theme.WARN), "error": theme.ERROR}


class TasksPane(Pane):
    """A sortable table of tasks beside the events and the console."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("tasks")
    keys = ("tasks",)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.order = ORDERS[0]
        self.split = ""
        self.view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="evaluation")
        with Horizontal(id="tasks-body"):
            yield Table(COLUMNS, "No evaluation yet.", id="task-table")
            with Vertical(id="logs"):
                yield Log("events", "nothing happened yet", wrap=True, id="events")
                yield Log("console", "nothing was printed yet", id="console")

    def enter(self) -> None:
        self.query_one(Table).focus()

    def take(self, view: RunView) -> None:
        self.view = view
        self.show()

    def show(self) -> None:
        view = self.view
        if view is None:
            return
        self.query_one("#events", Log).show(
            [
                [(f"{duration(event.seconds):>9} ", theme.VERY_DIM)]
                + ([(f"{event.level}: ", LEVEL_STYLES[event.level])] if event.level in LEVEL_STYLES else [])
                + [(event.message, theme.PLAIN)]
                for event in view.events
            ]
        )
        self.query_one("#console", Log).show([[(line, theme.DIM)] for line in view.console])
        splits = sorted(view.task_accuracy)
        if not splits or not view.tasks:
            self.query_one(Text).show([("accuracy by task", theme.TITLE)])
            return
        # The final word when there is one, otherwise what there is.
        split = self.split if self.split in splits else ("test" if "test" in splits else splits[0])
        step, n_K, correct_K = view.task_accuracy[split]
        self.query_one(Table).show(self._rows(view, n_K, correct_K))
        self._show_head(view, split, step)

    def _rows(self, view: RunView, n_K: NDArray[np.int64], correct_K: NDArray[np.int64]) -> list[Row]:
        found = []
        for i, task in enumerate(view.tasks):
            n, right = int(n_K[i]), int(correct_K[i])
            share = right / n if n else float("nan")
            error = (share * (1 - share) / n) ** 0.5 if n else float("nan")
            cells: tuple[Piece, ...] = (
                (task.name, theme.PLAIN),
                (task.category, theme.DIM),
                (f"{right:,}", theme.DIM),
                (f"{n:,}", theme.DIM),
                (percent(share), theme.BOLD),
                (f"{error * 100:.1f}" if n else "", theme.VERY_DIM),
                (bar(share, BAR), Style(color=theme.ACCENT)),
            )
            found.append((task, n, share if n else -1.0, Row(task.name, cells)))
        key = {
            "accuracy": lambda e: (-e[2], e[0].name),
            "accuracy, worst first": lambda e: (e[2], e[0].name),
            "questions": lambda e: (-e[1], e[0].name),
            "name": lambda e: e[0].name,
            "category": lambda e: (e[0].category, -e[2], e[0].name),
        }[self.order]
        return [entry[3] for entry in sorted(found, key=key)]

    def _show_head(self, view: RunView, split: str, step: int) -> None:
        head: list[Piece] = [
            ("accuracy by task", theme.TITLE),
            (f"  {split} · step {step:,} · by {self.order}", theme.DIM),
        ]
        newest = next((e for e in reversed(view.evaluations) if e.split == split), None)
        if newest is None:
            self.query_one(Text).show(head)
            return
        facts: list[Piece] = [(f"{percent(newest.value('accuracy'))} of {newest.n:,} questions", theme.BOLD)]
        floors = view.floors(split)
        if floors:
            best = max(floors, key=lambda name: floors[name])
            above = newest.value("accuracy") > floors[best]
            facts.append(
                (
                    f" · {'above' if above else 'NOT ABOVE'} the floor {percent(floors[best])} ({best})",
                    theme.PLAIN if above else Style(color=theme.WARN, bold=True),
                )
            )
        facts.append(
            (
                f" · mean over tasks {percent(newest.value('macro_accuracy'))} · loss {short(newest.value('loss'))} · "
                f"calibration error {percent(newest.value('ece'))}",
                theme.DIM,
            )
        )
        self.query_one(Text).show(head, facts)

    def action_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.show()

    def action_split(self) -> None:
        if self.view is not None and self.view.task_accuracy:
            splits = sorted(self.view.task_accuracy)
            now = self.split if self.split in splits else ("test" if "test" in splits else splits[0])
            self.split = splits[(splits.index(now) + 1) % len(splits)]
            self.show()
