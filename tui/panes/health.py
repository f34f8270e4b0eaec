"""Pane 1: the health of a run, everything over the same time, and what was going on at the cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from accl.store.curve import Curve
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.reader import Confusion
from tui.commands import bindings, next_choice
from tui.feed import RunView
from tui.panes.health_charts import ORDERS, charts_of
from tui.panes.moment import Moment, live_kind, moment_of, nearest_step
from tui.panes.pane import Pane
from tui.threads import in_daemon_thread
from tui.viewstate import Choices
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import ChartKeys, Charts, marks_of
from tui.xview import convert

SETTLE_S = 0.1  # a cursor that moves on within it is not read at
MARGIN = 0.5  # read beyond both ends of what is visible, as a share of it


@dataclass(frozen=True)
class _Wanted:
    """What is read for the position of the cursor and the visible range, both in steps."""

    step: int | None = None
    confusion: tuple[str, int] | None = None
    zoom: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Found:
    wanted: _Wanted = _Wanted()
    values: Mapping[str, float] = field(default_factory=dict)
    confusion: Confusion | None = None
    details: Mapping[str, Curve] = field(default_factory=dict)


class HealthPane(ChartKeys, Pane):
    """Loss, accuracy, task weights and machine over the same time, then every other metric."""

    needs = frozenset({"curves", "curriculum", "confusion", "tasks", "events", "system"})
    scope = "health"
    BINDINGS = bindings(scope)
    main_widget = ChartGrid
    settings: ClassVar[Mapping[str, Choices]] = {"order": ORDERS}
    order = ORDERS[0]
    _drawn: tuple[object, ...] = ()
    _found = _Found()
    _zoom: tuple[int, int] | None = None
    _waits_for = ""

    @property
    def pending(self) -> str:
        return self._waits_for

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Charts(id="charts")
            yield Moment(id="moment")

    # Kept, since messages of the charts may still arrive while the screen is taken apart.
    @cached_property
    def grid(self) -> ChartGrid:
        return self.query_one(ChartGrid)

    @cached_property
    def moment(self) -> Moment:
        return self.query_one(Moment)

    def show_view(self, view: RunView) -> None:
        content = (view.version, tuple(sorted(view.figures.items())), view.summary.state.total_steps, self.order)
        if content != self._drawn:
            self._drawn = content
            self.grid.total_steps = view.summary.state.total_steps
            self._show_charts(view)
        else:
            self.grid.redraw()  # charts of another pane may have moved the cursor
        self._follow_cursor()

    def _show_charts(self, view: RunView) -> None:
        self.grid.note = f"tasks by {self.order}" if view.curriculum is not None else ""
        self.grid.show(charts_of(view, self._found.details, self.order), marks_of(view))

    def action_order(self) -> None:
        self.order = next_choice(ORDERS, self.order)
        self.show()

    def action_swap(self) -> None:
        """Show the list in place of the charts, or hide it where it has its place beside them."""
        self.toggle_class("-swapped")

    def peel(self) -> bool:
        if self.has_class("-swapped"):
            self.action_swap()
            return True
        return self.grid.peel()

    # What follows the cursor: at once what is in memory, then what is read from the disk.

    @on(ChartGrid.CursorMoved)
    def _follow_cursor(self) -> None:
        view, step = self.view, self.grid.cursor_step
        self.cursor_step = step
        if view is None:
            return
        if step is None:
            self.grid.show_exact(None, view.newest)
        self._show_moment(view, step)
        self._read_soon(view)

    def _read_soon(self, view: RunView) -> None:
        if not self._waits_for and self._wanted(view, self.cursor_step) != self._found.wanted:
            self._waits_for = "the values at the cursor"
            self.run_worker(self._read())

    @on(ChartGrid.Zoomed)
    def _follow_zoom(self, event: ChartGrid.Zoomed) -> None:
        margin = MARGIN * (event.high - event.low)
        whole = self.grid.view.low is None
        self._zoom = None if whole else (max(0, int(event.low - margin)), int(event.high + margin) + 1)
        if self.view is not None:
            self._read_soon(self.view)

    def _wanted(self, view: RunView, step: float | None) -> _Wanted:
        binned = any(not curve.raw for curve in view.curves.values())
        kind = live_kind(view)
        at = nearest_step(view.confusion_steps.get(kind, ()), step)
        newest = view.confusion.get(kind)
        return _Wanted(
            step=round(step) if step is not None and binned else None,
            confusion=None if at is None or (newest is not None and newest.step == at) else (kind, at),
            zoom=self._zoom if binned else None,
        )

    def _show_moment(self, view: RunView, step: float | None) -> None:
        is_newest = self._wanted(view, step).confusion is None
        confusion = view.confusion.get(live_kind(view)) if is_newest else self._found.confusion
        clock = self.grid.clock
        at = clock.seconds[-1] if clock is not None else 0.0
        seconds = at if step is None or clock is None else convert(step, "step", "time", clock)
        self.moment.show(moment_of(view, step, confusion, float(seconds)))

    async def _read(self) -> None:
        """Read what is wanted, until nothing else is."""
        try:
            while (view := self.view) is not None:
                wanted = self._wanted(view, self.cursor_step)
                if wanted == self._found.wanted:
                    break
                await asyncio.sleep(SETTLE_S)
                if wanted == self._wanted(view, self.cursor_step):
                    self._arrived(await in_daemon_thread(partial(self._look, view, wanted)))
        finally:
            self._waits_for = ""

    def _look(self, view: RunView, wanted: _Wanted) -> _Found:
        """Read what is wanted; what is damaged, or does not come in time, is left out."""
        before, reader = self._found, self.reader

        def look(_: object) -> _Found:
            confusion, details = before.confusion, before.details
            if wanted.confusion not in (None, before.wanted.confusion):
                confusion = reader.confusion_at(*wanted.confusion)
            if wanted.zoom != before.wanted.zoom:
                names = [name for name, curve in view.curves.items() if not curve.raw]
                details = reader.zoomed(names, *wanted.zoom) if wanted.zoom else {}
            values = reader.values_at(wanted.step) if wanted.step is not None else {}
            return _Found(wanted, values, confusion, details)

        ((_, answer),) = each_within(DEADLINE_S, look, [reader.run])
        return answer if isinstance(answer, _Found) else _Found(wanted)

    def _arrived(self, found: _Found) -> None:
        details = self._found.details
        self._found = found
        if self.view is None or not self.query(ChartGrid):  # the screen was left meanwhile
            return
        if found.details is not details:
            self._show_charts(self.view)
        if found.wanted.step is not None:
            self.grid.show_exact(found.wanted.step, found.values)
        self._follow_cursor()
