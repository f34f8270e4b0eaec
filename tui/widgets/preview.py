"""Curves of a run, or of the runs of an arm, beside a list: drawn as they arrive, but not as often."""

from __future__ import annotations

from collections.abc import Sequence

from textual.timer import Timer

from accl.store.rundir import RunDir
from tui import theme
from tui.feed import RunView
from tui.widgets.chart import Chart, Line
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import floor_lines, kind_of

LATE_S = 0.1  # curves that arrive one by one are drawn together
GROWN_S = 3.0  # those of runs that train are drawn anew so often: drawing costs more than reading
CHARTS = {
    "training loss": "train/loss",
    "validation accuracy": "validation/accuracy",
    "effective tasks": "curriculum/effective_tasks",
}


class Preview(ChartGrid):
    """The charts of a few metrics, which show a cursor by themselves only where they are focused."""

    can_focus = False
    empty = ""
    _redraw: Timer | None = None

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._views: dict[RunDir, RunView | None] = {}

    @property
    def waits(self) -> bool:
        """Whether curves that are expected have never arrived."""
        return None in self._views.values()

    def view_of(self, run: RunDir) -> RunView | None:
        """Return the data of a run, as far as they have arrived."""
        return self._views.get(run)

    def expect(self, runs: Sequence[RunDir]) -> bool:
        """Take the curves of these runs from now on, and of no others; return whether that is new.

        What is drawn stays until the first of them arrive.
        """
        if list(runs) == list(self._views):
            return False
        self._views = dict.fromkeys(runs)
        self.empty = "reading …"
        self.redraw()
        return True

    def receive(self, view: RunView) -> None:
        """Draw the curves of a run: the first and the last that was waited for at once."""
        run = view.summary.run
        if run not in self._views:
            return
        is_new, self._views[run] = self._views[run] is None, view
        arrived = sum(each is not None for each in self._views.values())
        if is_new and arrived in (1, len(self._views)):
            self._show_views()
        elif self._redraw is None:
            self._redraw = self.set_timer(LATE_S if is_new else GROWN_S, self._show_views)

    def _show_views(self) -> None:
        if self._redraw is not None:
            self._redraw.stop()
            self._redraw = None
        views = [view for view in self._views.values() if view]
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
