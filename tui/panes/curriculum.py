"""Pane 2: the task distribution from which the curriculum samples."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from textual.app import ComposeResult

from tui import theme
from tui.commands import bindings
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.raster import Floats
from tui.scale import percent
from tui.widgets.bars import Bar, Bars
from tui.widgets.text import Text

TREND_UPDATES = 16


class CurriculumPane(Pane):
    """Weights of the K tasks as bars."""

    needs = frozenset({"curriculum"})
    scope = "curriculum"
    BINDINGS = bindings(scope)
    main_widget = Bars
    orders: ClassVar = {
        "weight": lambda bar: (-bar.value, bar.name),
        "category": lambda bar: (bar.group, -bar.value, bar.name),
        "name": lambda bar: bar.name,
    }
    settings: ClassVar = {"order": list(orders)}
    order = "weight"

    def compose(self) -> ComposeResult:
        yield Text(id="policy")
        yield Bars(id="weights")

    def show_view(self, view: RunView) -> None:
        curriculum = view.curriculum
        if not view.tasks or curriculum is None:
            self.query_one(Text).show([("task weights", theme.TITLE)])
            return
        k, weights, drawn = len(view.tasks), curriculum.weights_SK[-1].astype(float), curriculum.drawn_SK[-1]
        trends = curriculum.weights_SK[-TREND_UPDATES:].T.tolist()
        bars = [
            Bar(task.name, task.category, float(weights[i]), int(drawn[i]), tuple(trends[i]))
            for i, task in enumerate(view.tasks)
        ]
        self.query_one(Bars).show(sorted(bars, key=self.orders[self.order]), 1.0 / k)
        policy = f"  policy {curriculum.policy} · since step {curriculum.steps_S[-1]:,} · by {self.order}"
        statistics = (
            f"uniform 1/{k} = {percent(1 / k)} · largest ×{weights.max() * k:.2f} · "
            f"smallest ×{weights.min() * k:.2f} · as even as {effective_tasks(weights):.1f} tasks · "
            f"{int(drawn.sum()):,} questions drawn"
        )
        self.query_one(Text).show([("task weights", theme.TITLE), (policy, theme.PLAIN)], [(statistics, theme.DIM)])


def effective_tasks(weights: Floats) -> float:
    """Return exp(H(p)), the number of equally likely tasks with the same entropy as the weights p."""
    p = weights[weights > 0]
    return float(np.exp(-(p * np.log(p)).sum()))
