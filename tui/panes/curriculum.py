"""Pane 2: the task distribution from which the curriculum samples, now or at the cursor of the charts."""

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

TREND_CELLS = 16


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
        k, steps = len(view.tasks), curriculum.steps_S
        at = len(steps) - 1
        if self.cursor_step is not None:
            at = max(0, int(np.searchsorted(steps, self.cursor_step, side="right")) - 1)
        weights, drawn = curriculum.weights_SK[at].astype(float), curriculum.drawn_SK[at]
        # Of all updates up to then, as many as the sparks have cells.
        trends = curriculum.weights_SK[np.unique(np.linspace(0, at, TREND_CELLS).round().astype(int))].T.tolist()
        bars = [
            Bar(task.name, task.category, float(weights[i]), int(drawn[i]), tuple(trends[i]))
            for i, task in enumerate(view.tasks)
        ]
        self.query_one(Bars).show(sorted(bars, key=self.orders[self.order]), 1.0 / k)
        when = "" if self.cursor_step is None else f" · at the cursor, step {self.cursor_step:,.0f}"
        policy = f"  policy {curriculum.policy} · since step {steps[at]:,}{when} · by {self.order}"
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
