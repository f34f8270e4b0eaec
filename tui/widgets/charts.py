"""Charts in a grid: as many columns as the width allows, scrolled when there are more than fit."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, VerticalScroll

from tui.keys import bindings
from tui.widgets.chart import Chart

WIDE, VERY_WIDE = 110, 250
# A chart this low can still be read; with more room they become higher, not more.
LEAST_LINES, ROOMY_LINES, ROOMY = 9, 15, 30


class Charts(VerticalScroll, can_focus=True, inherit_bindings=False):
    """Holds charts by key; `display_only` says which of them are in view, in which order."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("charts")

    def __init__(self, charts: dict[str, Chart], most_columns: int = 3, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.charts = dict(charts)
        self.most_columns = most_columns

    def compose(self) -> ComposeResult:
        with Grid():
            yield from self.charts.values()

    def add(self, key: str, chart: Chart) -> None:
        self.charts[key] = chart
        self.query_one(Grid).mount(chart)

    def display_only(self, keys: list[str]) -> None:
        """Show these charts and hide the others."""
        changed = False
        for key, chart in self.charts.items():
            if chart.display != (key in keys):
                chart.display = key in keys
                changed = True
        if changed:
            self._fill()

    @property
    def displayed(self) -> list[str]:
        return [key for key, chart in self.charts.items() if chart.display]

    def on_resize(self, event: events.Resize) -> None:
        del event
        self._fill()

    def _fill(self) -> None:
        """Give the charts the whole room: no gap below, and none smaller than can be read."""
        size = self.container_size
        count = max(1, len(self.displayed))
        columns = min(self.most_columns, count, 1 if size.width < WIDE else 2 if size.width < VERY_WIDE else 3)
        rows = -(-count // columns)
        least = LEAST_LINES if size.height < ROOMY else ROOMY_LINES
        in_view = min(rows, max(1, size.height // least))
        grid = self.query_one(Grid)
        grid.styles.grid_size_columns = columns
        height, left = divmod(max(in_view, size.height), in_view)
        grid.styles.grid_rows = " ".join(str(height + (row < left)) for row in range(in_view))

    def action_up(self) -> None:
        self.scroll_up(animate=False)

    def action_down(self) -> None:
        self.scroll_down(animate=False)

    def action_page_up(self) -> None:
        self.scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        self.scroll_page_down(animate=False)

    def action_first(self) -> None:
        self.scroll_home(animate=False)

    def action_last(self) -> None:
        self.scroll_end(animate=False)
