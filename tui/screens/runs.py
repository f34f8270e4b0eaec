"""The table of all runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.timer import Timer

from accl.errors import AcclError, QueryError
from accl.store.query import EVERYTHING, parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir
from tui import theme
from tui.actions import stop_after_confirmation
from tui.commands import bindings, next_choice
from tui.feed import RunSummary, RunsView, RunView
from tui.messages import OpenCompare, OpenRun
from tui.scale import percent, short
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.text import Piece, age, duration
from tui.viewstate import Choices
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Text

COLUMNS = (
    Column("", 1),
    Column("state", 12),
    Column("recipe", 14, grow=True),
    Column("profile", 10, rank=2),
    Column("seed", 6, right=True, rank=1),
    Column("step", 15, right=True, rank=1),
    Column("done", 5, right=True, rank=5),
    Column("left", 9, right=True, rank=1),
    Column("loss", 7, right=True, rank=1),
    Column("val", 7, right=True),
    Column("test", 7, right=True, rank=1),
    Column("q/s", 7, right=True, rank=3),
    Column("age", 5, right=True, rank=4),
    Column("id", 44, rank=6),
)
AGE_S = 60.0  # ages are shown anew so often
REST_S = 0.15  # a cursor that moves on sooner only passes over a run
# What a column is sorted by; unknown values (NaN) come last.
SORTS: dict[str, Callable[[RunSummary], Any]] = {
    "state": lambda summary: summary.state_label[0][2:],
    "recipe": lambda summary: summary.setup.recipe,
    "profile": lambda summary: summary.setup.profile,
    "seed": lambda summary: summary.setup.seed,
    "step": lambda summary: summary.state.step,
    "left": lambda summary: summary.eta_seconds,
    "loss": lambda summary: summary.latest("train/loss"),
    "val": lambda summary: summary.validated,
    "test": lambda summary: summary.latest("test/accuracy"),
    "q/s": lambda summary: summary.questions_per_second,
    "id": lambda summary: summary.run.id,
}
EMPTY = """No runs yet.

