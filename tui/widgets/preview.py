"""Curves of a run, or of the runs of an arm, beside a list."""

from __future__ import annotations

from collections.abc import Sequence

from tui import theme
from tui.feed import RunView
from tui.widgets.chart import Chart, Line
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import floor_lines, kind_of

CHARTS = {
    "training loss": "train/loss",
    "validation accuracy": "validation/accuracy",
    "effective tasks": "curriculum/effective_tasks",
}


class Preview(ChartGrid):
    """The charts of a few metrics, which show a cursor by themselves only where they are focused."""

    can_focus = False
    _shown: Sequence[RunView] = ()

    def show_views(self, views: Sequence[RunView]) -> None:
        """Show the curves of runs, a line each."""
        if list(views) == list(self._shown):
            return
        self._shown = views
        several = len(views) > 1
        charts = []
        for title, metric in CHARTS.items():
            lines = tuple(
                Line(
                    f"{view.summary.setup.recipe} s{view.summary.seed}",
                    view.curves[metric],
                    theme.arm_style(view.summary.setup.recipe, view.summary.setup.seed if several else None),
                    kind_of(metric),
                    band=not several,
                )
                for view in views
                if metric in view.curves
            )
            shares = metric.endswith("accuracy")
            floors = floor_lines(views[0].floors("validation").items()) if shares and views else ()
            if lines:
                charts.append(Chart(title, lines, floors, shares))
        self.show(charts)
