"""All charts of a screen in one widget: one gutter, one x range and one cursor through all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from accl.store.curve import AXES, Curve
from tui import theme
from tui.commands import next_choice
from tui.plot import DotColumns
from tui.raster import Range
from tui.text import Piece, cell_len, centred, cut, duration, strip
from tui.viewstate import Choices
from tui.widgets.blocks import Blocks, BlockWidget
from tui.widgets.chart import Chart, Frame, Mark, broken_since
from tui.widgets.drawing import Drawing, gather, gutter_width, y_bounds
from tui.widgets.page import Place, arrange, shape
from tui.widgets.text import shorten
from tui.xview import XView, convert

SIDE_WIDTH = 64  # a chart at least this wide has its values beside it, on at most a quarter of its width
BROKEN_NOTE = len("since 1,000 ")
ZOOM = 2.0
DRAGGED = 2  # cells: a drag of fewer is a click


class ChartGrid(BlockWidget, can_focus=True):
    """Charts, as many as are legible on a page; `show` replaces them, and everything else stays as it was set.

    Attributes:
        view: the x axis.
        reference: name of the line that the others are compared with, empty for none.
        page, focus_index: page, and chart that `full` shows alone, among `matching`.
    """

    settings: ClassVar[Mapping[str, Choices]] = {"axis": AXES, "log_y": (False, True), "raw": (False, True)}
    view = XView()
    log_y = False
    raw = False
    full = False
    page = 0
    focus_index = 0
    reference = ""
    note = ""
    pattern = ""
    problem = ""

    class CursorMoved(Message):
        """The cursor stands at a step, or nowhere."""

        def __init__(self, step: float | None) -> None:
            super().__init__()
            self.step = step

    class Zoomed(Message):
        """The visible range is another one, in steps: who has finer bins may show the lines again with them."""

        def __init__(self, low: float, high: float) -> None:
            super().__init__()
            self.low, self.high = low, high

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.charts: dict[str, Chart] = {}
        self.marks: Sequence[Mark] = ()
        self.matching: list[str] = []
        self._gathered: dict[str, tuple[object, list[DotColumns]]] = {}
        self._drawings: dict[str, tuple[object, Drawing, Strip]] = {}
        self._framed: tuple[object, list[Frame]] = None, []
        self._places: list[Place] = []
        self._gutter = 4
        self._drag: int | None = None

    def show(self, charts: Sequence[Chart], marks: Sequence[Mark] = ()) -> None:
        """Replace the charts, by title, and the marks on the x axis."""
        self.charts, self.marks = {chart.title: chart for chart in charts}, marks
        self._match()
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
        ends = [_end(line.curve, self.view.axis) for chart in self.charts.values() for line in chart.lines]
        return 0.0, max([end for end in ends if np.isfinite(end)], default=0.0) or 1.0

    @property
    def cursor_step(self) -> float | None:
        """Step at the cursor, None without one."""
        if self.view.cursor is None or (clock := self.clock) is None:
            return None
        return convert(self.view.cursor, self.view.axis, "step", clock)

    @property
    def plotted(self) -> list[Chart]:
        """The charts that match the filter and have a line."""
        return [chart for title in self.matching if (chart := self.charts[title]).is_plotted]

    @property
    def displayed(self) -> list[str]:
        """Titles of the charts on the page."""
        return [place.chart.title for place in self._places]

    # Drawing.

    def draw_blocks(self, width: int, height: int) -> Blocks:
        background = self.rich_style  # without it, the terminal's own colours would show through
        head = [strip(shorten(line, width), width).apply_style(background) for line in self._head(height)]
        self._places = self._layout(width, height, len(head))
        if not self._places:
            message = "no metric matches" if self.charts and not self.matching else "no values yet"
            empty = centred(cut(message, width), width, height - len(head), theme.VERY_DIM)
            lines = [*head, *(line.apply_style(background) for line in empty)]
            return {(0, y): line for y, line in enumerate(lines)}
        blocks = {(0, y): line for y, line in enumerate(head)}
        names = len(self._legend()) <= 1 or self.app.no_color
        x_range = self.view.range(self.extent)
        side = self._side_width(width, names)
        frames = self._frames(side, x_range)
        for place, frame in zip(self._places, frames, strict=True):
            self._draw_chart(blocks, place, frame, names)
        return blocks

    def _frames(self, side: int, x_range: Range) -> list[Frame]:
        """Make the frames, with a gutter for the widest label, which the bands of the dot columns decide."""
        key = self._places, side, x_range, self.view.axis, self.log_y, self.raw
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
                    self.log_y,
                    self.raw,
                    place.labelled,
                )
                log = self.log_y and not place.chart.shares
                bounds = y_bounds(place.chart, self._columns(place.chart, frame), log, self.raw)
                widest = max(widest, gutter_width(place.chart, bounds, frame.rows, log))
                frames.append(frame)
            if widest <= self._gutter <= widest + 1:  # a gutter that is a cell too wide changes nothing
                break
            self._gutter = widest
        self._framed = key, [replace(frame, gutter=self._gutter) for frame in frames]
        return self._framed[1]

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
            drawing = Drawing(chart, frame, self._columns(chart, frame), self.rich_style)
            found = key, drawing, drawing.rule(self._marked(frame))
            self._drawings[chart.title] = found
        _, drawing, rule = found
        cursor = self.view.cursor
        labels = drawing.labels(cursor, self.reference)
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
        longest = max([*sizes, *(cell_len(floor.name) + 2 for floor in floors)], default=0)
        return min(longest + (14 if self.reference else 8), narrowest // 4)

    def _head(self, height: int) -> list[list[Piece]]:
        """Return the first lines: the cursor, the legend, the settings; then what is a text and not a chart."""
        head: list[list[Piece]] = []
        if height >= 10:
            head.append(self._status())
        texts = [chart for title in self.matching if not (chart := self.charts[title]).is_plotted]
        if texts and not self.full and height >= 14:
            line: list[Piece] = []
            for chart in texts:
                line += [(" · " if line else "", theme.RULE), *chart.as_text()]
            head.append(line)
        return head

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
        settings = [f"x {self.view.axis}", "raw" if self.raw else "median, band 10-90 %", self.note]
        settings += ["log y"] * self.log_y + ["zoomed"] * (self.view.low is not None)
        return [*pieces, *self._legend(), (" · ".join(part for part in settings if part), theme.VERY_DIM)]

    # The page.

    def _layout(self, width: int, height: int, top: int) -> list[Place]:
        charts = self.plotted
        self.focus_index = max(0, min(self.focus_index, len(charts) - 1))
        if self.full and charts:
            return [Place(charts[self.focus_index], Region(0, top, width, height - top), True)]
        columns, rows = shape(width, height - top, len(charts))
        self.page = max(0, min(self.page, -(-len(charts) // (columns * rows)) - 1))
        shown = charts[self.page * columns * rows :][: columns * rows]
        return arrange(shown, Region(0, top, width, height - top), columns, rows)

    @property
    def per_page(self) -> int:
        columns, rows = shape(self.size.width, self.size.height - 2, len(self.plotted))
        return columns * rows

    @property
    def page_count(self) -> int:
        return max(1, -(-len(self.plotted) // self.per_page))

    @property
    def focused_chart(self) -> Chart | None:
        """The chart that the keys act on."""
        charts = self.plotted
        return charts[min(self.focus_index, len(charts) - 1)] if charts else None

    # What the keys do.

    def next_axis(self) -> None:
        clock = self.clock
        if clock is None:
            return
        axes = [axis for axis in AXES if np.isfinite(_end(clock, axis)) and _end(clock, axis) > 0]
        if self.view.axis in axes:
            self.view = self.view.on_axis(next_choice(axes, self.view.axis), clock)
        self.redraw()

    def toggle_log(self) -> None:
        self.log_y = not self.log_y
        self.redraw()

    def toggle_raw(self) -> None:
        self.raw = not self.raw
        self.redraw()

    def toggle_full(self) -> None:
        self.full = not self.full
        self.redraw()

    def move_cursor(self, columns: int) -> None:
        """Move the cursor by dot columns."""
        dots = self._drawings[self.displayed[0]][1].frame.cells * 2 if self.displayed else 1
        self._see(lambda: self.view.moved(columns, dots, self.extent))

    def edge(self, direction: int) -> None:
        """Put the cursor at the first (-1) or the last (1) visible position."""
        self._see(lambda: self.view.at(self.view.range(self.extent)[direction > 0], self.extent))

    def jump(self, step: float) -> None:
        """Put the cursor at a step."""
        clock = self.clock
        if clock is not None:
            self._see(lambda: self.view.at(convert(step, "step", self.view.axis, clock), self.extent))

    def zoom(self, direction: int) -> None:
        """Zoom in (1), out (-1), or show everything (0)."""
        self._see(lambda: self.view.zoomed(ZOOM**direction, self.extent) if direction else self.view.whole())

    def pan(self, share: float) -> None:
        self._see(lambda: self.view.panned(share, self.extent))

    def _see(self, change: Callable[[], XView]) -> None:
        before, clock = self.view, self.clock
        if clock is None:
            return
        self.view = view = change()
        if view.cursor != before.cursor:
            self.post_message(self.CursorMoved(self.cursor_step))
        if (view.low, view.high) != (before.low, before.high):
            low, high = (convert(x, view.axis, "step", clock) for x in view.range(self.extent))
            self.post_message(self.Zoomed(low, high))
        self.redraw()

    def turn(self, pages: int) -> None:
        """Turn pages."""
        self.page = max(0, min(self.page + pages, self.page_count - 1))
        self.focus_index = self.page * self.per_page
        self.redraw()

    def focus_chart(self, across: int, down: int) -> None:
        """Focus the chart beside or below the focused one."""
        columns, _ = shape(self.size.width, self.size.height - 2, len(self.plotted))
        index = self.focus_index + across + down * columns
        if 0 <= index < len(self.plotted):
            self.focus_index, self.page = index, index // self.per_page
            self.redraw()

    def peel(self) -> bool:
        """Leave the full screen, or else the cursor; return whether there was one."""
        if self.full:
            self.toggle_full()
        elif self.view.cursor is not None:
            self._see(self.view.without_cursor)
        else:
            return False
        return True

    # The mouse.

    def _place_at(self, x: int, y: int) -> Place | None:
        return next((place for place in self._places if place.region.contains(x, y)), None)

    def _x_at(self, x: int, y: int) -> float | None:
        place = self._place_at(x, y)
        if place is None:
            return None
        frame = self._drawings[place.chart.title][1].frame
        return frame.x(x - place.region.x - frame.left)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._drag = event.x if self._place_at(event.x, event.y) else None
        self._drag_y = event.y

    def on_mouse_up(self, event: events.MouseUp) -> None:
        start, self._drag = self._drag, None
        if start is None or (a := self._x_at(start, self._drag_y)) is None:
            return
        place = self._place_at(start, self._drag_y)
        assert place is not None
        self.focus_index = next(i for i, chart in enumerate(self.plotted) if chart.title == place.chart.title)
        end = min(max(event.x, place.region.x), place.region.right - 1)
        if abs(end - start) < DRAGGED:
            self._see(lambda: self.view.at(a, self.extent))
        elif (b := self._x_at(end, self._drag_y)) is not None:
            self._see(lambda: self.view.between(a, b, self.extent))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scroll(event, -1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scroll(event, 1)

    def _scroll(self, event: events.MouseEvent, direction: int) -> None:
        event.stop()
        if event.shift:
            self.zoom(direction)
        else:
            self.turn(-direction)


def _without(text: str, names: set[str]) -> str:
    """Remove the name of a line from a label: the legend has it."""
    name = next((name for name in sorted(names, key=len, reverse=True) if text.endswith(name)), "")
    return text.removesuffix(name).rstrip()


def _end(curve: Curve, axis: str) -> float:
    return float(curve.x(axis)[-1]) if len(curve) else float("nan")
