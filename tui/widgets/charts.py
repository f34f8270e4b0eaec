"""The charts of a screen with their two input lines, and the keys that a screen hands on to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from rich.style import Style
from textual.app import ComposeResult
from textual.containers import Vertical

from tui import theme
from tui.feed import RunView
from tui.widgets.chart import Floor, Mark
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.filter import Filter

FLOOR_STYLES = (theme.series_style(3), theme.series_style(4))
EVENT_SYMBOL, EVENT_STYLE = "!", theme.MARK
CHECKPOINT_SYMBOL, CHECKPOINT_STYLE = "◆", Style(color=theme.INFO, bold=True)


class Charts(Vertical):
    """A grid of charts, a filter by regular expression, and a line to type a step into."""

    def compose(self) -> ComposeResult:
        yield ChartGrid(id="chart-grid")
        yield Filter("regular expression: part of a title or metric", id="metrics")
        yield Filter("step to jump to, +N and -N from the cursor", id="jump")

    @property
    def grid(self) -> ChartGrid:
        return self.query_one(ChartGrid)

    def open_filter(self) -> None:
        self.query_one("#metrics", Filter).open()

    def open_jump(self) -> None:
        self.query_one("#jump", Filter).open()

    def on_input_changed(self, event: Filter.Changed) -> None:
        event.stop()
        if event.input.id == "metrics":
            self.grid.filter(event.value)

    def on_filter_closed(self, event: Filter.Closed) -> None:
        event.stop()
        line = self.query_one("#jump", Filter)
        if line.value:
            self._jump(line.value.strip().replace(",", ""))
            line.value, line.display = "", False
        self.grid.focus()

    def _jump(self, text: str) -> None:
        try:
            step = float(text)
        except ValueError:
            return
        if math.isfinite(step):
            here = self.grid.cursor_step or 0.0
            self.grid.jump(here + step if text[0] in "+-" else step)


class ChartKeys:
    """Mixin: the action behind all keys of the charts, so that they work wherever the focus is on the screen."""

    def action_charts(self, name: str, first: float | None = None, second: float | None = None) -> None:
        """Call a method of the charts; Textual hands on only as many arguments as are declared one by one."""
        charts = self.query_one(Charts)  # type: ignore[attr-defined]
        method = getattr(charts, name, None) or getattr(charts.grid, name)
        method(*(argument for argument in (first, second) if argument is not None))


def floor_lines(floors: Iterable[tuple[str, float]]) -> tuple[Floor, ...]:
    """Make floors of the accuracies of trivial baselines, given with their names."""
    return tuple(Floor(name, value, FLOOR_STYLES[i % 2]) for i, (name, value) in enumerate(sorted(floors)))


def kind_of(metric: str) -> Literal["line", "points"]:
    """Return how a metric is drawn: evaluations as points."""
    return "points" if metric.startswith(("validation/", "test/")) else "line"


def marks_of(view: RunView) -> list[Mark]:
    """Return the marks of a run: the checkpoints that it names, and events that are more than information."""
    names = (view.summary.state.checkpoint_best, view.summary.state.checkpoint_last)
    steps = [name.removeprefix("step-") for name in names]
    marks = [Mark(CHECKPOINT_SYMBOL, CHECKPOINT_STYLE, float(step)) for step in steps if step.isdecimal()]
    events = [event for event in view.events if event.level != "info"]
    return marks + [Mark(EVENT_SYMBOL, EVENT_STYLE, event.seconds, "time") for event in events]
