"""One chart: lines with bands, points, floors, ticks, marks, and the values of its lines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from accl.store.curve import Curve
from tui import theme
from tui.plot import (
    Canvas,
    DotColumns,
    Kind,
    band_dots,
    canvas,
    dot_columns,
    median_line,
    put_grid,
    put_points,
    raw_line,
    visible_range,
)
from tui.raster import Range, cell_row, dashed_line
from tui.scale import finite_range, log_ticks, padded, percent, short, ticks
from tui.text import Piece, cell_len, cut, fit, strip

TIME_UNITS = ((7200.0, 3600.0, " h"), (120.0, 60.0, " m"), (0.0, 1.0, " s"))
HAIRLINE = ("⡇", "⢸")
# Behind the lines, and along those that join points.
BAND_SHARE, FAINT_SHARE = 0.22, 0.45


@dataclass(frozen=True, eq=False)  # curves are compared by identity
class Line:
    """One series.

    Attributes:
        kind: ``points`` for values that were measured now and then, such as evaluations.
        band: whether the spread is drawn behind the line.
        detail: finer bins of a part of the curve, taken while no more than that part is visible.
    """

    name: str
    curve: Curve
    style: Style
    kind: Literal["line", "points"] = "line"
    band: bool = True
    detail: Curve | None = None

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
    """What a chart shows; one that is shown again unchanged is not drawn again.

    Attributes:
        shares: whether the values are formatted as percentages; they are then never drawn on a log axis.
        metrics: names of the metrics, which a filter is also tried on.
    """

    title: str
    lines: tuple[Line, ...] = ()
    floors: tuple[Floor, ...] = ()
    shares: bool = False
    metrics: tuple[str, ...] = ()

    @property
    def is_plotted(self) -> bool:
        """Whether a line has two values or more; a single value is a text."""
        return any(len(line.curve) > 1 for line in self.lines)

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

    def dot(self, x: float) -> int:
        """Return the dot column of a position on the x axis, -1 outside the visible range."""
        low, high = self.x_range
        return round((x - low) / (high - low) * (self.cells * 2 - 1)) if low <= x <= high else -1

    def x(self, cell: float) -> float:
        """Return the position on the x axis of a cell of the plot."""
        low, high = self.x_range
        return low + (high - low) * min(max(cell / max(1, self.cells - 1), 0.0), 1.0)


class Label(NamedTuple):
    """A value and the name of its line."""

    value: float
    text: str
    name: str
    style: Style


class Drawing:
    """A chart drawn in a frame, all but what follows the cursor: the values and the hairline."""

    def __init__(self, chart: Chart, frame: Frame, columns: Sequence[DotColumns], background: Style) -> None:
        self.chart, self.frame, self.background = chart, frame, background
        self.log = frame.log and not chart.shares
        self.y_range = y_range = y_bounds(chart, columns, self.log, frame.raw)
        self._columns = columns
        self.tick_values = y_ticks(y_range, frame.rows, self.log) if y_range else []
        self._styles: dict[tuple[int, int, int], Style] = {}
        self.canvas = self._canvas() if y_range and frame.rows > 0 and frame.cells > 0 else None
        self.plot = self._rows() if self.canvas else self._empty()

    def _empty(self) -> list[Strip]:
        message = "nothing above 0 for a logarithmic axis" if self.log and self.chart.is_plotted else "no values here"
        text = strip(
            [(" " * self.frame.left, theme.DIM), (cut(message, self.frame.cells), theme.VERY_DIM)], self._width
        )
        blank = Strip.blank(self._width, self.background)
        return [text.apply_style(self.background), *[blank] * self.frame.rows][: self.frame.rows]

    @property
    def _width(self) -> int:
        return self.frame.left + self.frame.cells

    def _canvas(self) -> Canvas:
        frame, lines = self.frame, self.chart.lines
        cells, rows, y_range, log = frame.cells, frame.rows, self.y_range, self.log
        assert y_range is not None
        layers, bands = [], []
        for index, (line, columns) in enumerate(zip(lines, self._columns, strict=True)):
            # More points than cells are a line.
            points = line.kind == "points" and np.isfinite(columns.median).sum() <= cells
            if frame.raw and not points:
                bits = raw_line(
                    line.within(frame.axis, frame.x_range), frame.axis, cells, rows, frame.x_range, y_range, log
                )
            else:
                bits = median_line(columns, cells, rows, y_range, log, index if frame.patterned else 0)
            layers.append((bits, Kind.FAINT if points else Kind.LINE))
            banded = line.band and line.style.color is not None and not points and not frame.raw
            bands.append(band_dots(columns, cells, rows, y_range, log) if banded else np.zeros((rows, cells), np.int64))
        floors = [dashed_line(floor.value, cells, rows, y_range, log) for floor in self.chart.floors]
        drawn = canvas(layers, bands, floors, (rows, cells))
        for index, (line, (_, kind)) in enumerate(zip(lines, layers, strict=True)):
            if kind == Kind.FAINT:
                put_points(drawn, line.curve, frame.axis, frame.x_range, y_range, log, index)
        tick_rows = [row for value in self.tick_values if (row := cell_row(value, rows, y_range, log)) >= 0]
        put_grid(drawn, tick_rows, [dot // 2 for value in x_ticks(frame) if (dot := frame.dot(value)) >= 0])
        return drawn

    def _rows(self) -> list[Strip]:
        assert self.canvas is not None
        assert self.y_range is not None
        frame, drawn = self.frame, self.canvas
        step = tick_step(self.tick_values, self.log)
        at = {cell_row(v, frame.rows, self.y_range, self.log): self.chart.format(v, step) for v in self.tick_values}
        looks = np.stack([drawn.kinds, drawn.owner, drawn.band])
        result = []
        for row in range(frame.rows):
            segments = [
                Segment(fit(at.get(row, ""), frame.gutter, right=True), self.background + theme.DIM),
                Segment(" ┤" if row in at else " │", self.background + theme.RULE),
            ]
            text = drawn.glyphs[row].tobytes().decode("utf-32-le")
            edges = np.flatnonzero((looks[:, row, 1:] != looks[:, row, :-1]).any(axis=0)) + 1
            for start, end in zip([0, *edges], [*edges, frame.cells], strict=True):
                segments.append(Segment(text[start:end], self._style(*looks[:, row, start].tolist())))
            result.append(Strip(segments, self._width))
        return result

    def _style(self, kind: int, owner: int, band: int) -> Style:
        look = (kind, owner, band)
        if look not in self._styles:
            style = theme.RULE
            if kind == Kind.FLOOR:
                style = theme.faded(self.chart.floors[owner].style, 0.7)
            elif kind >= Kind.FAINT:
                style = self.chart.lines[owner].style
                style = theme.faded(style, FAINT_SHARE) if kind == Kind.FAINT else style
            if band >= 0:
                style += Style(bgcolor=theme.faded(self.chart.lines[band].style, BAND_SHARE).color)
            self._styles[look] = self.background + style
        return self._styles[look]

    def with_hairline(self, cursor: float | None) -> list[Strip]:
        """Return the rows of the plot with the cursor: dotted, in every third row, and under the lines.

        Each row that the hairline leaves alone is one less that goes to the terminal when the cursor moves.
        """
        dot = -1 if cursor is None else self.frame.dot(cursor)
        if dot < 0 or self.canvas is None:
            return self.plot
        cell, glyph = dot // 2, HAIRLINE[dot % 2]
        rows, column = list(self.plot), self.frame.left + cell
        for row in range(0, self.frame.rows, 3):
            if self.canvas.kinds[row, cell] <= Kind.GRID:
                style = self._style(Kind.EMPTY, -1, int(self.canvas.band[row, cell])) + theme.PLAIN
                rows[row] = with_cell(rows[row], column, glyph, style)
        return rows

    def labels(self, cursor: float | None, reference: str) -> list[Label]:
        """Return values and names by value, the largest first: at the cursor, or the newest ones."""
        values = [self.value(line, cursor) for line in self.chart.lines]
        known = {line.name: value for line, value in zip(self.chart.lines, values, strict=True)}
        base = known.get(reference, math.nan)
        labels = []
        for line, value in zip(self.chart.lines, values, strict=True):
            name = line.name
            if math.isfinite(base) and math.isfinite(value) and name != reference:
                points = (value - base) * 100 if self.chart.shares else value - base
                name = (
                    f"{points:+.1f} {name}"
                    if self.chart.shares
                    else f"{'+' if points >= 0 else ''}{short(points)} {name}"
                )
            if cursor is None and (since := broken_since(line.curve)) is not None:
                name = f"since {since:,} {name}"
            labels.append(Label(value, "–" if value == -math.inf else self.chart.format(value), name, line.style))
        labels += [Label(f.value, self.chart.format(f.value), f"╌ {f.name}", f.style) for f in self.chart.floors]
        return sorted(labels, key=lambda label: -label.value if math.isfinite(label.value) else math.inf)

    def value(self, line: Line, cursor: float | None) -> float:
        """Return the value of a line at the cursor, or its newest; -inf where it has none, NaN where it is broken."""
        if not len(line.curve):
            return -math.inf
        if cursor is None:
            return line.curve.newest
        curve = line.within(self.frame.axis, self.frame.x_range)
        x = curve.x(self.frame.axis)
        by_step = self.frame.axis == "step"
        index = curve.at(cursor) if by_step else int(np.searchsorted(x, cursor, side="right")) - 1
        low, high = self.frame.x_range
        ended = line.kind == "line" and cursor > line.curve.x(self.frame.axis)[-1] + (high - low) / max(
            1, self.frame.cells
        )
        return -math.inf if index < 0 or ended else float(curve.median[index])

    def side(self, labels: Sequence[Label]) -> list[Strip]:
        """Return a strip for each row of the plot: the labels in the rows of their values, or the nearest free ones."""
        rows, width = self.frame.rows, self.frame.side
        shown = labels[:rows]
        size = max((cell_len(label.text) for label in shown), default=0)
        strips = [Strip.blank(width + 1)] * rows
        row = -1
        for i, label in enumerate(shown):
            wanted = cell_row(label.value, rows, self.y_range, self.log) if self.y_range else -1
            row = min(max(wanted if wanted >= 0 else 0, row + 1), rows - len(shown) + i)
            text = cut(f"{fit(label.text, size, right=True)} {label.name}", width)
            strips[row] = strip([(" " + text, label.style)], width + 1)
        return [line.apply_style(self.background) for line in strips]

    def title(self, labels: Sequence[Label], focused: bool) -> Strip:
        """Return the first line: the title, and the values unless they stand beside the plot."""
        style = theme.TITLE + Style(underline=True) if focused else theme.TITLE
        pieces: list[Piece] = [(self.chart.title, style), ("  log" if self.log else "", theme.VERY_DIM)]
        if not self.frame.side:
            pieces += [(f"  {label.text} {label.name}", label.style) for label in labels]
        line = strip([(cut(text, self.frame.width), look) for text, look in pieces], self.frame.width)
        return line.apply_style(self.background)

    def rule(self, marks: Mapping[int, Mark]) -> Strip:
        """Return the rule of the x axis with ticks, marks by cell, and a cross where a value is broken."""
        frame = self.frame
        signs: dict[int, Piece] = {dot // 2: ("┴", theme.RULE) for x in x_ticks(frame) if (dot := frame.dot(x)) >= 0}
        signs |= {cell: (mark.symbol, mark.style) for cell, mark in marks.items()}
        for line, columns in zip(self.chart.lines, self._columns, strict=True):
            signs |= dict.fromkeys((np.flatnonzero(columns.broken) // 2).tolist(), ("×", line.style))
        pieces: list[Piece] = [(" " * (frame.gutter + 1) + "└", theme.RULE)]
        end = 0
        for cell, sign in sorted(signs.items()):
            pieces += [("─" * (cell - end), theme.RULE), sign]
            end = cell + 1
        pieces.append(("─" * (frame.cells - end), theme.RULE))
        return strip(pieces, frame.width).apply_style(self.background)

    def x_axis(self, rule: Strip, cursor: float | None) -> list[Strip]:
        """Return the rule and the labels below it, with the cursor."""
        frame = self.frame
        at = -1 if cursor is None else frame.dot(cursor) // 2
        lines = [rule if at < 0 else with_cell(rule, frame.left + at, "▲", self.background + theme.BOLD)]
        if frame.labelled:
            text = x_labels(frame)
            pieces: list[Piece] = [(fit(frame.axis, frame.gutter, right=True) + "  ", theme.VERY_DIM)]
            if cursor is not None and at >= 0:
                label = x_text(cursor, frame)
                start = max(0, min(at - len(label) // 2, frame.cells - len(label)))
                end = start + len(label)
                # A number that the label covers in part would be read as another number.
                hidden = [m for m in re.finditer(r"\S+", text) if start - 1 <= m.end() and m.start() <= end]
                free = text
                for m in hidden:
                    free = free[: m.start()] + " " * len(m[0]) + free[m.end() :]
                pieces += [(free[:start], theme.DIM), (label, theme.BOLD), (free[end:], theme.DIM)]
            else:
                pieces.append((text, theme.DIM))
            lines.append(strip(pieces, frame.width, self.background).apply_style(self.background))
        return lines


def with_cell(line: Strip, column: int, glyph: str, style: Style) -> Strip:
    """Return a line with another glyph in one cell."""
    before, _, after = line.divide([column, column + 1, line.cell_length])
    return Strip([*before, Segment(glyph, style), *after], line.cell_length)


def broken_since(curve: Curve) -> int | None:
    """Return the first step of the broken values at the end of a curve, None if its newest value is finite."""
    finite = np.flatnonzero(np.isfinite(curve.median))
    after = int(finite[-1]) + 1 if len(finite) else 0
    return int(curve.first[after]) if after < len(curve) else None


def y_bounds(chart: Chart, columns: Sequence[DotColumns], log: bool, raw: bool) -> Range | None:
    """Return the range of the y axis for what is visible, with floors and a margin; None without values."""
    found = visible_range(columns, raw, log)
    if found is None:
        return None
    floors = np.array([floor.value for floor in chart.floors], np.float64)
    return padded(finite_range([np.array(found), floors], positive=log) or found, log)


def y_ticks(y_range: Range, rows: int, log: bool) -> list[float]:
    """Return the values of the y axis that are labelled."""
    return (log_ticks if log else ticks)(y_range, max(2, rows // 2 - 1))


def tick_step(values: Sequence[float], log: bool) -> float | None:
    """Return the distance of ticks, which sets their decimals."""
    return values[1] - values[0] if len(values) > 1 and not log else None


def gutter_width(chart: Chart, y_range: Range | None, rows: int, log: bool) -> int:
    """Return the cells that the labels of the y axis take."""
    values = y_ticks(y_range, rows, log) if y_range else []
    return max([cell_len(chart.format(value, tick_step(values, log))) for value in values] + [4])


def _unit(frame: Frame) -> tuple[float, str]:
    if frame.axis != "time":
        return 1.0, ""
    return next((size, suffix) for minimum, size, suffix in TIME_UNITS if frame.x_range[1] >= minimum or not minimum)


def x_ticks(frame: Frame) -> list[float]:
    """Return the positions of the ticks: both ends of the axis, and round ones between."""
    size, _ = _unit(frame)
    low, high = frame.x_range
    inner = [value * size for value in ticks((low / size, high / size), max(1, frame.cells // 14))]
    return sorted({low, high, *(value for value in inner if low < value < high)})


def x_text(x: float, frame: Frame) -> str:
    """Format a position on the x axis."""
    size, suffix = _unit(frame)
    low, high = frame.x_range
    resolution = 10.0 ** math.floor(math.log10((high - low) / size / 20)) if high > low else None
    if abs(x) >= size * 1e4 and frame.axis == "step":
        return f"{round(x):,}"
    return short(x / size, resolution) + suffix


def x_labels(frame: Frame) -> str:
    """Return the line below the x axis: both ends are labelled, and of the other ticks those that have room."""
    positions = x_ticks(frame)
    text = [" "] * frame.cells
    for x in [positions[0], positions[-1], *positions[1:-1]]:
        label, cell = x_text(x, frame), frame.dot(x) // 2
        start = max(0, min(cell - len(label) // 2, frame.cells - len(label)))
        around = text[max(0, start - 2) : start + len(label) + 2]
        if all(character == " " for character in around) and len(label) <= frame.cells:
            text[start : start + len(label)] = label
    return "".join(text)


def gather(chart: Chart, axis: str, x_range: Range, cells: int) -> list[DotColumns]:
    """Gather the lines of a chart by the dot columns of so many cells."""
    return [dot_columns(line.within(axis, x_range), axis, x_range, cells * 2) for line in chart.lines]
