"""One chart drawn: lines with bands, points, floors, ticks, marks, and the values of its lines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.style import Style
from textual.strip import Strip

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
from tui.scale import finite_range, padded, short
from tui.text import Piece, cell_len, cut, fit, glyph_strip, strip, with_cell
from tui.widgets.chart import Chart, Frame, Line, Mark, broken_since, tick_step, x_text, y_ticks
from tui.widgets.text import shorten

HAIRLINE = ("⡇", "⢸")
# Behind the lines, and along those that join points.
BAND_SHARE, FAINT_SHARE = 0.22, 0.45
SAMPLES = ("━━", "━╸", "╺╺", "━·")  # of `tui.plot.PATTERNS`
NOTHING: Mapping[str, float] = {}


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

    def _strip(self, pieces: Sequence[Piece], width: int) -> Strip:
        """Make a line of pieces that has its background."""
        return strip([(text, self.background + style) for text, style in pieces], width, self.background)

    def _empty(self) -> list[Strip]:
        message = "nothing above 0 for a logarithmic axis" if self.log and self.chart.is_plotted else "no values here"
        gutter = " " * self.frame.left, theme.DIM
        text = self._strip([gutter, (cut(message, self.frame.cells), theme.VERY_DIM)], self._width)
        return [text, *[Strip.blank(self._width, self.background)] * self.frame.rows][: self.frame.rows]

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
                put_points(drawn, line.curve, frame.axis, frame.x_range, y_range, log, index, line.symbol)
        tick_rows = [row for value in self.tick_values if (row := cell_row(value, rows, y_range, log)) >= 0]
        put_grid(drawn, tick_rows, [dot // 2 for value in frame.x_ticks if (dot := frame.dot(value)) >= 0])
        return drawn

    def _rows(self) -> list[Strip]:
        assert self.canvas is not None
        assert self.y_range is not None
        frame, drawn = self.frame, self.canvas
        step = tick_step(self.tick_values, self.log)
        at = {cell_row(v, frame.rows, self.y_range, self.log): self.chart.format(v, step) for v in self.tick_values}
        lines: list[list[Piece]] = [
            [
                (fit(at.get(row, ""), frame.gutter, right=True), self.background + theme.DIM),
                (" ┤" if row in at else " │", self.background + theme.RULE),
            ]
            for row in range(frame.rows)
        ]
        texts = [glyphs.tobytes().decode("utf-32-le") for glyphs in drawn.glyphs]
        # A blank goes on with the style before it: fewer pieces look the same.
        last = np.maximum.accumulate(np.where(drawn.kinds == Kind.EMPTY, 0, np.arange(frame.cells)), axis=1)
        looks = np.stack([*(np.take_along_axis(look, last, axis=1) for look in (drawn.kinds, drawn.owner)), drawn.band])
        begins = np.ones((frame.rows, frame.cells), bool)
        begins[:, 1:] = (looks[:, :, 1:] != looks[:, :, :-1]).any(axis=0)
        rows, starts = np.nonzero(begins)
        ends = np.r_[starts[1:], 0]  # the next of a row's last begins the next row
        ends[ends == 0] = frame.cells
        for row, start, end, look in zip(
            rows.tolist(), starts.tolist(), ends.tolist(), looks[:, rows, starts].T.tolist(), strict=True
        ):
            lines[row].append((texts[row][start:end], self._style(*look)))
        return [glyph_strip(pieces, self._width) for pieces in lines]

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

    def labels(self, cursor: float | None, reference: str, exact: Mapping[str, float] = NOTHING) -> list[Label]:
        """Return values and names, of the lines and then of the floors: at the cursor, or the newest ones.

        The values of ``exact``, by metric, are taken for the medians of bins, which are marked by ``~``.
        """
        read = [self.value(line, cursor, exact) for line in self.chart.lines]
        values = [value for value, _ in read]
        known = {line.name: value for line, value in zip(self.chart.lines, values, strict=True)}
        base = known.get(reference, math.nan)
        labels = []
        for index, (line, (value, is_median)) in enumerate(zip(self.chart.lines, read, strict=True)):
            name = line.name
            if math.isfinite(base) and math.isfinite(value) and line.name != reference:
                points = (value - base) * 100 if self.chart.shares else value - base
                name = (
                    f"{points:+.1f} {name}"
                    if self.chart.shares
                    else f"{'+' if points >= 0 else ''}{short(points)} {name}"
                )
            if cursor is None and (since := broken_since(line.curve)) is not None:
                name = f"since {since:,} {name}"
            if self.frame.patterned and len(values) > 1:
                name += f" {SAMPLES[index % len(SAMPLES)]}"
            text = "–" if value == -math.inf else "~" * is_median + self.chart.format(value)
            labels.append(Label(value, text, name, line.style))
        return labels + [Label(f.value, self.chart.format(f.value), f"╌ {f.name}", f.style) for f in self.chart.floors]

    def value(self, line: Line, cursor: float | None, exact: Mapping[str, float]) -> tuple[float, bool]:
        """Return the value of a line at the cursor, or its newest, and whether it is the median of several.

        It is -inf where there is none, and NaN where it is broken.
        """
        if not len(line.curve):
            return -math.inf, False
        if line.metric in exact:
            value = exact[line.metric]
            return (value if math.isfinite(value) else math.nan), False
        if cursor is None:
            return line.curve.newest, bool(line.metric and line.curve.n[-1] > 1)
        curve = line.within(self.frame.axis, self.frame.x_range)
        x = curve.x(self.frame.axis)
        by_step = self.frame.axis == "step"
        index = curve.at(cursor) if by_step else int(np.searchsorted(x, cursor, side="right")) - 1
        low, high = self.frame.x_range
        ended = line.kind == "line" and cursor > line.curve.x(self.frame.axis)[-1] + (high - low) / max(
            1, self.frame.cells
        )
        if index < 0 or ended:
            return -math.inf, False
        return float(curve.median[index]), bool(line.metric and curve.n[index] > 1)

    def side(self, labels: Sequence[Label]) -> list[Strip]:
        """Return a strip for each row of the plot: the labels in the rows of their values, or the nearest free ones."""
        rows, width = self.frame.rows, self.frame.side
        by_value = sorted(labels, key=lambda label: -label.value if math.isfinite(label.value) else math.inf)
        shown = by_value[:rows]
        size = max((cell_len(label.text) for label in shown), default=0)
        strips = [Strip.blank(width + 1, self.background)] * rows
        row = -1
        for i, label in enumerate(shown):
            wanted = cell_row(label.value, rows, self.y_range, self.log) if self.y_range else -1
            row = min(max(wanted if wanted >= 0 else 0, row + 1), rows - len(shown) + i)
            text = cut(f"{fit(label.text, size, right=True)} {label.name}", width)
            strips[row] = self._strip([(" " + text, label.style)], width + 1)
        return strips

    def title(self, labels: Sequence[Label], focused: bool) -> Strip:
        """Return the first line: the title, and the values unless they stand beside the plot."""
        style = theme.TITLE + Style(underline=True) if focused else theme.TITLE
        pieces: list[Piece] = [(self.chart.title, style), *self.note()]
        if not self.frame.side:
            pieces += [(f"  {label.text} {label.name}", label.style) for label in labels]
        return self._strip(shorten(pieces, self.frame.width), self.frame.width)

    def note(self) -> list[Piece]:
        """Return what stands behind the title."""
        return [("  log", theme.VERY_DIM)] if self.log else []

    def rule(self, marks: Mapping[int, Mark]) -> Strip:
        """Return the rule of the x axis with ticks, marks by cell, and a cross where a value is broken."""
        frame = self.frame
        signs: dict[int, Piece] = {dot // 2: ("┴", theme.RULE) for x in frame.x_ticks if (dot := frame.dot(x)) >= 0}
        signs |= {cell: (mark.symbol, mark.style) for cell, mark in marks.items()}
        for line, columns in zip(self.chart.lines, self._columns, strict=True):
            signs |= dict.fromkeys((np.flatnonzero(columns.broken) // 2).tolist(), ("×", line.style))
        pieces: list[Piece] = [(" " * (frame.gutter + 1) + "└", theme.RULE)]
        end = 0
        for cell, sign in sorted(signs.items()):
            pieces += [("─" * (cell - end), theme.RULE), sign]
            end = cell + 1
        pieces.append(("─" * (frame.cells - end), theme.RULE))
        return self._strip(pieces, frame.width)

    def x_axis(self, rule: Strip, cursor: float | None) -> list[Strip]:
        """Return the rule and the labels below it, with the cursor."""
        frame = self.frame
        at = -1 if cursor is None else frame.dot(cursor) // 2
        lines = [rule if at < 0 else with_cell(rule, frame.left + at, "▲", self.background + theme.BOLD)]
        if frame.labelled:
            text = frame.x_labels
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
            lines.append(self._strip(pieces, frame.width))
        return lines


def y_bounds(chart: Chart, columns: Sequence[DotColumns], log: bool, raw: bool) -> Range | None:
    """Return the range of the y axis for what is visible, with floors and a margin; None without values."""
    found = visible_range(columns, raw, log)
    if found is None:
        return None
    floors = np.array([floor.value for floor in chart.floors], np.float64)
    return padded(finite_range([np.array(found), floors], positive=log) or found, log)


def gutter_width(chart: Chart, y_range: Range | None, rows: int, log: bool) -> int:
    """Return the cells that the labels of the y axis take."""
    values = y_ticks(y_range, rows, log) if y_range else []
    return max([cell_len(chart.format(value, tick_step(values, log))) for value in values] + [4])


def gather(chart: Chart, axis: str, x_range: Range, cells: int) -> list[DotColumns]:
    """Gather the lines of a chart by the dot columns of so many cells."""
    return [dot_columns(line.within(axis, x_range), axis, x_range, cells * 2) for line in chart.lines]
