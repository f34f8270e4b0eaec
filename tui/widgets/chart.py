"""A line chart: braille lines, dashed levels, round ticks, and labels with the last values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.raster import BRAILLE, Floats, Range, level, point, raster
from tui.scale import finite_range, log_ticks, padded, percent, short, ticks
from tui.text import Piece, cut, fit, strip
from tui.widgets.drawn import Drawn

LABELS_FROM = 64  # cells of width from which labels stand to the right of the lines
TIME_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "m"), (0.0, 1.0, "s"))


@dataclass(frozen=True)
class Line:
    """One series; ``raw`` lies faintly behind it."""

    name: str
    x: Floats
    y: Floats
    style: Style
    raw: Floats | None = None

    @property
    def last(self) -> float:
        known = self.y[np.isfinite(self.y)]
        return float(known[-1]) if len(known) else float("nan")


@dataclass(frozen=True)
class Level:
    """A value to be compared with: a dashed horizontal line."""

    name: str
    value: float
    style: Style


class Chart(Drawn):
    """Draws what `show` was given."""

    def __init__(self, title: str, *, shares: bool = False, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.title = title
        self.shares = shares
        self.note = ""
        self.lines: list[Line] = []
        self.levels: list[Level] = []
        self.logarithmic = False
        self.axis = "step"

    def show(
        self, lines: Sequence[Line], levels: Sequence[Level] = (), axis: str = "step", log: bool = False, note: str = ""
    ) -> None:
        """``axis``: step, epoch or time (seconds); ``note``: a few words beside the title."""
        self.lines, self.levels, self.axis, self.logarithmic, self.note = list(lines), list(levels), axis, log, note
        self.redraw()

    def ranges(self) -> tuple[Range, Range] | None:
        """(x range, y range) of what is drawn; None when there is nothing to draw."""
        visible = [
            line.x[np.isfinite(line.y) & ((line.y > 0) if self.logarithmic else True)]
            for line in self.lines
            if len(line.x)
        ]
        across = finite_range(visible)
        heights = [line.y for line in self.lines] + [line.raw for line in self.lines if line.raw is not None]
        up = finite_range(heights, positive=self.logarithmic)
        if across is None or up is None:
            return None
        marks = np.array([mark.value for mark in self.levels], dtype=np.float64)
        up = finite_range([np.array(up), marks], positive=self.logarithmic) or up
        if across[0] == across[1]:
            across = (across[0] - 0.5, across[1] + 0.5)
        return across, padded(up, self.logarithmic)

    def draw(self, width: int, height: int) -> list[Strip]:
        labels = self._labels()
        beside = width >= LABELS_FROM and 0 < len(labels) <= height - 4
        side = min(30, max(cell_len(text) + 3 for text, _, _, _ in labels)) if beside else 0
        lines = [strip(self._title(), width)]
        if not beside:
            lines += self._legend(labels, width, max(0, min(3, height // 3, height - 3)))
        bounds = self.ranges()
        rows = height - len(lines) - (2 if height - len(lines) >= 5 else 1)
        if bounds is None:
            blank = max(0, (height - len(lines)) // 2 - 1)
            text = "nothing above 0 for a logarithmic axis" if self.logarithmic and self.lines else "no values yet"
            lines += [Strip.blank(width)] * blank
            return [*lines, strip([(cut(text, width).center(width), theme.VERY_DIM)], width)][:height]
        if rows < 1 or width < 16:
            return lines[:height]
        return lines + self._plot(width, rows, height - len(lines), side, labels, *bounds)

    # Parts ---------------------------------------------------------------------------------------

    def _title(self) -> list[Piece]:
        pieces: list[Piece] = [(self.title, theme.TITLE)]
        note = " · ".join(part for part in ("log" if self.logarithmic else "", self.note) if part)
        if note:
            pieces.append(("  " + note, theme.VERY_DIM))
        return pieces

    def _labels(self) -> list[tuple[str, Style, float, str]]:
        """(text, style, value, sign) of every line and level."""
        write = percent if self.shares else short
        return [(f"{line.name} {write(line.last)}", line.style, line.last, "━") for line in self.lines] + [
            (f"{mark.name} {write(mark.value)}", mark.style, mark.value, "╌") for mark in self.levels
        ]

    def _legend(self, labels: list[tuple[str, Style, float, str]], width: int, most: int) -> list[Strip]:
        rows: list[list[Piece]] = [[]]
        used = 0
        for text, style, _, sign in labels:
            size = cell_len(text) + 4
            if used and used + size > width + 2:
                rows.append([])
                used = 0
            rows[-1] += [(sign + " ", style), (cut(text, max(1, width - 2)) + "  ", theme.DIM)]
            used += size
        return [strip(row, width) for row in rows[:most] if row]

    def _plot(
        self,
        width: int,
        rows: int,
        room: int,
        side: int,
        labels: list[tuple[str, Style, float, str]],
        across: Range,
        up: Range,
    ) -> list[Strip]:
        marks = (log_ticks if self.logarithmic else ticks)(up, max(2, rows // 3))
        step = marks[1] - marks[0] if len(marks) > 1 and not self.logarithmic else None
        write = percent if self.shares else short
        by_row = {point(across[0], v, 1, rows, across, up, self.logarithmic): write(v, step) for v in reversed(marks)}
        gutter = max([cell_len(text) for text in by_row.values()] + [3])
        columns = width - gutter - 2 - (side + 1 if side else 0)
        if columns < 4:
            return []
        bits, owner, styles = self._paint(columns, rows, across, up)
        beside = self._beside(labels, rows, across, up) if side else {}
        lines = []
        for row in range(rows):
            tick = by_row.get(row)
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
            if row in beside:
                text, style, sign = beside[row]
                pieces += [(" " + sign + " ", style), (cut(text, side - 2), style)]
            lines.append(strip(pieces, width))
        return lines + self._x_axis(width, gutter, columns, across)[2 - min(2, room - rows) :]

    def _paint(
        self, columns: int, rows: int, across: Range, up: Range
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[Style]]:
        """Dots of everything, the index of the topmost owner of each cell (-1: none), and the styles by index."""
        layers: list[tuple[NDArray[np.uint8], Style]] = [
            (level(mark.value, columns, rows, up, self.logarithmic), mark.style) for mark in self.levels
        ]
        # The first series is the main one: it is painted last.
        ordered = [(line.x, line.raw, theme.fainter(line.style)) for line in self.lines]
        ordered += [(line.x, line.y, line.style) for line in reversed(self.lines)]
        layers += [
            (raster(x, y, columns, rows, across, up, self.logarithmic), style)
            for x, y, style in ordered
            if y is not None
        ]
        bits = np.zeros((rows, columns), dtype=np.uint8)
        owner = np.full((rows, columns), -1, dtype=np.int64)
        for index, (layer, _) in enumerate(layers):
            bits |= layer
            owner[layer > 0] = index
        return bits, owner, [style for _, style in layers]

    def _beside(
        self, labels: list[tuple[str, Style, float, str]], rows: int, across: Range, up: Range
    ) -> dict[int, tuple[str, Style, str]]:
        """Labels at the height of their last values, moved apart where they would overlap."""
        wanted = []
        for text, style, value, sign in labels:
            row = point(across[0], value, 1, rows, across, up, self.logarithmic)
            wanted.append((row if row >= 0 else rows - 1, text, style, sign))
        wanted.sort(key=lambda entry: entry[0])
        placed: list[int] = []
        for row, *_ in wanted:
            placed.append(max(row, placed[-1] + 1) if placed else row)
        overflow = rows - 1
        for i in range(len(placed) - 1, -1, -1):
            placed[i] = min(placed[i], overflow)
            overflow = placed[i] - 1
        return {row: (text, style, sign) for row, (_, text, style, sign) in zip(placed, wanted, strict=True)}

    def _x_axis(self, width: int, gutter: int, columns: int, across: Range) -> list[Strip]:
        unit, sign = 1.0, ""
        if self.axis == "time":
            unit, sign = next((size, " " + word) for least, size, word in TIME_UNITS if across[1] >= least)
        scaled = (across[0] / unit, across[1] / unit)
        marks = ticks(scaled, max(1, columns // 12))
        step = marks[1] - marks[0] if len(marks) > 1 else None
        rule, text = ["─"] * columns, [" "] * columns
        end = -1
        name = {"time": "time", "epoch": "epoch", "step": "step"}[self.axis]
        last_free = columns - len(name) - 1
        for value in marks:
            share = (value - scaled[0]) / (scaled[1] - scaled[0])
            at = round(share * (columns - 1))
            label = short(value, step) + sign
            start = max(0, min(at - len(label) // 2, columns - len(label)))
            if 0 <= at < columns and start > end and start + len(label) <= max(last_free, len(label)):
                rule[at] = "┬"
                text[start : start + len(label)] = label
                end = start + len(label)
        if end < last_free:
            text[columns - len(name) :] = name
        return [
            strip([(" " * (gutter + 1) + "└" + "".join(rule), theme.RULE)], width),
            strip([(" " * (gutter + 2) + "".join(text)[:columns], theme.DIM)], width),
        ]
