"""Pane 1: every metric over time."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult

from tui import theme
from tui.commands import bindings
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.widgets.chart import Chart, Line
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import ChartKeys, Charts, floor_lines, kind_of, marks_of


@dataclass(frozen=True)
class ChartSpec:
    """A chart, of shares or of other values.

    Attributes:
        lines: names of the lines by metric.
        floors: split whose trivial baselines are drawn, or empty.
        always: whether the chart is also shown while it has no values.
    """

    title: str
    lines: dict[str, str]
    shares: bool = False
    floors: str = ""
    always: bool = False


SPECS = (
    ChartSpec(
        "training loss",
        {"train/loss": "total", "train/classification": "classification", "train/contrastive": "contrastive"},
        always=True,
    ),
    ChartSpec("validation accuracy", {"validation/accuracy": "accuracy"}, True, floors="validation", always=True),
    ChartSpec("validation loss", {"validation/loss": "loss"}),
    ChartSpec("training accuracy", {"train/accuracy": "accuracy"}, shares=True),
    ChartSpec("learning rate", {"train/lr": "rate"}),
    ChartSpec("gradient norm", {"train/grad_norm": "norm"}),
    ChartSpec("questions per second", {"train/questions_per_second": "questions"}),
)


class CurvesPane(ChartKeys, Pane):
    """Charts of the metrics in `SPECS`, followed by one of each other metric."""

    needs = frozenset({"curves", "events"})
    scope = "curves"
    BINDINGS = bindings(scope)
    main_widget = ChartGrid
    _drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Charts(id="charts")

    def show_view(self, view: RunView) -> None:
        content = (view.version, tuple(sorted(view.figures.items())))
        if content == self._drawn:
            return
        self._drawn = content
        curves = view.curves
        others = sorted(set(curves).difference(*(spec.lines for spec in SPECS)))
        specs = [*SPECS, *map(_spec_of, others)]
        charts = []
        for spec in specs:
            lines = tuple(
                Line(name, curves[metric], theme.series_style(i), kind_of(metric))
                for i, (metric, name) in enumerate(spec.lines.items())
                if metric in curves
            )
            floors = floor_lines(view.floors(spec.floors).items()) if spec.floors else ()
            if lines or spec.always:
                charts.append(Chart(spec.title, lines, floors, spec.shares, tuple(spec.lines)))
        self.query_one(Charts).grid.show(charts, marks_of(view))

    def peel(self) -> bool:
        return self.query_one(Charts).grid.peel()


def _spec_of(metric: str) -> ChartSpec:
    return ChartSpec(metric, {metric: metric.rsplit("/", 1)[-1]}, shares=metric.endswith("accuracy"))
