"""The charts of a page: how many are legible, and where each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from textual.geometry import Region

from tui.widgets.chart import Chart

WIDE, VERY_WIDE, BETWEEN = 110, 220, 2
# Smallest legible height of a chart; on a tall screen charts grow instead of becoming more.
MIN_LINES, MIN_LINES_TALL, TALL = 7, 12, 30
MIN_LINES_STACKED = 5  # of a chart on the first page, where all have to be seen together
FRAME_LINES = 2  # the title and the rule of the x axis


@dataclass(frozen=True)
class Place:
    """The room of a chart."""

    chart: Chart
    region: Region
    labelled: bool


@dataclass(frozen=True)
class Page:
    """Charts that are seen together, row by row in so many columns."""

    charts: Sequence[Chart]
    columns: int
    rows: int
    stacked: bool = False


def shape(width: int, height: int, count: int) -> tuple[int, int]:
    """Return the columns and rows in which at most ``count`` charts are legible."""
    columns = min(max(1, count), 1 if width < WIDE else 2 if width < VERY_WIDE else 3)
    lines = MIN_LINES if height < TALL else MIN_LINES_TALL
    return columns, max(1, min(-(-count // columns), height // lines))


def paginate(charts: Sequence[Chart], width: int, height: int) -> list[Page]:
    """Divide charts among pages: those of the first page below each other, as far as they are legible."""
    stacked = list(takewhile(lambda chart: chart.first, charts))
    while len(stacked) > 1 and _least(stacked) > height - 1:
        stacked.pop()
    rest = charts[len(stacked) :]
    columns, rows = shape(width, height, len(rest))
    pages = [Page(rest[i : i + columns * rows], columns, rows) for i in range(0, len(rest), columns * rows)]
    return [Page(stacked, 1, len(stacked), stacked=True), *pages] if stacked else pages


def _least(charts: Sequence[Chart]) -> int:
    return sum(chart.fixed_rows + FRAME_LINES if chart.fixed_rows else MIN_LINES_STACKED for chart in charts)


def arrange(page: Page, room: Region) -> list[Place]:
    """Divide the room among the charts of a page.

    The charts at the bottom have the labels of the x axis, in a line that they get on top of their share.
    """
    fixed = [chart.fixed_rows + FRAME_LINES if page.stacked and chart.fixed_rows else 0 for chart in page.charts]
    shares = fixed.count(0) if page.stacked else page.rows
    each, left = divmod(max(shares, room.height - 1 - sum(fixed)), shares or 1)
    width = (room.width - BETWEEN * (page.columns - 1)) // page.columns
    places, y = [], room.y
    for i, chart in enumerate(page.charts):
        row, column = divmod(i, page.columns)
        lines = fixed[i] or each + (row < left)
        last = row == page.rows - 1
        region = Region(room.x + column * (width + BETWEEN), y, width, lines + last)
        places.append(Place(chart, region, labelled=i + page.columns >= len(page.charts)))
        if column == page.columns - 1:
            y += lines
    return places
