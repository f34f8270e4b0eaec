"""The charts of a comparison: a metric each, with the lines of all arms or of all runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from accl.analysis.grouping import Arm
from accl.store.curve import Curve
from tui import theme
from tui.feed import RunView
from tui.panes.comparison import run_label, seed_style
from tui.plot import arm_curve
from tui.widgets.chart import Chart, Line
from tui.widgets.charts import floor_lines, kind_of

# Metrics whose charts come before those of all others, with the titles of these charts.
FIRST_METRICS = {
    "validation/accuracy": "validation accuracy",
    "train/loss": "training loss",
    "curriculum/effective_tasks": "effective tasks",
}
LETTERS = re.compile(r"^test/(gold|predicted)_")  # one share for each letter, once: nothing to compare runs by


class Overlay:
    """Maker of the charts, which keeps the curves of the arms: only those with a seed that has grown are made anew."""

    def __init__(self) -> None:
        # Beside each its seeds' curves, so that no other object gets the id of one.
        self._kept: dict[tuple[object, ...], tuple[Curve, list[Curve]]] = {}

    def charts(self, arms: Sequence[Arm], views: Sequence[RunView], seeds_as_lines: bool) -> list[Chart]:
        """Return a chart of each metric, those of `FIRST_METRICS` first."""
        found = sorted({metric for view in views for metric in view.curves if not LETTERS.search(metric)})
        metrics = dict.fromkeys([*(metric for metric in FIRST_METRICS if metric in found), *found])
        floors = {floor for view in views for floor in view.floors("validation").items()}
        before, self._kept = self._kept, {}
        charts = []
        for metric in metrics:
            lines: list[Line] = []
            for arm in arms:
                having = [i for i in arm.members if metric in views[i].curves]
                if seeds_as_lines:
                    lines += [_line_of_run(metric, arm, views[i], views) for i in having]
                elif having:
                    curve = self._merged(metric, [views[i].curves[metric] for i in having], before)
                    kind = "line" if len(having) > 1 else kind_of(metric)
                    lines.append(Line(arm.label, curve, theme.arm_style(arm.label), kind))
            # Runs with the same questions have the same floors; those of others would crowd the chart.
            floored = metric == "validation/accuracy" and len(floors) <= 2
            title, shares = FIRST_METRICS.get(metric, metric), metric.endswith("accuracy")
            charts.append(Chart(title, tuple(lines), floor_lines(floors) if floored else (), shares, (metric,)))
        return charts

    def _merged(
        self, metric: str, curves: list[Curve], before: dict[tuple[object, ...], tuple[Curve, list[Curve]]]
    ) -> Curve:
        key = metric, *map(id, curves)
        self._kept[key] = before.get(key) or (arm_curve(curves), curves)
        return self._kept[key][0]


def _line_of_run(metric: str, arm: Arm, view: RunView, views: Sequence[RunView]) -> Line:
    return Line(run_label(arm, view, views), view.curves[metric], seed_style(arm, view), kind_of(metric))
