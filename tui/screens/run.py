"""One run: its head line and four panes."""

from __future__ import annotations

import math
from typing import ClassVar

from rich.style import Style
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import ContentSwitcher

from accl.store.rundir import RunDir
from accl.store.state import State
from tui import theme
from tui.feed import RunFeed, RunView
from tui.keys import bindings
from tui.panes.confusion import ConfusionPane
from tui.panes.curriculum import CurriculumPane
from tui.panes.curves import CurvesPane
from tui.panes.pane import Pane
from tui.panes.tasks import TasksPane
from tui.scale import percent, short
from tui.screens.polled import Polled
from tui.text import Piece, bar, duration
from tui.widgets.filter import Filter
from tui.widgets.frame import KeyBar, Text

PANES = {"curves": CurvesPane, "curriculum": CurriculumPane, "confusion": ConfusionPane, "tasks": TasksPane}


class RunScreen(Polled[RunView]):
    """Follows the run while it is on top."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("run")

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.feed = RunFeed(run)
        self.view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="head")
        yield Text(id="reason")
        yield Text(id="tabs")
        with ContentSwitcher(initial="curves", id="panes"):
            for name, pane in PANES.items():
                yield pane(id=name)
        yield KeyBar("curves", "run")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#head", Text).show([(self.run.id, theme.BOLD)])
        self.action_pane("curves")

    def look(self) -> RunView:
        return self.feed.look()

    def take(self, found: RunView) -> None:
        self.view = found
        self._show_head(found)
        self.pane.take(found)

    @property
    def pane(self) -> Pane:
        return self.query_one(f"#{self.query_one(ContentSwitcher).current}", Pane)

    def _show_head(self, view: RunView) -> None:
        line, state = view.line, view.line.state
        first: list[Piece] = [
            (line.word, theme.ERROR if line.unreadable else theme.state_style(state.state)),
            ("  " + line.run.id, theme.BOLD),
        ]
        if state.phase:
            first.append(("  " + state.phase, theme.DIM))
        second: list[Piece] = []
        if view.stale >= 1:
            second.append((f"stale {view.stale:.0f} s  ", theme.MARK))
        if state.total_steps:
            share = state.step / state.total_steps
            second += [
                (bar(share, 16), Style(color=theme.ACCENT, bgcolor=theme.PANEL)),
                (f" {share:.0%} ", theme.PLAIN),
                (f" step {state.step:,}/{state.total_steps:,}", theme.PLAIN),
            ]
        if math.isfinite(line.left_seconds):
            second.append((f" · {duration(line.left_seconds)} left", theme.PLAIN))
        speed = line.latest("questions_per_second")
        if math.isfinite(speed) and state.state is State.RUNNING:
            second.append((f" · {short(speed)} questions/s", theme.DIM))
        for name, word in (("validation/accuracy", "validation"), ("test/accuracy", "test")):
            if math.isfinite(line.latest(name)):
                second.append((f" · {word} {percent(line.latest(name))}", theme.BOLD))
        self.query_one("#head", Text).show(first, second)
        said = view.problem or line.reason
        bad = view.problem or line.problem or state.state in (State.CRASHED, State.FAILED)
        reason = self.query_one("#reason", Text)
        reason.display = bool(said)
        reason.show([(said, theme.ERROR if bad else theme.DIM)])

    # Keys ----------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        self.query_one(ContentSwitcher).current = name
        tabs: list[Piece] = []
        for number, each in enumerate(PANES, start=1):
            here = each == name
            tabs += [
                (f" {number} ", theme.TITLE if here else theme.VERY_DIM),
                (f"{each} ", Style(color=theme.TEXT, bold=True, underline=True) if here else theme.DIM),
            ]
        self.query_one("#tabs", Text).show(tabs)
        self.query_one(KeyBar).show(*self.pane.keys, "run")
        if self.view is not None:
            self.pane.take(self.view)
        self.pane.enter()

    def action_stop(self) -> None:
        if self.view is None:
            return
        state = self.view.line.state.state
        if state.active:
            self.accl.stop(self.run)
        else:
            self.notify(f"It is {state} already.", title=self.run.id, markup=False)

    def action_back(self) -> None:
        # One layer at a time: a filter that narrows the charts goes first.
        for filter_line in self.pane.query(Filter):
            if filter_line.value:
                filter_line.action_drop()
                return
        self.app.pop_screen()
