"""One run: a head with its state, and four panes."""

from __future__ import annotations

import math

from rich.style import Style
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from accl.store.rundir import RunDir
from tui import theme
from tui.feed import RunFeed, RunView, fetch_views, without_path
from tui.keys import bindings
from tui.panes.confusion import ConfusionPane
from tui.panes.curriculum import CurriculumPane
from tui.panes.curves import CurvesPane
from tui.panes.pane import Pane
from tui.panes.tasks import TasksPane
from tui.scale import percent, short
from tui.screens.confirm import stop_after_confirmation
from tui.screens.polling import PollingScreen
from tui.text import Piece, bar, duration
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.text import Text

PANES = {"curves": CurvesPane, "curriculum": CurriculumPane, "confusion": ConfusionPane, "tasks": TasksPane}


class RunScreen(PollingScreen[RunView]):
    """A run, followed while the screen is on top."""

    BINDINGS = bindings("run")
    view: RunView | None = None

    def __init__(self, run: RunDir, interval: float) -> None:
        feed = RunFeed(run)
        super().__init__(interval, lambda: fetch_views([feed])[0])
        self.run = run

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
        self.query_one(ContentSwitcher).current = name
        tabs: list[Piece] = []
        for number, tab in enumerate(PANES, start=1):
            styles = (theme.TITLE, theme.BOLD + Style(underline=True)) if tab == name else (theme.VERY_DIM, theme.DIM)
            tabs += [(f" {number} ", styles[0]), (f"{tab} ", styles[1])]
        self.query_one("#tabs", Text).show(tabs)
        self.query_one(KeyBar).show(self.pane.scope, "run")
        if self.view is not None:
            self.pane.update_view(self.view)
        self.pane.focus_main_widget()

    def action_stop(self) -> None:
        if self.view is not None:
            summary = self.view.summary
            stop_after_confirmation(self.app, self.run, summary.state_label[0][2:], summary.active)

    def action_back(self) -> None:
        # Escape first undoes what hides charts or stands over them; only then it leaves the screen.
        if self.pane.peel():
            return
        filters = [filter_line for filter_line in self.pane.query(Filter) if filter_line.value]
        for filter_line in filters:
            filter_line.action_clear()
        if not filters:
            self.app.pop_screen()
