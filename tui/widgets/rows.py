"""Charts without a y axis: a row of cells for each of several series, as a heat map or as small curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from textual.strip import Strip

from accl.store.curve import Curve
from tui import theme
from tui.plot import DotColumns
from tui.raster import Floats
from tui.scale import short
from tui.text import BLANK_AND_SPARKS, Piece, cell_len, cut, fit, with_cell
from tui.widgets.chart import Chart, Frame
from tui.widgets.drawing import HAIRLINE, NOTHING, Drawing, Label

LEVELS = 6  # of a colour on each side of the middle
UNKNOWN = LEVELS + 1
# Powers of two that the ends of the colour scale stand for, at least and at most.
NARROWEST, WIDEST = 0.5, 3.0


@dataclass(frozen=True, eq=False)
class Series:
    """N values of one thing, each in force from its position on.

    Attributes:
        at: positions on the axis that the chart names as its ``unit``.
        top: value of a full cell of a small curve.
    """

    name: str
    at: Floats
    values: Floats
    group: str = ""
    style: Style = theme.PLAIN
    format: Callable[[float], str] = short
    top: float = 1.0

    def value(self, x: Floats, cursor: float | None) -> float:
        """Return the value in force at the cursor, or the newest; NaN before the first."""
        index = len(x) - 1 if cursor is None else int(np.searchsorted(x, cursor, side="right")) - 1
        return float(self.values[index]) if index >= 0 else math.nan


@dataclass(frozen=True, eq=False)
class RowsChart(Chart):
    """Series over time, one below the other.

    Attributes:
        clock: where the steps of the run are on every axis.
        unit: axis on which the series have their positions.
        heat: whether values are ratios to be shown as colours, which differ on both sides of 1.
        otherwise: text where nothing is to be seen.
    """

    series: Sequence[Series] = ()
    clock: Curve | None = None
    unit: str = "step"
    heat: bool = False
    otherwise: str = ""
    _positions: dict[tuple[int, str], Floats] = field(default_factory=dict, repr=False)

    @cached_property
    def is_plotted(self) -> bool:
        values = [series.values for series in self.series if len(series.values)]
        known = self.clock is not None and bool(values)
        return known and not (self.heat and all(np.allclose(row, 1.0, atol=1e-3) for row in values))

    def as_text(self) -> list[Piece]:
        return [(self.title, theme.DIM), (f" {self.otherwise}", theme.VERY_DIM)]

    def x(self, series: Series, axis: str) -> Floats:
        """Return the positions of a series on an axis."""
        key = id(series.at), axis
        if key not in self._positions:
            assert self.clock is not None
            ends = (np.r_[0.0, self.clock.x(name)] for name in (self.unit, axis))
            self._positions[key] = series.at if axis == self.unit else np.interp(series.at, *ends)
        return self._positions[key]

    @cached_property
    def _sums(self) -> list[tuple[list[int], Floats, Floats, NDArray[np.int64]]]:
        """Series with the same N positions: their indices, values, and the sums and counts of the finite ones before.

        Values are (series, N), sums and counts (series, N + 1).
        """
        alike: dict[int, list[int]] = {}
        for index, series in enumerate(self.series):
            if len(series.values):
                alike.setdefault(id(series.at), []).append(index)
        result = []
        for indices in alike.values():
            values = np.stack([self.series[index].values for index in indices])
            finite = np.isfinite(values)
            before = np.zeros((len(indices), 1))
            with np.errstate(over="ignore", invalid="ignore"):
                sums = np.hstack([before, np.cumsum(np.where(finite, values, 0.0), axis=1)])
            result.append((indices, values, sums, np.hstack([before, np.cumsum(finite, axis=1)]).astype(np.int64)))
        return result

    def by_cell(self, frame: Frame) -> Floats:
        """Return the mean of each series in each cell, or what is in force there: (series, cells), NaN outside."""
        assert self.clock is not None
        edges = frame.cell_edges()
        result = np.full((len(self.series), frame.cells), np.nan)
        for indices, values, sums, counts in self._sums:
            at = np.searchsorted(self.x(self.series[indices[0]], frame.axis), edges, side="right")
            count = np.diff(counts[:, at], axis=1)
            held = np.where(at[1:] > 0, values[:, at[1:] - 1], np.nan)
            with np.errstate(over="ignore", invalid="ignore"):
                result[indices] = np.where(count > 0, np.diff(sums[:, at], axis=1) / np.maximum(count, 1), held)
        result[:, edges[:-1] > (self.clock.x(frame.axis)[-1] if len(self.clock) else math.inf)] = np.nan
        return result


class RowsDrawing(Drawing):
    """A `RowsChart` drawn in a frame, all but what follows the cursor."""

    chart: RowsChart

    def __init__(self, chart: RowsChart, frame: Frame, columns: Sequence[DotColumns], background: Style) -> None:
        self.chart, self.frame, self.background = chart, frame, background
        self.log, self.y_range, self.canvas, self._columns = False, None, None, columns
        self._limit = WIDEST
        self._lines: list[NDArray[np.int64]] = []  # indices of the series by row
        self.plot: list[Strip] = []
        if frame.rows > 0 and frame.cells > 0 and chart.series:
            cells = chart.by_cell(frame)
            self.plot = (self._heat(cells) if chart.heat else self._curves(cells))[: frame.rows]
            self._lines = self._lines[: frame.rows]
        self.plot += [Strip.blank(self._width, background)] * (frame.rows - len(self.plot))

    def _line(self, head: str, pieces: Sequence[Piece]) -> Strip:
        gutter: Piece = (fit(head, self.frame.gutter, right=True), theme.VERY_DIM)
        return self._strip([gutter, (" │", theme.RULE), *pieces], self._width)

    # A heat map: as many series as there are rows, or halves of rows, share the room; of more, some share a row.

    def _heat(self, ratios: Floats) -> list[Strip]:
        halves = 1 if theme.current().ramp else 2
        rows, count = self.frame.rows * halves, len(ratios)
        starts = np.arange(rows) * count // max(1, rows)
        ends = np.maximum(starts + 1, (np.arange(rows) + 1) * count // max(1, rows))
        shown = np.add.reduceat(ratios, starts, axis=0) / (ends - starts)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            powers = np.log2(shown)
        known = np.abs(powers[np.isfinite(powers)])
        self._limit = float(np.clip(known.max() if len(known) else 0.0, NARROWEST, WIDEST))
        share = powers / self._limit
        levels = np.where(np.isnan(share), np.nan, np.rint(np.clip(share, -1.0, 1.0) * LEVELS))
        self._lines = [np.arange(starts[row], ends[row + halves - 1]) for row in range(0, rows, halves)]
        lines, before = [], ""
        for line, tasks in enumerate(self._lines):
            # The first group that begins in the row.
            begun = next((g for g in (self.chart.series[i].group for i in tasks) if g != before), "")
            before = self.chart.series[tasks[-1]].group
            lines.append(self._line(begun, self._heat_cells(levels[line * halves : (line + 1) * halves])))
        return lines

    def _heat_cells(self, levels: Floats) -> list[Piece]:
        looks = [tuple(column) for column in np.nan_to_num(levels, nan=UNKNOWN).astype(int).T.tolist()]
        looked = _looks()
        pieces: list[Piece] = []
        for look, same in groupby(looks):
            glyph, upper = looked[look[0]]
            if len(look) == 2:
                glyph, upper = "▀", upper + Style(bgcolor=looked[look[1]][1].color)
            pieces.append((glyph * len(list(same)), upper))
        return pieces

    # Small curves: every series has its own scale, from 0 to the value in the gutter.

    def _curves(self, cells: Floats) -> list[Strip]:
        lines = []
        height = max(1, self.frame.rows // max(1, len(cells)))
        self._lines = []
        for index, (series, row) in enumerate(zip(self.chart.series, cells, strict=True)):
            eighths = np.rint(np.clip(row / (series.top or 1.0), 0.0, 1.0) * height * 8)
            for line in reversed(range(height)):
                filled = np.clip(eighths - line * 8, 1 if line == 0 else 0, 8)
                text = "".join(BLANK_AND_SPARKS[int(n)] for n in np.nan_to_num(filled))
                top = line == height - 1
                lines.append(self._line(series.format(series.top) if top else "", [(text, series.style)]))
                self._lines.append(np.array([index] if top else [], np.int64))
        return lines

    # What follows the cursor.

    def with_hairline(self, cursor: float | None) -> list[Strip]:
        dot = -1 if cursor is None else self.frame.dot(cursor)
        if dot < 0:
            return self.plot
        rows, column = list(self.plot), self.frame.left + dot // 2
        for row in range(0, self.frame.rows, 3):
            (segment,) = rows[row].crop(column, column + 1)
            style = (segment.style or Style()) + theme.PLAIN
            rows[row] = with_cell(rows[row], column, HAIRLINE[dot % 2], style)
        return rows

    def labels(self, cursor: float | None, reference: str, exact: Mapping[str, float] = NOTHING) -> list[Label]:
        """Return for each row its series, or of several the one farthest from 1 in the end; a label's value is its row.

        The names stay where they are while the cursor moves.
        """
        labels = []
        for row, members in enumerate(self._lines):
            if len(members):
                series = max((self.chart.series[i] for i in members), key=_strength)
                value = series.value(self.chart.x(series, self.frame.axis), cursor)
                text = series.format(value) if math.isfinite(value) else "–"
                labels.append(Label(row, text, series.name, self._style_at(value, series)))
        return labels

    def _style_at(self, value: float, series: Series) -> Style:
        if not self.chart.heat:
            return series.style
        return theme.DIM if value < 1 else theme.PLAIN

    def side(self, labels: Sequence[Label]) -> list[Strip]:
        width = self.frame.side
        strips = [Strip.blank(width + 1, self.background)] * self.frame.rows
        size = max((cell_len(label.text) for label in labels), default=0)
        for label in labels:
            text = cut(f" {fit(label.text, size, right=True)} {label.name}", width + 1)
            strips[int(label.value)] = self._strip([(text, label.style)], width + 1)
        return strips

    def note(self) -> list[Piece]:
        """Return the colour scale of a heat map."""
        if not self.chart.heat:
            return []
        ends = [f"×{2.0**power:.2g}" for power in (-self._limit, self._limit)]
        looked = _looks()
        cells = [looked[level] for level in range(-LEVELS, LEVELS + 1, 2)]
        return [(f"  {ends[0]} ", theme.VERY_DIM), *cells, (f" {ends[1]}", theme.VERY_DIM)]


def _strength(series: Series) -> float:
    """Return how far the newest value is from 1, as a ratio."""
    newest = float(series.values[-1]) if len(series.values) else math.nan
    return abs(math.log(newest)) if 0 < newest < math.inf else -1.0


def _looks() -> dict[int, Piece]:
    """Return how a full cell of each level looks in the palette in use."""
    shares = np.linspace(0.0, 1.0, 2 * LEVELS + 1)
    if theme.current().ramp:
        looks: list[Piece] = [(theme.diverging_ramp(share), theme.PLAIN) for share in shares.tolist()]
    else:
        looks = [("█", Style(color=Color.from_rgb(*rgb))) for rgb in theme.diverging(shares).tolist()]
    unknown: Piece = (" ", Style(color=theme.BACKGROUND))
    return dict(enumerate(looks, start=-LEVELS)) | {UNKNOWN: unknown}
