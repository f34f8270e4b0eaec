"""A line chart: braille lines, dashed reference lines, round ticks, and labels with the last values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.raster import BRAILLE, Floats, Range, cell_row, dashed_line, raster
from tui.scale import finite_range, log_ticks, padded, percent, short, ticks
from tui.text import Piece, cell_len, centred, cut, fit, strip
from tui.widgets.strip import StripWidget

SIDE_LABELS_WIDTH = 64  # a chart at least this wide has its labels to the right of the lines
TIME_UNITS = ((7200.0, 3600.0, " h"), (120.0, 60.0, " m"), (0.0, 1.0, " s"))


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        x, y: N coordinates each.
        raw: unsmoothed values of y, drawn faded behind the line.
    """

    name: str
    x: Floats
    y: Floats
    style: Style
    raw: Floats | None = None

    @property
    def last(self) -> float:
        """Last finite value, or NaN."""
        known = self.y[np.isfinite(self.y)]
        return float(known[-1]) if len(known) else float("nan")


@dataclass(frozen=True)
class ReferenceLine:
    """A value to compare the lines with, drawn as a dashed horizontal line."""

    name: str
    value: float
    style: Style


class Label(NamedTuple):
    """Name and last value of a line, with the symbol of its kind of line."""

    text: str
    style: Style
    value: float
    symbol: str


