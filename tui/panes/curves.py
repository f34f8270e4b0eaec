"""Pane 1: what was measured over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from tui import theme
from tui.curves import CurveOptions
from tui.feed import RunView
from tui.keys import bindings
from tui.panes.pane import Pane
from tui.widgets.chart import Chart, Level, Line
from tui.widgets.charts import Charts
from tui.widgets.filter import Filter

FLOOR_STYLES = (Style(color="#f0795b"), Style(color="#dd8fbd"))


@dataclass(frozen=True)
class Spec:
    """A chart: metric -> name of its line."""

    title: str
    metrics: dict[str, str]
    shares: bool = False
    floors: str = ""  # the split whose floors are drawn in


SPECS = (
    Spec(
        "training loss",
        {"train/loss": "total", "train/classification": "classification", "train/contrastive": "contrastive"},
    ),
    Spec("validation accuracy", {"validation/accuracy": "accuracy"}, shares=True, floors="validation"),
    Spec("validation loss", {"validation/loss": "loss"}),
    Spec("training accuracy", {"train/accuracy": "accuracy"}, shares=True),
    Spec("learning rate", {"train/lr": "rate"}),
    Spec("gradient norm", {"train/grad_norm": "norm"}),
    Spec("questions per second", {"train/questions_per_second": "questions"}),
)
# Without a value yet these two still say what will come.
ALWAYS = ("training loss", "validation accuracy")


class CurvesPane(Pane):
    """Charts of every metric; those known by name first, any other after them."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("curves")
    keys = ("curves",)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.options = CurveOptions()
        self.words = ""
        self.specs = {spec.title: spec for spec in SPECS}
        self.view: RunView | None = None
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Charts({spec.title: Chart(spec.title, shares=spec.shares) for spec in SPECS}, id="charts")
        yield Filter("part of a title or metric", id="metrics")

    def enter(self) -> None:
        self.query_one(Charts).focus()

    def take(self, view: RunView) -> None:
        self.view = view
        self.show()

    def show(self) -> None:
        view = self.view
        if view is None:
            return
        options = self.options
        mark = (
            view.version,
            tuple(sorted(view.meta.items())),
            options.axis,
            options.smoothing,
            options.log,
            self.words,
        )
        if mark == self._drawn:
            return
        self._drawn = mark
        charts = self.query_one(Charts)
        known = {metric for spec in self.specs.values() for metric in spec.metrics}
        for metric in sorted(set(view.series) - known):
            self.specs[metric] = Spec(metric, {metric: metric.rsplit("/", 1)[-1]})
            charts.add(metric, Chart(metric))
        shown = []
        for title, spec in self.specs.items():
            present = [metric for metric in spec.metrics if metric in view.series]
            wanted = self.words.lower() in title or any(self.words.lower() in metric for metric in spec.metrics)
            if wanted and (present or title in ALWAYS):
                shown.append(title)
                self._fill(charts.charts[title], spec, view, present)
        charts.display_only(shown)

    def _fill(self, chart: Chart, spec: Spec, view: RunView, present: list[str]) -> None:
        lines: list[Line] = []
        for metric in present:
            style = theme.series_style(list(spec.metrics).index(metric))
            lines.append(self.options.line(spec.metrics[metric], metric, view.series[metric], style))
        levels = [
            Level(name, value, FLOOR_STYLES[i % 2])
            for i, (name, value) in enumerate(sorted(view.floors(spec.floors).items()))
            if spec.floors
        ]
        log = self.options.log and not spec.shares
        chart.show(lines, levels, self.options.axis, log, self.options.note(next(iter(spec.metrics))))

    # Keys ----------------------------------------------------------------------------------------

    def action_axis(self) -> None:
        self.options.next_axis()
        self.show()

    def action_smoothing(self) -> None:
        self.options.next_smoothing()
        self.show()

    def action_scale(self) -> None:
        self.options.log = not self.options.log
        self.show()

    def action_filter(self) -> None:
        self.query_one(Filter).begin()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self.words = event.value
        self.show()

    @on(Filter.Left)
    def _typing_over(self) -> None:
        self.enter()
