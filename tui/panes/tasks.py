"""Pane 4: accuracy of each task in the test, and in the validation of the same weights, with what chance leaves open.

Before the test it is the newest validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult

from accl.analysis.stats import wilson
from accl.store.reader import Task
from accl.text import printable
from tui import theme
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.messages import ShowQuestions
from tui.panes.pane import Pane
from tui.scale import percent, short
from tui.text import Piece
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Text

SPLITS = {"validation": "val", "test": "test"}  # with the words in the heads of the columns
NO_FLOOR = math.nan


@dataclass(frozen=True)
class Score:
    """Right answers to n questions, and the 95 % interval of their share; all NaN where nothing was asked."""

    n: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float:
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.n) if self.n else (math.nan, math.nan)


@dataclass(frozen=True)
class Entry:
    """A task with its scores by split."""

    task: Task
    scores: Mapping[str, Score]


def _by_score(split: str, value: Callable[[Score], float]) -> Callable[[Entry], float]:
    return lambda entry: value(entry.scores.get(split, Score()))


SORTS: dict[str, Callable[[Entry], Any]] = {
    "task": lambda entry: entry.task.name,
    "category": lambda entry: entry.task.category,
    **{
        title: _by_score(split, value)
        for split, word in SPLITS.items()
        for title, value in (
            (f"{word} n", lambda score: score.n or math.nan),
            (word, lambda score: score.accuracy),
            (f"{word} 95 %", lambda score: score.interval[0]),
        )
    },
}


class TasksPane(Pane):
    """A table of the tasks, worst first."""

    needs = frozenset({"tasks"})
    scope = "tasks"
    BINDINGS = bindings(scope)
    main_widget = Table
    settings: ClassVar = {"order": [title + arrow for title in SORTS for arrow in "▲▼"]}
    order = "test▲"
    bar_width = 20

    def compose(self) -> ComposeResult:
        yield Text(id="evaluation")
        yield Table((), "reading …", id="task-table")

    def show_view(self, view: RunView) -> None:
        splits = [split for split in SPLITS if split in view.task_accuracy] if view.tasks else []
        by = f"  by {self.order[:-1]}, {'lowest' if self.order[-1] == '▲' else 'highest'} first"
        head: list[Piece] = [("accuracy by task", theme.TITLE), (by, theme.DIM)]
        self.query_one("#evaluation", Text).show(head, *(_summary(view, split) for split in splits))
        if not splits:
            self.query_one(Table).show([], "" if view.problem else "No evaluation yet.")
            return
        counts = {split: list(zip(*map(list, view.task_accuracy[split][1:]), strict=True)) for split in splits}
        entries = [
            Entry(task, {split: Score(*map(int, counts[split][i])) for split in splits if i < len(counts[split])})
            for i, task in enumerate(view.tasks)
        ]
        table = self.query_one(Table)
        columns = self._columns(splits)
        if table.columns != columns:
            table.columns = columns
            table.redraw()
        table.sorted_by = self.order
        floors = {split: max(view.floors(split).values(), default=NO_FLOOR) for split in splits}
        table.show([self._row(entry, floors) for entry in self._sorted(entries, splits)])

    def _columns(self, splits: list[str]) -> list[Column]:
        """Return the columns; the last split, which is the test if there was one, keeps its own for longest."""
        columns = [Column("task", 34, grow=True), Column("category", 16, rank=5)]
        for split in splits:
            word, main = SPLITS[split], split == splits[-1]
            columns += [
                Column(f"{word} n", 6, right=True, rank=4 if main else 8),
                Column(word, 7, right=True, rank=0 if main else 1),
                Column(f"{word} 95 %", 10, right=True, rank=3 if main else 6),
                Column(f"0{'100':>{self.bar_width - 1}}", self.bar_width, rank=2 if main else 7),
            ]
        return columns

    def _row(self, entry: Entry, floors: Mapping[str, float]) -> Row:
        cells: list[Piece] = [(entry.task.name, theme.PLAIN), (entry.task.category, theme.DIM)]
        for split, floor in floors.items():
            score = entry.scores.get(split, Score())
            low, high = score.interval
            style = theme.MARK if high < floor else theme.DIM if low <= floor else Style(color=theme.ACCENT)
            cells += [
                (f"{score.n:,}" if score.n else "", theme.DIM),
                (percent(score.accuracy).removesuffix(" %"), theme.BOLD),
                (_interval(score), theme.DIM),
                (whiskers(score, floor, self.bar_width), style),
            ]
        return Row(str(entry.task.index), tuple(cells))

    def _sorted(self, entries: list[Entry], splits: list[str]) -> list[Entry]:
        """Sort by the order, and what that leaves open by the accuracy; what is not known comes last."""
        by_accuracy = _by_score(splits[-1], lambda score: score.accuracy if score.n else math.inf)
        entries = sorted(entries, key=lambda entry: (by_accuracy(entry), entry.task.name))
        value, descending = SORTS[self.order[:-1]], self.order[-1] == "▼"
        known = [entry for entry in entries if value(entry) == value(entry)]
        unknown = [entry for entry in entries if value(entry) != value(entry)]
        return sorted(known, key=value, reverse=descending) + unknown

    def on_resize(self, event: events.Resize) -> None:
        """Give the bars the room that the other columns leave."""
        self.bar_width = max(12, min(40, (event.size.width - 114) // 2))
        self.show()

    @on(Listing.HeadClicked)
    def _sort_by_head(self, event: Listing.HeadClicked) -> None:
        """Sort by the column clicked: ascending, then descending."""
        column = self.query_one(Table).column_at(event.x)
        if column is not None and column.title in SORTS:
            self.order = f"{column.title}{'▼' if self.order == f'{column.title}▲' else '▲'}"
            self.show()

    def action_order(self) -> None:
        shown = [column.title for column in self.query_one(Table).columns if column.title in SORTS]
        choices = [f"{title}▲" for title in shown or SORTS]
        order = self.order.replace("▼", "▲")
        self.order = next_choice(choices, order) if order in choices else choices[0]
        self.show()

    def action_reverse(self) -> None:
        self.order = self.order[:-1] + ("▲" if self.order[-1] == "▼" else "▼")
        self.show()

    @on(Listing.Chosen)
    def action_questions(self) -> None:
        if self.view is not None and (key := self.query_one(Table).key) is not None:
            name = printable(self.view.tasks[int(key)].name).replace('"', '""')
            self.post_message(ShowQuestions(f'task="{name}" wrong'))


def _summary(view: RunView, split: str) -> list[Piece]:
    """Say what an evaluation found in all, and of which weights."""
    step, n_K, correct_K = view.task_accuracy[split]
    score = Score(int(n_K.sum()), int(correct_K.sum()))
    unknown_weights = split == "test" and view.tested_step is None
    pieces: list[Piece] = [
        (f"{split:<11}", theme.PLAIN),
        (percent(score.accuracy), theme.BOLD),
        (f" [{_interval(score)}] n {score.n:,}", theme.PLAIN),
        (f" · {'recorded at' if unknown_weights else 'weights of'} step {step:,}", theme.PLAIN),
    ]
    if floors := view.floors(split):
        name, floor = max(floors.items(), key=lambda item: item[1])
        above = score.interval[0] > floor
        text = f" · {'above' if above else 'NOT ABOVE'} ╎ {percent(floor)} {name}"
        pieces.append((text, theme.PLAIN if above else theme.MARK))
    whole = next((e for e in reversed(view.evaluations) if (e.split, e.step) == (split, step)), None)
    if whole is not None:
        macro, loss, ece = map(whole.value, ("macro_accuracy", "loss", "ece"))
        text = f" · mean over tasks {percent(macro)} · loss {short(loss)} · calibration error {percent(ece)}"
        pieces.append((text, theme.DIM))
    return pieces


def _interval(score: Score) -> str:
    low, high = score.interval
    return f"{100 * low:.1f}–{100 * high:.1f}" if score.n else ""


def whiskers(score: Score, floor: float, width: int) -> str:
    """Draw an accuracy on a scale from 0 to 100 % of ``width`` cells, with the floor as ``╎``.

    The bar goes up to the lower end of the 95 % interval, a thin line from there to the upper end, and ``●`` is where
    the accuracy itself is.
    """
    if not score.n:
        return ""
    low, here, high = (round(share * width) for share in (score.interval[0], score.accuracy, score.interval[1]))
    cells = list(("━" * low + "─" * (high - low)).ljust(width))
    cells[max(0, high - 1)] = "┤"
    if 0 <= floor <= 1:
        cells[min(width - 1, int(floor * width))] = "╎"
    cells[max(0, here - 1)] = "●"
    return "".join(cells)
