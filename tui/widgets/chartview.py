"""All charts of a screen drawn in one widget: one gutter, one x range and one cursor through all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from operator import itemgetter
from typing import ClassVar

import numpy as np
from textual.geometry import Region
from textual.strip import Strip

from accl.store.curve import AXES, Curve
from accl.text import duration
from tui import theme
from tui.plot import DotColumns
from tui.raster import Range
from tui.text import Piece, cell_len, centred, cut, joined, strip
from tui.viewstate import Choices
from tui.widgets.chart import Chart, Frame, Mark, broken_since
from tui.widgets.drawing import NOTHING, Drawing, gather, gutter_width, y_bounds
from tui.widgets.page import Page, Place, arrange, paginate
from tui.widgets.rows import RowsChart, RowsDrawing, Series
from tui.widgets.strip import StripWidget
from tui.widgets.text import shorten
from tui.xview import XView, convert

Blocks = dict[tuple[int, int], Strip]  # pieces of lines, by column and row of their first cell
SIDE_WIDTH = 64  # a chart at least this wide has its values beside it, on at most a quarter of its width
BROKEN_NOTE = len("since 1,000 ")
ROOMY = 24
SAMPLE = len(" ━━")


class ChartView(StripWidget, can_focus=True):
    """Charts, as many as are legible on a page; `show` replaces them, and everything else stays as it was set.

    Attributes:
        view: the x axis.
        future: whether the x axis goes on to the last of `total_steps`, which a run has still to make.
        reference: name of the line that the others are compared with, empty for none.
        matching: titles of the charts that match the filter.
        plotted: those of them that have a line.
        page, focus_index: page, and chart that `full` shows alone, among `plotted`.
        empty: what stands where there is no chart.
    """

    has_background = True
    settings: ClassVar[Mapping[str, Choices]] = {
        "axis": AXES,
        "log_y": (False, True),
        "raw": (False, True),
        "future": (False, True),
    }
    view = XView()
    log_y = False
    raw = False
    future = False
    total_steps = 0
    full = False
    page = 0
    focus_index = 0
    reference = ""
    note = ""
    pattern = ""
    problem = ""
    empty = "reading …"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.charts: dict[str, Chart] = {}
        self.marks: Sequence[Mark] = ()
        self.matching: list[str] = []
        self.plotted: list[Chart] = []
        self._exact: tuple[int | None, Mapping[str, float]] = None, NOTHING
        self._gathered: dict[str, tuple[object, list[DotColumns]]] = {}
        self._drawings: dict[str, tuple[object, Drawing, Strip]] = {}
        self._framed: tuple[object, list[Frame]] = None, []
        self._pages: list[Page] = []
        self._places: list[Place] = []
        self._gutter = 4
        self._rows: list[tuple[object, Strip]] = []

    def show(self, charts: Sequence[Chart], marks: Sequence[Mark] = ()) -> None:
        """Replace the charts, by title, and the marks on the x axis."""
        self.charts, self.marks = {chart.title: chart for chart in charts}, marks
        self.empty = "no values yet"
        self._match()
        self.redraw()

    def show_exact(self, step: int | None, values: Mapping[str, float]) -> None:
        """Show the very values of a step, by metric, while the cursor is there; those without a step are the newest."""
        if (step, values) != self._exact:
            self._exact = step, values
            self.redraw()

    def filter(self, pattern: str) -> None:
        """Keep the charts whose title or metrics match a regular expression; a bad one changes nothing but says so."""
        try:
            re.compile(pattern)
        except re.error as error:
            self.problem = str(error)
        else:
            self.pattern, self.problem, self.page, self.focus_index = pattern, "", 0, 0
            self._match()
        self.redraw()

    def _match(self) -> None:
        search = re.compile(self.pattern, re.IGNORECASE).search
        self.matching = [title for title, chart in self.charts.items() if any(map(search, (title, *chart.metrics)))]
        self.plotted = [chart for title in self.matching if (chart := self.charts[title]).is_plotted]

    @property
    def axis(self) -> str:
        """Name of the x axis, of `AXES`."""
        return self.view.axis

    @axis.setter
    def axis(self, axis: str) -> None:
        self.view = XView(axis)

    # What is visible.

    @property
    def clock(self) -> Curve | None:
        """The longest curve, which knows where its steps are on every axis."""
        curves = [line.curve for chart in self.charts.values() for line in chart.lines if len(line.curve)]
        return max(curves, key=lambda curve: int(curve.last[-1]), default=None)

    @property
    def extent(self) -> Range:
        """The range of all data, from 0."""
        ends = [end_of(line.curve, self.view.axis) for chart in self.charts.values() for line in chart.lines]
        end = max([end for end in ends if np.isfinite(end)], default=0.0) or 1.0
        if self.future and (clock := self.clock) is not None and self.total_steps > clock.last[-1] > 0:
            end *= self.total_steps / float(clock.last[-1])  # on each axis as it went on average
        return 0.0, end

    @property
    def cursor_step(self) -> float | None:
        """Step at the cursor, None without one."""
        if self.view.cursor is None or (clock := self.clock) is None:
            return None
        return convert(self.view.cursor, self.view.axis, "step", clock)

    @property
    def displayed(self) -> list[str]:
        """Titles of the charts on the page."""
        return [place.chart.title for place in self._places]

    # Drawing.

    def draw(self, width: int, height: int) -> list[Strip]:
        rows: list[list[tuple[int, Strip]]] = [[] for _ in range(height)]
        for (x, y), block in sorted(self._blocks(width, height).items(), key=itemgetter(0)):
            if y < height:
                rows[y].append((x, block))
        background = self.rich_style
        contents = [(width, background, row) for row in rows]
        self._rows = [
            old if old and old[0] == content else (content, joined(content[2], width, background))
            for old, content in zip_longest(self._rows[:height], contents)
        ]
        return [line for _, line in self._rows]

    def _blocks(self, width: int, height: int) -> Blocks:
        background = self.rich_style  # without it, the terminal's own colours would show through
        texts = self._texts(height)
        self._paginate(width, height - (height >= 10) - bool(texts))
        # Where the charts of the first page need every line, the texts are on the others.
        crowded = bool(self._pages) and self._pages[self.page].stacked and height < ROOMY
        written = [self._status()] * (height >= 10) + [texts] * (bool(texts) and not crowded)
        head = [strip(shorten(line, width), width).apply_style(background) for line in written]
        self._places = self._arranged(Region(0, len(head), width, height - len(head)))
        if not self._places:
            message = "no curve" if self.matching else "no metric matches" if self.charts else self.empty
            empty = centred(cut(message, width), width, height - len(head), theme.VERY_DIM)
            lines = [*head, *(line.apply_style(background) for line in empty)]
            return {(0, y): line for y, line in enumerate(lines)}
        blocks = {(0, y): line for y, line in enumerate(head)}
        names = len(self._legend()) <= 1 or theme.current().plain or self.app.no_color
        x_range = self.view.range(self.extent)
        side = self._side_width(width, names)
        frames = self._frames(side, x_range)
        for place, frame in zip(self._places, frames, strict=True):
            self._draw_chart(blocks, place, frame, names)
        return blocks

    def _frames(self, side: int, x_range: Range) -> list[Frame]:
        """Make the frames, with a gutter for the widest label, which the bands of the dot columns decide."""
        patterned = self._patterned
        key = self._places, side, x_range, self.view.axis, self.log_y, self.raw, patterned
        if key == self._framed[0]:
            return self._framed[1]
        for _ in range(2):
            frames, widest = [], 4
            for place in self._places:
                size = place.region.size
                frame = Frame(
                    size.width,
                    size.height,
                    self._gutter,
                    side,
                    self.view.axis,
                    x_range,
                    self.log_y and not place.chart.shares and not isinstance(place.chart, RowsChart),
                    self.raw and not isinstance(place.chart, RowsChart),
                    place.labelled,
                    patterned,
                )
                bounds = y_bounds(place.chart, self._columns(place.chart, frame), frame.log, frame.raw)
                widest = max(widest, gutter_width(place.chart, bounds, frame.rows, frame.log))
                frames.append(frame)
            if widest <= self._gutter <= widest + 1:  # a gutter that is a cell too wide changes nothing
                break
            self._gutter = widest
        self._framed = key, [replace(frame, gutter=self._gutter) for frame in frames]
        return self._framed[1]

    @property
    def _patterned(self) -> bool:
        """Whether patterns tell lines apart, because colours are few or missing."""
        return theme.current().ansi or self.app.no_color

    def _columns(self, chart: Chart, frame: Frame) -> list[DotColumns]:
        key = (chart, frame.axis, frame.x_range, frame.cells)
        found = self._gathered.get(chart.title)
        if found is None or found[0] != key:
            found = key, gather(chart, frame.axis, frame.x_range, frame.cells)
            self._gathered[chart.title] = found
        return found[1]

    def _draw_chart(self, blocks: Blocks, place: Place, frame: Frame, names: bool) -> None:
        chart, (x, y, _, _) = place.chart, place.region
        key, found = (chart, frame, self.marks, theme.current()), self._drawings.get(chart.title)
        if found is None or found[0] != key:
            columns = self._columns(chart, frame)
            if isinstance(chart, RowsChart):
                drawing: Drawing = RowsDrawing(chart, frame, columns, self.rich_style)
            else:
                drawing = Drawing(chart, frame, columns, self.rich_style)
            found = key, drawing, drawing.rule(self._marked(frame))
            self._drawings[chart.title] = found
        _, drawing, rule = found
        cursor = self.view.cursor
        labels = drawing.labels(cursor, self.reference, self._exact_at_cursor())
        if not names:
            lines = {line.name for line in chart.lines}
            labels = [label._replace(name=_without(label.name, lines)) for label in labels]
        focused = self.has_focus and len(self.plotted) > 1 and chart is self.focused_chart
        blocks[x, y] = drawing.title(labels, focused)
        for row, line in enumerate(drawing.with_hairline(cursor)):
            blocks[x, y + 1 + row] = line
        if frame.side:
            for row, line in enumerate(drawing.side(labels)):
                blocks[x + frame.left + frame.cells, y + 1 + row] = line
        for row, line in enumerate(drawing.x_axis(rule, cursor)):
            blocks[x, y + 1 + frame.rows + row] = line

    def _exact_at_cursor(self) -> Mapping[str, float]:
        at, values = self._exact
        step = self.cursor_step
        return values if at == (None if step is None else round(step)) else NOTHING

    def _marked(self, frame: Frame) -> dict[int, Mark]:
        clock = self.clock
        if clock is None:
            return {}
        dots = [(frame.dot(convert(mark.at, mark.axis, frame.axis, clock)), mark) for mark in self.marks]
        return {dot // 2: mark for dot, mark in dots if dot >= 0}

    def _side_width(self, width: int, names: bool) -> int:
        narrowest = min(place.region.width for place in self._places)
        if narrowest < SIDE_WIDTH:
            return 0
        lines = [line for place in self._places for line in place.chart.lines]
        floors = [floor for place in self._places for floor in place.chart.floors]
        sizes = [cell_len(line.name) * names + BROKEN_NOTE * (broken_since(line.curve) is not None) for line in lines]
        sizes += [cell_len(floor.name) + 2 for floor in floors]
        sizes += [cell_len(series.name) for place in self._places for series in _series(place.chart)]
        longest = max(sizes, default=0) + SAMPLE * self._patterned
        return min(longest + (14 if self.reference else 8), narrowest // 4)

    def _texts(self, height: int) -> list[Piece]:
        """Return the line of what is a text and no chart."""
        line: list[Piece] = []
        if not self.full and height >= 14:
            for chart in (chart for title in self.matching if not (chart := self.charts[title]).is_plotted):
                line += [(" · " if line else "", theme.RULE), *chart.as_text()]
        return line

    def _legend(self) -> list[Piece]:
        """Return the names of the lines if all charts have the same ones, several."""
        looks = {tuple((line.name, line.style) for line in chart.lines) for chart in self.plotted}
        if len(looks) != 1 or len(lines := next(iter(looks))) < 2:
            return []
        return [(f"━ {name}  ", style) for name, style in lines]

    def _status(self) -> list[Piece]:
        pieces: list[Piece] = []
        clock = self.clock
        if clock is not None and self.view.cursor is not None:
            at = {axis: convert(self.view.cursor, self.view.axis, axis, clock) for axis in AXES}
            text = f"step {at['step']:,.0f} · epoch {at['epoch']:.2f} · {duration(at['time'])}  "
            pieces.append((text, theme.BOLD))
        if self.problem:
            pieces.append((f"{self.problem}  ", theme.ERROR))
        elif self.pattern:
            pieces.append((f"/{self.pattern}/ {len(self.matching)} of {len(self.charts)}  ", theme.MARK))
        if (pages := self.page_count) > 1 and not self.full:
            pieces.append((f"page {self.page + 1}/{pages}  ", theme.DIM))
        settings = [
            f"x {self.view.axis}" + " to the end" * self.future,
            "raw" if self.raw else "median, band 10-90 %",
            self.note,
        ]
        settings += ["log y"] * self.log_y + ["zoomed"] * (self.view.low is not None)
        return [*pieces, *self._legend(), (" · ".join(part for part in settings if part), theme.VERY_DIM)]

    # The page.

    def _paginate(self, width: int, height: int) -> None:
        charts = self.plotted
        self.focus_index = max(0, min(self.focus_index, len(charts) - 1))
        self._pages = paginate(charts, width, height)
        self.page = max(0, min(self.page, len(self._pages) - 1))

    def _arranged(self, room: Region) -> list[Place]:
        if self.full and (chart := self.focused_chart):
            return [Place(chart, room, True)]
        return arrange(self._pages[self.page], room) if self._pages else []

    @property
    def page_count(self) -> int:
        return max(1, len(self._pages))

    @property
    def focused_chart(self) -> Chart | None:
        """The chart that the keys act on."""
        charts = self.plotted
        return charts[min(self.focus_index, len(charts) - 1)] if charts else None


def _series(chart: Chart) -> Sequence[Series]:
    return chart.series if isinstance(chart, RowsChart) else ()


def _without(text: str, names: set[str]) -> str:
    """Remove the name of a line from a label: the legend has it."""
    name = next((name for name in sorted(names, key=len, reverse=True) if text.endswith(name)), "")
    return text.removesuffix(name).rstrip()


def end_of(curve: Curve, axis: str) -> float:
    """Return the last position of a curve on an axis, NaN without one."""
    return float(curve.x(axis)[-1]) if len(curve) else float("nan")
