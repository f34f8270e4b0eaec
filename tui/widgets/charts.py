"""A grid of charts, and the settings that the charts of a screen share: x axis, smoothing and y scale."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import ClassVar

from rich.style import Style
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll

from accl.store.curve import Curve
from tui import theme
from tui.commands import bindings, next_choice
from tui.scale import smooth
from tui.viewstate import Choices
from tui.widgets.chart import Chart, Line, ReferenceLine

WIDE, VERY_WIDE = 110, 250
# Smallest legible height of a chart; on a tall grid charts grow instead of becoming more.
MIN_CHART_LINES, MIN_CHART_LINES_TALL, TALL = 9, 15, 30
AXES = ("step", "epoch", "time")
SMOOTHING = (0.0, 0.6, 0.9)
FLOOR_STYLES = (Style(color=theme.SERIES[3]), Style(color=theme.SERIES[1]))


class Charts(VerticalScroll, can_focus=True, inherit_bindings=False):
    """Charts by key, in as many columns as the width allows; `display_only` selects the visible ones."""

    BINDINGS = bindings("charts")

    def __init__(self, charts: dict[str, Chart], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.charts = charts

    def compose(self) -> ComposeResult:
        with Grid():
            yield from self.charts.values()

    def add(self, key: str, chart: Chart) -> None:
        """Append a chart."""
        self.charts[key] = chart
        self.query_one(Grid).mount(chart)

    def display_only(self, keys: Container[str]) -> None:
        """Show these charts and hide the others."""
        changed = [chart for key, chart in self.charts.items() if chart.display != (key in keys)]
        for chart in changed:
            chart.display = not chart.display
        if changed:
            self._layout_grid()

    @property
    def displayed(self) -> list[str]:
        """Keys of the visible charts."""
        return [key for key, chart in self.charts.items() if chart.display]

    def on_resize(self) -> None:
        self._layout_grid()

    def _layout_grid(self) -> None:
        """Divide the whole height among the charts, none lower than is legible."""
        size = self.container_size
        count = max(1, len(self.displayed))
        columns = min(count, 1 if size.width < WIDE else 2 if size.width < VERY_WIDE else 3)
        min_lines = MIN_CHART_LINES if size.height < TALL else MIN_CHART_LINES_TALL
        rows_in_view = min(-(-count // columns), max(1, size.height // min_lines))
        grid = self.query_one(Grid)
        grid.styles.grid_size_columns = columns
        height, left = divmod(max(rows_in_view, size.height), rows_in_view)
        grid.styles.grid_rows = " ".join(str(height + (row < left)) for row in range(rows_in_view))

    def action_move(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_target_y + lines, animate=False)

    def action_page(self, pages: int) -> None:
        self.action_move(pages * self.scrollable_content_region.height)

    def action_edge(self, direction: int) -> None:
        self.scroll_to(y=0 if direction < 0 else self.max_scroll_y, animate=False)


def floor_lines(floors: Iterable[tuple[str, float]]) -> list[ReferenceLine]:
    """Make reference lines of the accuracies of trivial baselines, given with their names."""
    return [ReferenceLine(name, value, FLOOR_STYLES[i % 2]) for i, (name, value) in enumerate(sorted(floors))]


class CurveSettings:
    """Mixin: the settings, the actions that change them, and charts drawn with them."""

    settings: ClassVar[Mapping[str, Choices]] = {"axis": AXES, "smoothing": SMOOTHING, "log_scale": (False, True)}
    axis = "step"
    smoothing = 0.6
    log_scale = False

    def show_curves(self) -> None:
        """Draw the charts with the settings as they are now."""
        raise NotImplementedError

    def is_smoothed(self, metric: str) -> bool:
        """Return whether to smooth a metric: values of single batches, but not evaluations."""
        return self.smoothing > 0 and metric.startswith("train/") and metric != "train/lr"

    def line(self, name: str, metric: str, curve: Curve, style: Style, raw: bool = True) -> Line:
        """Make the line of a metric, with the unsmoothed values behind it if ``raw``."""
        x = curve.x(self.axis)
        if not self.is_smoothed(metric):
            return Line(name, x, curve.median, style)
        return Line(name, x, smooth(curve.median, self.smoothing), style, curve.median if raw else None)

    def draw_chart(self, chart: Chart, metric: str, lines: list[Line], references: list[ReferenceLine]) -> None:
        """Draw the lines; ``metric`` is the one that decides about smoothing."""
        note = f"smoothed {self.smoothing:g}" if self.is_smoothed(metric) else ""
        chart.show(lines, references, self.axis, self.log_scale and not chart.shares, note)

    def action_axis(self) -> None:
        self.axis = next_choice(AXES, self.axis)
        self.show_curves()

    def action_smoothing(self) -> None:
        self.smoothing = next_choice(SMOOTHING, self.smoothing)
        self.show_curves()

    def action_scale(self) -> None:
        self.log_scale = not self.log_scale
        self.show_curves()
