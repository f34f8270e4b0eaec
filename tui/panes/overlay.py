"""The charts of a comparison: a metric each, with the lines of all arms or of all runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from accl.analysis.grouping import Arm
from accl.store.columns import RunReader
from accl.store.curve import Curve
from accl.store.deadline import DEADLINE_S, each_within
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
    """Maker of the charts, which keeps what it has made: only what has changed is made anew.

    Attributes:
        details: finer bins of a part of the curves, by run and metric; never changed, but replaced.
    """

    def __init__(self) -> None:
        self.details: Mapping[int, Mapping[str, Curve]] = {}
        self._medians: dict[tuple[str, str, bool], tuple[Sequence[Curve], Curve]] = {}
        self._made: dict[bool, tuple[Sequence[Arm], Sequence[object], list[Chart]]] = {}

    def charts(self, arms: Sequence[Arm], views: Sequence[RunView], seeds_as_lines: bool) -> list[Chart]:
        """Return a chart of each metric, those of `FIRST_METRICS` first."""
        made_of = [*views, self.details, theme.current()]
        arms_before, before, charts = self._made.get(seeds_as_lines, ((), (), []))
        if arms_before != arms or not _are_same(before, made_of):
            charts = self._charts(arms, views, seeds_as_lines)
            self._made[seeds_as_lines] = arms, made_of, charts
        return charts

    def _charts(self, arms: Sequence[Arm], views: Sequence[RunView], seeds_as_lines: bool) -> list[Chart]:
        found = sorted({metric for view in views for metric in view.curves if not LETTERS.search(metric)})
        metrics = dict.fromkeys([*(metric for metric in FIRST_METRICS if metric in found), *found])
        floors = {floor for view in views for floor in view.floors("validation").items()}
        names = {i: run_label(arm, views[i], views) for arm in arms for i in arm.members if seeds_as_lines}
        charts = []
        for metric in metrics:
            lines: list[Line] = []
            for arm in arms:
                curves = {i: views[i].curves[metric] for i in arm.members if metric in views[i].curves}
                details = {i: self.details[i][metric] for i in curves if metric in self.details.get(i, {})}
                if seeds_as_lines:  # without bands, which would lie over each other
                    lines += [
                        Line(names[i], curve, seed_style(arm, views[i]), kind_of(metric), False, details.get(i))
                        for i, curve in curves.items()
                    ]
                elif curves:
                    median = self._median(metric, arm, list(curves.values()))
                    finer = (
                        self._median(metric, arm, list(details.values()), True) if len(details) == len(curves) else None
                    )
                    kind = "line" if len(curves) > 1 else kind_of(metric)
                    lines.append(Line(arm.label, median, theme.arm_style(arm.label), kind, detail=finer))
            # Runs with the same questions have the same floors; those of others would crowd the chart.
            floored = metric == "validation/accuracy" and len(floors) <= 2
            title, shares = FIRST_METRICS.get(metric, metric), metric.endswith("accuracy")
            charts.append(Chart(title, tuple(lines), floor_lines(floors) if floored else (), shares, (metric,)))
        return charts

    def _median(self, metric: str, arm: Arm, curves: Sequence[Curve], finer: bool = False) -> Curve:
        key = metric, arm.label, finer
        before, median = self._medians.get(key, ((), None))
        if median is None or not _are_same(before, curves):
            median = arm_curve(curves)
            self._medians[key] = curves, median
        return median


def _are_same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def finer(readers: Mapping[int, tuple[RunReader, Sequence[str]]], low: int, high: int) -> dict[int, dict[str, Curve]]:
    """Read metrics of runs between two steps in finer bins; what is damaged, or does not come in time, is left out.

    Args:
        readers: with the names of the metrics, by run.
    """
    by_run = {reader.run: (i, reader, names) for i, (reader, names) in readers.items()}
    answers = each_within(DEADLINE_S, lambda run: by_run[run][1].zoomed(by_run[run][2], low, high), list(by_run))
    return {by_run[run][0]: curves for run, curves in answers if not isinstance(curves, BaseException)}
