"""A grid of charts: as many columns as the width allows, scrolled when there are more than fit."""

from __future__ import annotations

from collections.abc import Container

from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll

from tui.keys import bindings
from tui.widgets.chart import Chart

WIDE, VERY_WIDE = 110, 250
# Smallest legible height of a chart; on a tall grid charts grow instead of becoming more.
MIN_CHART_LINES, MIN_CHART_LINES_TALL, TALL = 9, 15, 30


class Charts(VerticalScroll, can_focus=True, inherit_bindings=False):
    """Charts by key, of which `display_only` selects the visible ones."""

    BINDINGS = bindings("charts")

    def __init__(self, charts: dict[str, Chart], max_columns: int = 3, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.charts = dict(charts)
        self.max_columns = max_columns

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
        columns = min(self.max_columns, count, 1 if size.width < WIDE else 2 if size.width < VERY_WIDE else 3)
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