class Chart(StripWidget):
    """Lines over a common x axis; ``shares`` formats the values as percentages."""

    axis = "step"
    note = ""
    log_scale = False

    def __init__(self, title: str, *, shares: bool = False) -> None:
        super().__init__()
        self.title = title
        self.shares = shares
        self.lines: list[Line] = []
        self.references: list[ReferenceLine] = []

    def show(self, lines: list[Line], references: list[ReferenceLine], axis: str, log: bool, note: str) -> None:
        """Replace the content: lines over step, epoch or time in seconds, and a ``note`` beside the title."""
        self.lines, self.references = lines, references
        self.axis, self.log_scale, self.note = axis, log, note
        self.redraw()

    def ranges(self) -> tuple[Range, Range] | None:
        """Return the ranges of the x and the y axis, or None when there is nothing to draw."""
        x_range = finite_range(
            line.x[np.isfinite(line.y) & ((line.y > 0) | (not self.log_scale))] for line in self.lines
        )
        values = [line.y for line in self.lines] + [line.raw for line in self.lines if line.raw is not None]
        y_range = finite_range(values, positive=self.log_scale)
        if x_range is None or y_range is None:
            return None
        references = np.array([reference.value for reference in self.references], dtype=np.float64)
        y_range = finite_range([np.array(y_range), references], positive=self.log_scale) or y_range
        if x_range[0] == x_range[1]:
            x_range = (x_range[0] - 0.5, x_range[1] + 0.5)
        return x_range, padded(y_range, self.log_scale)

    def draw(self, width: int, height: int) -> list[Strip]:
        labels = self._labels()
        at_side = width >= SIDE_LABELS_WIDTH and 0 < len(labels) <= height - 4
        side_width = min(30, max(cell_len(label.text) + 3 for label in labels)) if at_side else 0
        lines = [strip(self._title(), width)]
        if not at_side:
            lines += self._legend(labels, width, max(0, min(3, height // 3, height - 3)))
        ranges = self.ranges()
        height_left = height - len(lines)
        if ranges is None:
            message = "nothing above 0 for a logarithmic axis" if self.log_scale and self.lines else "no values yet"
            return lines + centred(cut(message, width), width, height_left, theme.VERY_DIM)
        return lines + self._plot(width, height_left, side_width, labels, *ranges)

    def _format(self, value: float, step: float | None = None) -> str:
        return (percent if self.shares else short)(value, step)

    def _title(self) -> list[Piece]:
        note = " · ".join(part for part in ("log" if self.log_scale else "", self.note) if part)
        return [(self.title, theme.TITLE), ("  " + note if note else "", theme.VERY_DIM)]

    def _labels(self) -> list[Label]:
        lines = [Label(line.name, line.style, line.last, "━") for line in self.lines]
        lines += [Label(line.name, line.style, line.value, "╌") for line in self.references]
        return [label._replace(text=f"{label.text} {self._format(label.value)}") for label in lines]

    def _legend(self, labels: list[Label], width: int, max_rows: int) -> list[Strip]:
        rows: list[list[Piece]] = [[]]
        used = 0
        for label in labels:
            size = cell_len(label.text) + 4
            if used and used + size > width + 2:
                rows.append([])
                used = 0
            rows[-1] += [(label.symbol + " ", label.style), (cut(label.text, max(1, width - 2)) + "  ", theme.DIM)]
            used += size
        return [strip(row, width) for row in rows[:max_rows] if row]

    def _plot(
        self, width: int, height: int, side_width: int, labels: list[Label], x_range: Range, y_range: Range
    ) -> list[Strip]:
        axis_lines = 2 if height >= 5 else 1
        rows = height - axis_lines
        if rows < 1 or width < 16:
            return []
        values = (log_ticks if self.log_scale else ticks)(y_range, max(2, rows // 3))
        step = values[1] - values[0] if len(values) > 1 and not self.log_scale else None
        tick_at = {cell_row(v, rows, y_range, self.log_scale): self._format(v, step) for v in reversed(values)}
        gutter = max([cell_len(text) for text in tick_at.values()] + [3])
        columns = width - gutter - 2 - (side_width + 1 if side_width else 0)
        if columns < 4:
            return []
        bits, owner, styles = self._rasterize(columns, rows, x_range, y_range)
        label_at = self._place_labels(labels, rows, y_range) if side_width else {}
        lines = []
        for row in range(rows):
            tick = tick_at.get(row)
            pieces: list[Piece] = [
                (fit(tick or "", gutter, right=True), theme.DIM),
                (" ┤" if tick else " │", theme.RULE),
            ]
            empty = "┈" if tick else " "
            edges = np.flatnonzero(np.diff(owner[row])) + 1
            for start, end in zip([0, *edges], [*edges, columns], strict=True):
                index = owner[row, start]
                if index < 0:
                    pieces.append((empty * int(end - start), theme.RULE))
                else:
                    pieces.append(("".join(chr(BRAILLE + int(b)) for b in bits[row, start:end]), styles[index]))
            if label := label_at.get(row):
                pieces += [(f" {label.symbol} ", label.style), (cut(label.text, side_width - 2), label.style)]
            lines.append(strip(pieces, width))
        return lines + self._x_axis(width, gutter, columns, x_range)[-axis_lines:]

    def _rasterize(
        self, columns: int, rows: int, x_range: Range, y_range: Range
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[Style]]:
        """Return the braille bits, the index of the topmost line of each cell (-1: none), and styles by index."""
        layers: list[tuple[NDArray[np.uint8], Style]] = [
            (dashed_line(line.value, columns, rows, y_range, self.log_scale), line.style) for line in self.references
        ]
        # The first line is the main one, so it is drawn last, on top of the others.
        ordered = [(line.x, line.raw, theme.faded(line.style)) for line in self.lines]
        ordered += [(line.x, line.y, line.style) for line in reversed(self.lines)]
        layers += [
            (raster(x, y, columns, rows, x_range, y_range, self.log_scale), style)
            for x, y, style in ordered
            if y is not None
        ]
        bits = np.zeros((rows, columns), dtype=np.uint8)
        owner = np.full((rows, columns), -1, dtype=np.int64)
        for index, (layer, _) in enumerate(layers):
            bits |= layer
            owner[layer > 0] = index
        return bits, owner, [style for _, style in layers]

    def _place_labels(self, labels: list[Label], rows: int, y_range: Range) -> dict[int, Label]:
        """Assign each label the row of its value, or the nearest ones where labels would overlap."""
        # The row -1, outside the range, becomes the last.
        wanted = [(cell_row(label.value, rows, y_range, self.log_scale) % rows, label) for label in labels]
        placed, row = {}, -1
        for i, (wanted_row, label) in enumerate(sorted(wanted, key=lambda entry: entry[0])):
            row = max(wanted_row, row + 1)
            placed[min(row, rows - len(labels) + i)] = label
        return placed

    def _x_axis(self, width: int, gutter: int, columns: int, x_range: Range) -> list[Strip]:
        unit, suffix = 1.0, ""
        if self.axis == "time":
            unit, suffix = next((size, suffix) for minimum, size, suffix in TIME_UNITS if x_range[1] >= minimum)
        low, high = x_range[0] / unit, x_range[1] / unit
        values = ticks((low, high), max(1, columns // 12))
        step = values[1] - values[0] if len(values) > 1 else None
        rule, text = ["─"] * columns, [" "] * columns
        end = -1
        last_free = columns - len(self.axis) - 1
        for value in values:
            column = round((value - low) / (high - low) * (columns - 1))
            label = short(value, step) + suffix
            start = max(0, min(column - len(label) // 2, columns - len(label)))
            if 0 <= column < columns and start > end and start + len(label) <= max(last_free, len(label)):
                rule[column] = "┬"
                text[start : start + len(label)] = label
                end = start + len(label)
        if end < last_free:
            text[columns - len(self.axis) :] = self.axis
        return [
            strip([(" " * (gutter + 1) + "└" + "".join(rule), theme.RULE)], width),
            strip([(" " * (gutter + 2) + "".join(text)[:columns], theme.DIM)], width),
        ]