Start one in another terminal, it appears here at once:

  accl train full --profile demo"""


class RunsScreen(PollingScreen):
    """All runs of a folder, newest first or sorted.

    Attributes:
        selected: ids of those to compare.
        preview: data of the run at the cursor, once they are read.
    """

    BINDINGS = bindings("runs")
    settings: ClassVar[Mapping[str, Choices]] = {
        "filter_text": None,
        "sort": ["", *(title + arrow for title in SORTS for arrow in "▼▲")],
    }
    filter_text = ""
    wanted = EVERYTHING  # the newest filter that could be understood
    filter_problem = ""
    sort = ""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.summaries: Sequence[RunSummary] = ()
        self.selected: list[str] = []
        self.preview: RunView | None = None
        self._rows: dict[RunDir, Row] = {}
        self._preview_owner = (self, "preview")
        self._rest: Timer | None = None  # runs until the cursor has come to rest

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Table(COLUMNS, "reading …", id="runs")
        yield Filter("words, or: state:finished val>30% cfg.optim.lr>=1e-4 -tag:old", id="filter")
        yield Text(id="detail")
        yield KeyBar("runs")

    def on_mount(self) -> None:
        self.services.view.attach("runs", self)
        self.query_one(Filter).restore(self.filter_text)
        self.query_one(Table).focus()
        self.set_interval(AGE_S, self._show_ages)

    def follow(self) -> None:
        self.services.watcher.watch_folder(self, self.services.root, self.delivered(self.update_view))
        self._follow_highlighted()

    def unfollow(self) -> None:
        super().unfollow()
        self.services.watcher.unwatch(self._preview_owner)

    def update_view(self, view: RunsView | AcclError) -> None:
        if isinstance(view, AcclError):
            self.show_problem(view)
            return
        self.summaries = view.summaries
        for run in view.changed:
            self._rows.pop(run, None)
        ids = {summary.run.id for summary in view.summaries}
        self.selected = [run_id for run_id in self.selected if run_id in ids]
        self.show()

    @property
    def highlighted(self) -> RunSummary | None:
        """Run at the cursor."""
        key = self.query_one(Table).key
        return next((summary for summary in self.summaries if summary.run.id == key), None)

    def show(self) -> None:
        table = self.query_one(Table)
        now = time.time()
        shown = self._sorted([each for each in self.summaries if self.wanted.matches(RunSubject(each.summary, now))])
        self._rows |= {summary.run: self._row(summary) for summary in shown if summary.run not in self._rows}
        rows = [self._rows[summary.run] for summary in shown]
        table.sorted_by = self.sort
        table.show(rows, f"No run matches: {self.wanted.text}" if self.summaries else EMPTY)
        n = len(self.summaries)
        counts = ["1 run" if n == 1 else f"{n} runs", f"{sum(summary.active for summary in self.summaries)} active"]
        if self.wanted != EVERYTHING:
            counts.append(f"{len(rows)} shown")
        if self.selected:
            counts.append(f"{len(self.selected)} selected")
        self.query_one("#title", Text).show(
            [("accl", theme.TITLE), ("  " + " · ".join(counts), theme.PLAIN), (f"  {self.services.root}", theme.DIM)]
        )
        self._show_detail()

    def _sorted(self, summaries: list[RunSummary]) -> list[RunSummary]:
        if not self.sort:
            return summaries
        value = SORTS[self.sort[:-1]]
        known = [summary for summary in summaries if value(summary) == value(summary)]
        unknown = [summary for summary in summaries if value(summary) != value(summary)]
        return sorted(known, key=value, reverse=self.sort[-1] == "▼") + unknown

    def _row(self, summary: RunSummary) -> Row:
        run_id, state, setup = summary.run.id, summary.state, summary.setup
        plain = theme.PLAIN if summary.active else theme.DIM
        total, eta = state.total_steps, summary.eta_seconds
        cells: tuple[Piece, ...] = (
            ("●" if run_id in self.selected else " ", theme.MARK),
            summary.state_label,
            (setup.recipe, theme.BOLD),
            (setup.profile, theme.DIM),
            (summary.seed, theme.DIM),
            (f"{state.step:,}/{total:,}" if total else "", plain),
            (f"{state.step / total:.0%}" if total else "", plain),
            (duration(eta) if math.isfinite(eta) else "", plain),
            (_blank_if_unknown(short(summary.latest("train/loss"))), plain),
            (_blank_if_unknown(percent(summary.validated)), theme.PLAIN),
            (_blank_if_unknown(percent(summary.latest("test/accuracy"))), theme.BOLD),
            (_blank_if_unknown(short(summary.questions_per_second)), theme.DIM),
            (age(time.time() - summary.created) if math.isfinite(summary.created) else "", theme.DIM),
            (run_id, theme.VERY_DIM),
        )
        return Row(run_id, cells)

    @on(Listing.CursorMoved)
    def _cursor_moved(self) -> None:
        self._show_detail()
        if self.preview is None:
            self._follow_highlighted()
        elif self._rest is None:
            self._rest = self.set_timer(REST_S, self._follow_highlighted)

    def _show_detail(self) -> None:
        summary, detail = self.highlighted, self.query_one("#detail", Text)
        if self.filter_problem:
            detail.show([(self.filter_problem, theme.ERROR)])
            return
        if summary is None:
            detail.show()
            return
        reason, style = summary.reason
        message = reason or (summary.state.phase if summary.active else "")
        detail.show([summary.state_label, ("  " + summary.run.id, theme.PLAIN)], [(message, style)])

    def _follow_highlighted(self) -> None:
        """Read the curves of the run at the cursor, and follow them."""
        self._rest = None
        if (summary := self.highlighted) is not None and self.app.screen is self:
            receive = self.delivered(self.update_preview)
            self.services.watcher.watch(self._preview_owner, [summary.run], {"curves"}, receive)

    def update_preview(self, view: RunView) -> None:
        self.preview = view

    def _show_ages(self) -> None:
        self._rows.clear()
        self.show()

    @on(Listing.HeadClicked)
    def _sort_by_head(self, event: Listing.HeadClicked) -> None:
        """Sort by the column clicked: descending, ascending, not any more."""
        column = self.query_one(Table).column_at(event.x)
        if column is not None and column.title in SORTS:
            self.sort = {f"{column.title}▼": f"{column.title}▲", f"{column.title}▲": ""}.get(
                self.sort, f"{column.title}▼"
            )
            self.show()

    def action_sort(self) -> None:
        self.sort = next_choice(["", *(f"{title}▼" for title in SORTS)], self.sort.replace("▲", "▼"))
        self.show()

    @on(Listing.Chosen)
    def action_open(self) -> None:
        if (summary := self.highlighted) is not None:
            self.post_message(OpenRun(summary.run))

    def action_select(self) -> None:
        if (summary := self.highlighted) is not None:
            change = self.selected.remove if summary.run.id in self.selected else self.selected.append
            change(summary.run.id)
            self._rows.pop(summary.run, None)
            self.show()

    def action_select_all(self) -> None:
        shown = [row.key for row in self.query_one(Table).rows]
        self.selected = [] if self.selected == shown else shown
        self.show()

    def action_compare(self) -> None:
        if len(self.selected) < 2:
            self.notify("Select at least two runs with space, then press c.", title="Nothing to compare")
            return
        runs = {summary.run.id: summary.run for summary in self.summaries}
        self.post_message(OpenCompare([runs[run_id] for run_id in self.selected]))

    def action_stop(self) -> None:
        if (summary := self.highlighted) is not None:
            stop_after_confirmation(self, summary.run, summary.state_label[0][2:], summary.active)

    def action_filter(self) -> None:
        self.query_one(Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_back(self) -> None:
        if self.filter_text:
            self.query_one(Filter).action_clear()
        else:
            self.selected = []
            self._rows.clear()
            self.show()

    def on_input_changed(self, event: Filter.Changed) -> None:
        self.filter_text = event.value
        try:
            self.wanted, self.filter_problem = parse(event.value), ""
        except QueryError as error:  # while it is being typed: the rows stay those of before
            self.filter_problem = str(error)
        self.show()

    def on_filter_closed(self) -> None:
        self.query_one(Table).focus()
        self.query_one(KeyBar).show("runs")


def _blank_if_unknown(text: str) -> str:
    return "" if text == "–" else text
