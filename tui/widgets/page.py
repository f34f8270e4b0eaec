"""The charts of a page: how many are legible, and where each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.geometry import Region

from tui.widgets.chart import Chart

WIDE, VERY_WIDE, BETWEEN = 110, 220, 2
# Smallest legible height of a chart; on a tall screen charts grow instead of becoming more.
MIN_LINES, MIN_LINES_TALL, TALL = 7, 12, 30


@dataclass(frozen=True)
class Place:
    """The room of a chart."""

    chart: Chart
    region: Region
    labelled: bool


def shape(width: int, height: int, count: int) -> tuple[int, int]:
    """Return the columns and rows in which at most ``count`` charts are legible."""
    columns = min(max(1, count), 1 if width < WIDE else 2 if width < VERY_WIDE else 3)
    lines = MIN_LINES if height < TALL else MIN_LINES_TALL
    return columns, max(1, min(-(-count // columns), height // lines))


def arrange(charts: Sequence[Chart], room: Region, columns: int, rows: int) -> list[Place]:
    """Divide the room among the charts, row by row.

    The charts at the bottom have the labels of the x axis, in a line that they get on top of their share.
    """
    each, left = divmod(max(rows, room.height - 1), rows)
    ends = [room.y + each * i + min(i, left) for i in range(rows + 1)]
    width = (room.width - BETWEEN * (columns - 1)) // columns
    places = []
    for i, chart in enumerate(charts):
        row, column = divmod(i, columns)
        lines = ends[row + 1] - ends[row] + (row == rows - 1)
        region = Region(room.x + column * (width + BETWEEN), ends[row], width, lines)
        places.append(Place(chart, region, labelled=i + columns >= len(charts)))
    return places
