"""Keys and mouse of the charts of a screen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
from textual import events
from textual.message import Message

from accl.store.curve import AXES
from tui.commands import next_choice
from tui.widgets.chartview import ChartView, end_of
from tui.widgets.page import Place
from tui.xview import XView, convert

ZOOM = 2.0
DRAGGED = 2  # cells: a drag of fewer is a click


class ChartGrid(ChartView):
    """Charts with a cursor that moves, and a range that is zoomed."""

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

    _drag: int | None = None

    # What the keys do.

    def next_axis(self) -> None:
        clock = self.clock
        if clock is None:
            return
        axes = [axis for axis in AXES if np.isfinite(end_of(clock, axis)) and end_of(clock, axis) > 0]
        if self.view.axis in axes:
            self.view = self.view.on_axis(next_choice(axes, self.view.axis), clock)
        self.redraw(whole=True)

    def toggle_log(self) -> None:
        self.log_y = not self.log_y
        self.redraw(whole=True)

    def toggle_raw(self) -> None:
        self.raw = not self.raw
        self.redraw(whole=True)

    def toggle_future(self) -> None:
        self.future = not self.future
        self.redraw(whole=True)

    def toggle_full(self) -> None:
        self.full = not self.full
        self.redraw(whole=True)

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
            self._tell(self.CursorMoved(self.cursor_step))
        moved = (view.low, view.high) != (before.low, before.high)
        if moved:
            low, high = (convert(x, view.axis, "step", clock) for x in view.range(self.extent))
            self._tell(self.Zoomed(low, high))
        self.redraw(whole=moved)

    def _tell(self, message: Message) -> None:
        # Textual lets a message rise no higher than its sender, which is whoever handed the key on to these charts.
        self.post_message(message.set_sender(self))

    def turn(self, pages: int) -> None:
        """Turn pages."""
        self.page = max(0, min(self.page + pages, self.page_count - 1))
        self.focus_index = sum(len(page.charts) for page in self._pages[: self.page])
        self.redraw(whole=True)

    def focus_chart(self, across: int, down: int) -> None:
        """Focus the chart beside or below the focused one."""
        index = self.focus_index + across + down * (self._pages[self.page].columns if self._pages else 1)
        if 0 <= index < len(self.plotted):
            ends = accumulate(len(page.charts) for page in self._pages)
            pages = (i for i, end in enumerate(ends) if index < end)
            before = self.page
            self.focus_index, self.page = index, next(pages, self.page)
            self.redraw(whole=self.page != before)

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
        titles = (i for i, chart in enumerate(self.plotted) if chart.title == place.chart.title)
        self.focus_index = next(titles, self.focus_index)
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
