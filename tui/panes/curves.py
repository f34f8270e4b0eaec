"""Pane 1: every metric over time."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult

from tui import theme
from tui.commands import bindings
from tui.feed import RunView
from tui.panes.pane import Pane
from tui.widgets.chart import Chart
from tui.widgets.charts import Charts, CurveSettings, floor_lines
from tui.widgets.filter import Filter


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


class CurvesPane(CurveSettings, Pane):
    """Charts of the metrics in `SPECS`, followed by one of each other metric."""

    needs = frozenset({"curves"})
    scope = "curves"
    BINDINGS = bindings(scope)
    main_widget = Charts
    filter_text = ""
    _drawn: tuple[object, ...] = ()

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.specs = {spec.title: spec for spec in SPECS}

    def compose(self) -> ComposeResult:
        yield Charts({spec.title: Chart(spec.title, shares=spec.shares) for spec in SPECS}, id="charts")
        yield Filter("part of a title or metric", id="metrics")

    def show_view(self, view: RunView) -> None:
        figures = tuple(sorted(view.figures.items()))
        content = (view.version, figures, self.axis, self.smoothing, self.log_scale, self.filter_text)
        if content == self._drawn:
            return
        self._drawn = content
        charts = self.query_one(Charts)
        for metric in sorted(set(view.curves).difference(*(spec.lines for spec in self.specs.values()))):
            self.specs[metric] = ChartSpec(metric, {metric: metric.rsplit("/", 1)[-1]})
            charts.add(metric, Chart(metric))
        text = self.filter_text.lower()
        matching = [s for s in self.specs.values() if any(text in name for name in (s.title, *s.lines))]
        shown = [spec for spec in matching if spec.always or not view.curves.keys().isdisjoint(spec.lines)]
        for spec in shown:
            self._draw_spec(charts.charts[spec.title], spec, view)
        charts.display_only([spec.title for spec in shown])

    def _draw_spec(self, chart: Chart, spec: ChartSpec, view: RunView) -> None:
        lines = [
            self.line(name, metric, view.curves[metric], theme.series_style(i))
            for i, (metric, name) in enumerate(spec.lines.items())
            if metric in view.curves
        ]
        floors = floor_lines(view.floors(spec.floors).items()) if spec.floors else []
        self.draw_chart(chart, next(iter(spec.lines)), lines, floors)

    show_curves = Pane.show

    def action_filter(self) -> None:
        self.query_one(Filter).open()

    def on_input_changed(self, event: Filter.Changed) -> None:
        self.filter_text = event.value
        self.show()

    def on_filter_closed(self) -> None:
        self.focus_main_widget()
