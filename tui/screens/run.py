"""One run: a head with its state, and its panes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.style import Style
from textual import events, on
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from accl.store.rundir import RunDir
from tui import theme
from tui.commands import BY_ID, bindings
from tui.feed import RunSummary, RunView, without_path
from tui.messages import ShowQuestions, ShowStep
from tui.panes.confusion import ConfusionPane
from tui.panes.curriculum import CurriculumPane
from tui.panes.health import HealthPane
from tui.panes.log import LogPane
from tui.panes.machine import MachinePane
from tui.panes.pane import Pane
from tui.panes.questions import QuestionsPane
from tui.panes.tasks import TasksPane
from tui.rundetail import labels_of
from tui.runrows import time_left
from tui.scale import percent, short
from tui.screens.acting import ActingScreen
from tui.services import Services
from tui.text import Piece, bar, cell_len
from tui.viewstate import Choices, HasSettings
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.text import Text
from tui.xview import XView

WIDE, VERY_WIDE = 100, 140  # columns from which on there is room for a bar, and for words
MAX_DIGITS = 12
PANES: dict[str, type[Pane]] = {
    "health": HealthPane,
    "curriculum": CurriculumPane,
    "confusion": ConfusionPane,
    "tasks": TasksPane,
    "questions": QuestionsPane,
    "log": LogPane,
    "machine": MachinePane,
}


class RunScreen(ActingScreen):
    """A run, followed while the screen is on top."""

    BINDINGS = bindings("run")
    settings: ClassVar[Mapping[str, Choices]] = {"pane_name": list(PANES)}
    view: RunView | None = None
    pane_name = "health"
    _came_from: str | None = None  # pane from which questions were asked for; empty for another screen

    def __init__(self, services: Services, run: RunDir, pane: str | None = None, questions: str = "") -> None:
        super().__init__(services)
        self._kept: dict[str, HasSettings] = {}
        self._x_view: XView | None = None
        self.run = run
        services.view.attach("run", self)
        self.pane_name = pane or ("questions" if questions else self.pane_name)
        self._questions = questions

    def compose(self) -> ComposeResult:
        yield Text(id="head")
        yield Text(id="reason")
        yield Text(id="tabs")
        with ContentSwitcher(initial=self.pane_name, id="panes"):
            for name, make in PANES.items():
                pane = make(id=name)
                pane.reader = self.services.watcher.feed(self.run).reader
                yield pane
        yield KeyBar("run")

    def on_mount(self) -> None:
        self._kept = {pane.scope: pane for pane in self.query(Pane)} | {"health charts": self.query_one(ChartGrid)}
        for scope, owner in self._kept.items():
            self.services.view.attach(scope, owner)
        self.query_one("#head", Text).show([(self.run.id, theme.BOLD), ("  reading …", theme.DIM)])
        self.action_pane(self.pane_name)
        if self._questions:
            self.query_one(QuestionsPane).seek(self._questions)
            self._came_from = ""

    def on_unmount(self) -> None:
        super().on_unmount()
        for owner in (self, *self._kept.values()):  # which are gone from the screen by now
            self.services.view.detach(owner)

    @property
    def targets(self) -> Sequence[RunSummary]:
        return [self.view.summary] if self.view is not None else []

    def after_deletion(self, runs: Sequence[RunDir]) -> None:
        if self.run in runs and self.app.screen is self:
            self.app.pop_screen()

    @property
    def pending(self) -> str:
        held = self.view is not None and self.view.stale and self.view.problem is None
        return super().pending or ("its database, which is held" if held else "") or self.pane.pending

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
        first += labels_of(summary)
        is_wide = self.size.width >= VERY_WIDE
        second: list[Piece] = []
        if view.problem is not None and summary.summary.state is not None:
            since = f" for {view.stale:.0f} s" if view.stale >= 1 else ""
            second.append((f"{view.problem.kind}{since}  ", theme.MARK))
        if state.total_steps:
            share = state.step / state.total_steps
            if self.size.width >= WIDE:
                second.append((bar(share, 16) + " ", Style(color=theme.ACCENT, bgcolor=theme.PANEL)))
            step = f"{share:.0%}  {'step ' * is_wide}{state.step:,}/{state.total_steps:,}"
            second.append((step, theme.PLAIN))
        if left := time_left(summary):
            second.append((f" · {left} left", theme.PLAIN))
        second += _accuracies(view, is_wide)
        if math.isfinite(summary.questions_per_second):
            second.append((f" · {short(summary.questions_per_second)} questions/s", theme.DIM))
        self.query_one("#head", Text).show(first, second)
        message = summary.reason
        if view.problem is not None:
            message = without_path(str(view.problem), self.run), theme.ERROR
        reason = self.query_one("#reason", Text)
        reason.display = bool(message[0])
        reason.show([message])

    def on_resize(self) -> None:
        if self.view is not None:
            self._show_head(self.view)

    def action_pane(self, name: str) -> None:
        self._take_x_view()
        self._came_from = None
        self.pane_name = self.query_one(ContentSwitcher).current = name
        self._share_x_view()
        tabs: list[Piece] = []
        for number, tab in _tabs():
            styles = (theme.TITLE, theme.BOLD + Style(underline=True)) if tab == name else (theme.VERY_DIM, theme.DIM)
            tabs += [(f" {number} ", styles[0]), (f"{tab} ", styles[1])]
        self.query_one("#tabs", Text).show(tabs)
        self.query_one(KeyBar).show(self.pane.scope, "run")
        if self.view is not None:
            self.pane.update_view(self.view)
        self.follow()
        self.pane.focus_main_widget()

    def _take_x_view(self) -> None:
        """Remember range and cursor of the charts that are visible, for the other panes."""
        for grid in self.pane.query(ChartGrid):
            self._x_view = grid.view
            self._tell_panes(grid.cursor_step)

    def _tell_panes(self, step: float | None) -> None:
        for pane in self.query(Pane):
            pane.cursor_step = step

    def _share_x_view(self) -> None:
        for grid in self.pane.query(ChartGrid):
            grid.view = self._x_view or grid.view

    def on_show_step(self, message: ShowStep) -> None:
        for grid in self.query(ChartGrid).results(ChartGrid):
            if grid.clock is not None:
                grid.view = self._x_view or grid.view
                grid.jump(message.step)
                self._x_view = grid.view
                self._tell_panes(grid.cursor_step)
                return

    @on(events.Click, "#tabs")
    def _open_clicked_pane(self, event: events.Click) -> None:
        end = 0
        for number, name in _tabs():
            end += cell_len(f" {number} {name} ")
            if event.x < end:
                self.action_pane(name)
                return

    def on_show_questions(self, message: ShowQuestions) -> None:
        came_from = self.pane_name
        self.query_one(QuestionsPane).seek(message.query)
        self.action_pane("questions")
        self._came_from = came_from

    def action_back(self) -> None:
        # Escape first undoes what hides charts or stands over them; only then it leaves the screen.
        if self.pane.peel():
            return
        if self._came_from:
            self.action_pane(self._came_from)
            return
        filters = [line for line in self.pane.query(Filter) if line.value and self._came_from is None]
        for filter_line in filters:
            filter_line.action_clear()
        if not filters:
            self.app.pop_screen()


def _accuracies(view: RunView, is_wide: bool) -> list[Piece]:
    """Return the validation accuracy of the best weights and the accuracy of the test, each beside its best floor."""
    best = view.summary.state.checkpoint_best.removeprefix("step-")
    validated = int(best) if is_wide and best.isdecimal() and len(best) < MAX_DIGITS else None
    tested = view.summary.latest("test/accuracy"), view.tested_step
    pieces: list[Piece] = []
    for split, (value, step) in {"validation": (view.summary.validated, validated), "test": tested}.items():
        if math.isfinite(value):
            name = split if is_wide else split.removesuffix("idation")
            pieces.append((f" · {name} {percent(value)}", theme.BOLD))
            pieces.append((f" (step {step:,})" if step is not None else "", theme.DIM))
            if floors := view.floors(split):
                pieces.append((f" ╌ {'floor ' * is_wide}{percent(max(floors.values()))}", theme.DIM))
    return pieces


def _tabs() -> list[tuple[str, str]]:
    """Return key and name of each pane."""
    return [(BY_ID[f"run.{name}"].main_key, name) for name in PANES]
