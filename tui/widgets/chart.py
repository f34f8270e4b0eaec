"""The contents of a chart, and the frame that it is drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from rich.style import Style

from accl.store.curve import Curve
from tui import theme
from tui.raster import Floats, Range
from tui.scale import log_ticks, percent, short, ticks
from tui.text import Piece

TIME_UNITS = ((7200.0, 3600.0, " h"), (120.0, 60.0, " m"), (0.0, 1.0, " s"))


@dataclass(frozen=True, eq=False)  # curves are compared by identity
class Line:
    """One series.

    Attributes:
        kind: ``points`` for values that were measured now and then, such as evaluations.
        band: whether the spread is drawn behind the line.
        detail: finer bins of a part of the curve, taken while no more than that part is visible.
        metric: of which the values are known one by one; the median of several is then marked as such.
        symbol: what marks a point.
    """

    name: str
    curve: Curve
    style: Style
    kind: Literal["line", "points"] = "line"
    band: bool = True
    detail: Curve | None = None
    metric: str = ""
    symbol: str = "•"

    def within(self, axis: str, x_range: Range) -> Curve:
        """Return the finest bins that there are of a range."""
        if self.detail is None or not len(self.detail):
            return self.curve
        fine, all_x = self.detail.x(axis), self.curve.x(axis)
        inside = fine[0] <= max(x_range[0], all_x[0]) and fine[-1] >= min(x_range[1], all_x[-1])
        return self.detail if inside else self.curve


@dataclass(frozen=True)
class Floor:
    """A value to compare the lines with, drawn as a dashed horizontal line."""

    name: str
    value: float
    style: Style


@dataclass(frozen=True)
class Mark:
    """A moment that is marked on the x axis, at a position on one of its units."""

    symbol: str
    style: Style
    at: float
    axis: str = "step"


@dataclass(frozen=True, eq=False)  # curves are compared by identity
class Chart:
    """The contents of a chart; the same object is drawn once.

    Attributes:
        shares: whether the values are formatted as percentages; they are then never drawn on a log axis.
        metrics: names of the metrics, which a filter is also tried on.
        first: whether the chart belongs to the first page, where charts stand below each other.
        fixed_rows: rows that the plot takes on the first page; 0 takes a share of what is left.
    """

    title: str
    lines: tuple[Line, ...] = ()
    floors: tuple[Floor, ...] = ()
    shares: bool = False
    metrics: tuple[str, ...] = ()
    first: bool = False
    fixed_rows: int = 0

    @cached_property
    def is_plotted(self) -> bool:
        """Whether there is a line to see; a single value is a text, and a constant that no floor is compared with."""
        curves = [line.curve for line in self.lines if len(line.curve) > 1]
        return bool(curves) and (bool(self.floors) or _vary(curves))

    def format(self, value: float, step: float | None = None) -> str:
        if math.isnan(value):
            return "NaN"
        return (percent if self.shares else short)(value, step)

    def as_text(self) -> list[Piece]:
        """Return the title and the single values as text."""
        pieces: list[Piece] = [(self.title, theme.DIM)]
        for line in self.lines:
            name = f" {line.name}" if len(self.lines) > 1 else ""
            for value, step in zip(line.curve.median[-1:], line.curve.last[-1:], strict=True):
                pieces.append((f"{name} {self.format(float(value))} @{step:,}", line.style))
        return pieces if len(pieces) > 1 else [*pieces, (" no values yet", theme.VERY_DIM)]


@dataclass(frozen=True)
class Frame:
    """Where and how a chart is drawn: the same for all charts of a screen, but for the sizes.

    Attributes:
        width, height: of the whole chart, in cells.
        gutter: cells of the labels of the y axis.
        side: cells of the values beside the plot; 0 puts them into the title.
        labelled: whether the x axis has its labels.
        patterned: whether lines differ by their dot patterns, where the terminal has no colours.
    """

    width: int
    height: int
    gutter: int
    side: int
    axis: str
    x_range: Range
    log: bool = False
    raw: bool = False
    labelled: bool = True
    patterned: bool = False

    @property
    def cells(self) -> int:
        """Cells of a row of the plot."""
        return max(0, self.width - self.gutter - 2 - (self.side + 1 if self.side else 0))

    @property
    def left(self) -> int:
        """Column of the first cell of the plot."""
        return self.gutter + 2

    @property
    def rows(self) -> int:
        """Rows of the plot, without the title, the rule of the x axis and its labels."""
        return max(0, self.height - 2 - self.labelled)

    @cached_property
    def x_ticks(self) -> list[float]:
        """Return the positions of the ticks: both ends of the axis, and round ones between."""
        size, _ = _unit(self)
        low, high = self.x_range
        inner = [value * size for value in ticks((low / size, high / size), max(1, self.cells // 14))]
        return sorted({low, high, *(value for value in inner if low < value < high)})

    @cached_property
    def x_labels(self) -> str:
        """Return the line below the x axis: both ends are labelled, and of the other ticks those that have room."""
        positions = self.x_ticks
        text = [" "] * self.cells
        for x in [positions[0], positions[-1], *positions[1:-1]]:
            label, cell = x_text(x, self), self.dot(x) // 2
            start = max(0, min(cell - len(label) // 2, self.cells - len(label)))
            around = text[max(0, start - 2) : start + len(label) + 2]
            if all(character == " " for character in around) and len(label) <= self.cells:
                text[start : start + len(label)] = label
        return "".join(text)

    def dot(self, x: float) -> int:
        """Return the dot column of a position on the x axis, -1 outside the visible range."""
        low, high = self.x_range
        return round((x - low) / (high - low) * (self.cells * 2 - 1)) if low <= x <= high else -1

    def cell_edges(self) -> Floats:
        """Return the positions between which the cells of the plot lie, one more than there are cells."""
        low, high = self.x_range
        return low + (high - low) * (np.arange(self.cells + 1) * 2 - 0.5) / max(1, self.cells * 2 - 1)

    def x(self, cell: float) -> float:
        """Return the position on the x axis of a cell of the plot."""
        low, high = self.x_range
        return low + (high - low) * min(max(cell / max(1, self.cells - 1), 0.0), 1.0)


def _vary(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([ends for curve in curves for ends in (curve.lowest, curve.highest)])
    return any(curve.broken.any() for curve in curves) or not np.allclose(values, values[0], rtol=1e-6, atol=0.0)


def broken_since(curve: Curve) -> int | None:
    """Return the first step of the broken values at the end of a curve, None if its newest value is finite."""
    finite = np.flatnonzero(np.isfinite(curve.median))
    after = int(finite[-1]) + 1 if len(finite) else 0
    return int(curve.first[after]) if after < len(curve) else None


def y_ticks(y_range: Range, rows: int, log: bool) -> list[float]:
    """Return the values of the y axis that are labelled."""
    return (log_ticks if log else ticks)(y_range, max(2, rows // 2 - 1))


def tick_step(values: Sequence[float], log: bool) -> float | None:
    """Return the distance of ticks, which sets their decimals."""
    return values[1] - values[0] if len(values) > 1 and not log else None


def _unit(frame: Frame) -> tuple[float, str]:
    if frame.axis != "time":
        return 1.0, ""
    return next((size, suffix) for minimum, size, suffix in TIME_UNITS if frame.x_range[1] >= minimum or not minimum)


def x_text(x: float, frame: Frame) -> str:
    """Format a position on the x axis."""
    size, suffix = _unit(frame)
    low, high = frame.x_range
    resolution = 10.0 ** math.floor(math.log10((high - low) / size / 20)) if high > low else None
    if abs(x) >= size * 1e4 and frame.axis == "step":
        return f"{round(x):,}"
    return short(x / size, resolution) + suffix
