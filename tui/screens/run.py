"""One run: a head with its state, and four panes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from accl.store.rundir import RunDir
from tui import theme
from tui.actions import stop_after_confirmation
from tui.commands import bindings
from tui.feed import RunView, without_path
from tui.panes.confusion import ConfusionPane
from tui.panes.curriculum import CurriculumPane
from tui.panes.curves import CurvesPane
from tui.panes.pane import Pane
from tui.panes.tasks import TasksPane
from tui.scale import percent, short
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.text import Piece, bar, cell_len, duration
from tui.viewstate import Choices, HasSettings
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.text import Text

PANES: dict[str, type[Pane]] = {
    "curves": CurvesPane,
    "curriculum": CurriculumPane,
    "confusion": ConfusionPane,
    "tasks": TasksPane,
}


class RunScreen(PollingScreen):
    """A run, followed while the screen is on top."""

    BINDINGS = bindings("run")
    settings: ClassVar[Mapping[str, Choices]] = {"pane_name": list(PANES)}
    view: RunView | None = None
    pane_name = "curves"

    def __init__(self, services: Services, run: RunDir, pane: str | None = None) -> None:
        super().__init__(services)
        self._kept: dict[str, HasSettings] = {}
        self.run = run
        services.view.attach("run", self)
        self.pane_name = pane or self.pane_name

    def compose(self) -> ComposeResult:
        yield Text(id="head")
        yield Text(id="reason")
        yield Text(id="tabs")
        with ContentSwitcher(initial=self.pane_name, id="panes"):
            for name, pane in PANES.items():
                yield pane(id=name)
        yield KeyBar("run")

    def on_mount(self) -> None:
        self._kept = {pane.scope: pane for pane in self.query(Pane)} | {"curves charts": self.query_one(ChartGrid)}
        for scope, owner in self._kept.items():
            self.services.view.attach(scope, owner)
        self.query_one("#head", Text).show([(self.run.id, theme.BOLD), ("  reading …", theme.DIM)])
        self.action_pane(self.pane_name)

    def on_unmount(self) -> None:
        super().on_unmount()
        for owner in (self, *self._kept.values()):  # which are gone from the screen by now
            self.services.view.detach(owner)

    @property
    def pending(self) -> str:
        held = self.view is not None and self.view.stale and self.view.problem is None
        return super().pending or ("its database, which is held" if held else self.pane.pending)

    def follow(self) -> None:
        self.services.watcher.watch(self, [self.run], self.pane.needs, self.delivered(self.update_view))

    def update_view(self, view: RunView) -> None:
        self.view = view
        self._show_head(view)
        self.pane.update_view(view)

    @property
    def pane(self) -> Pane:
        """The visible pane."""
        return self.query_one(f"#{self.query_one(ContentSwitcher).current}", Pane)

    def _show_head(self, view: RunView) -> None:
        summary, state = view.summary, view.summary.state
        first: list[Piece] = [summary.state_label, ("  " + self.run.id, theme.BOLD)]
        if state.phase:
            first.append(("  " + state.phase, theme.DIM))
        second: list[Piece] = []
        if view.problem is not None and summary.summary.state is not None:
            since = f" for {view.stale:.0f} s" if view.stale >= 1 else ""
            second.append((f"{view.problem.kind}{since}  ", theme.MARK))
        if state.total_steps:
            share = state.step / state.total_steps
            second += [
                (bar(share, 16), Style(color=theme.ACCENT, bgcolor=theme.PANEL)),
                (f" {share:.0%}  step {state.step:,}/{state.total_steps:,}", theme.PLAIN),
            ]
        if math.isfinite(summary.eta_seconds):
            second.append((f" · {duration(summary.eta_seconds)} left", theme.PLAIN))
        if math.isfinite(summary.questions_per_second):
            second.append((f" · {short(summary.questions_per_second)} questions/s", theme.DIM))
        for split in ("validation", "test"):
            accuracy = summary.latest(f"{split}/accuracy")
            if math.isfinite(accuracy):
                second.append((f" · {split} {percent(accuracy)}", theme.BOLD))
        self.query_one("#head", Text).show(first, second)
        message = summary.reason
        if view.problem is not None:
            message = without_path(str(view.problem), self.run), theme.ERROR
        reason = self.query_one("#reason", Text)
        reason.display = bool(message[0])
        reason.show([message])

    def action_pane(self, name: str) -> None:
        self.pane_name = self.query_one(ContentSwitcher).current = name
        tabs: list[Piece] = []
        for number, tab in enumerate(PANES, start=1):
            styles = (theme.TITLE, theme.BOLD + Style(underline=True)) if tab == name else (theme.VERY_DIM, theme.DIM)
            tabs += [(f" {number} ", styles[0]), (f"{tab} ", styles[1])]
        self.query_one("#tabs", Text).show(tabs)
        self.query_one(KeyBar).show(self.pane.scope, "run")
        if self.view is not None:
            self.pane.update_view(self.view)
        self.follow()
        self.pane.focus_main_widget()

    @on(events.Click, "#tabs")
    def _open_clicked_pane(self, event: events.Click) -> None:
        end = 0
        for number, name in enumerate(PANES, start=1):
            end += cell_len(f" {number} {name} ")
            if event.x < end:
                self.action_pane(name)
                return

    def action_stop(self) -> None:
        if self.view is not None:
            summary = self.view.summary
            stop_after_confirmation(self, self.run, summary.state_label[0][2:], summary.active)

    def action_back(self) -> None:
        # Escape first undoes what hides charts or stands over them; only then it leaves the screen.
        if self.pane.peel():
            return
        filters = [filter_line for filter_line in self.pane.query(Filter) if filter_line.value]
        for filter_line in filters:
            filter_line.action_clear()
        if not filters:
            self.app.pop_screen()
