"""Pane 2: the task distribution that the curriculum samples from."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType

from tui import theme
from tui.feed import RunView
from tui.keys import bindings
from tui.panes.pane import Pane
from tui.raster import Floats
from tui.scale import percent
from tui.text import Piece
from tui.widgets.bars import Bar, Bars
from tui.widgets.frame import Text

ORDERS = ("weight", "category", "name")
TREND = 16


class CurriculumPane(Pane):
    """Weights of the K tasks as bars."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("curriculum")
    keys = ("curriculum",)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.order = "weight"
        self.view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="policy")
        yield Bars(id="weights")

    def enter(self) -> None:
        self.query_one(Bars).focus()

    def take(self, view: RunView) -> None:
        self.view = view
        self.show()

    def show(self) -> None:
        view = self.view
        if view is None or not view.tasks or not view.curriculum:
            self.query_one(Bars).show([], 0.0)
            self.query_one(Text).show([("task weights", theme.TITLE)])
            return
        newest = view.curriculum[-1]
        history = np.stack([entry.weights for entry in view.curriculum[-TREND:]])
        bars = [
            Bar(task.name, task.category, float(newest.weights[i]), int(newest.drawn[i]), tuple(history[:, i].tolist()))
            for i, task in enumerate(view.tasks)
        ]
        key = {
            "weight": lambda bar: (-bar.value, bar.name),
            "category": lambda bar: (bar.group, -bar.value, bar.name),
            "name": lambda bar: bar.name,
        }[self.order]
        self.query_one(Bars).show(sorted(bars, key=key), 1.0 / len(bars))
        head: list[Piece] = [
            ("task weights", theme.TITLE),
            (f"  policy {newest.policy} · since step {newest.step:,} · by {self.order}", theme.PLAIN),
        ]
        facts: list[Piece] = [
            (
                f"uniform 1/{len(bars)} = {percent(1 / len(bars))} · largest ×{newest.weights.max() * len(bars):.2f} · "
                f"smallest ×{newest.weights.min() * len(bars):.2f} · "
                f"as even as {effective_tasks(newest.weights):.1f} tasks · {int(newest.drawn.sum()):,} questions drawn",
                theme.DIM,
            )
        ]
        self.query_one(Text).show(head, facts)

    def action_order(self) -> None:
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
        self.show()


def effective_tasks(weights: Floats) -> float:
    """exp(H(p)): the number of equally likely tasks with the same entropy as p."""
    p = weights[weights > 0]
    return float(np.exp(-(p * np.log(p)).sum()))
