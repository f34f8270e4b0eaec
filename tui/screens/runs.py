"""The table of all runs."""

from __future__ import annotations

import math
import time
from pathlib import Path

from textual import on
from textual.app import ComposeResult

from accl.errors import QueryError
from accl.store.query import EVERYTHING, parse
from accl.store.run_subject import RunSubject
from tui import theme
from tui.feed import RunsFeed, RunSummary
from tui.keys import bindings
from tui.scale import percent, short
from tui.screens.confirm import stop_after_confirmation
from tui.screens.polling import PollingScreen
from tui.text import Piece, age, duration
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
EMPTY = """No runs yet.

Start one in another terminal, it appears here at once:

  accl train full --profile demo"""


class RunsScreen(PollingScreen[list[RunSummary]]):
    """All runs of a folder, newest first; `selected` has the ids of those to compare."""

    BINDINGS = bindings("runs")
    filter_text = ""
    wanted = EVERYTHING  # the newest filter that could be understood
    filter_problem = ""

    def __init__(self, root: Path, interval: float) -> None:
        super().__init__(interval, RunsFeed(root).fetch)
        self.root = root
        self.summaries: list[RunSummary] = []
        self.selected: list[str] = []

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Table(COLUMNS, EMPTY, id="runs")
        yield Filter("words, or: state:finished val>30% cfg.optim.lr>=1e-4 -tag:old", id="filter")
        yield Text(id="detail")
        yield KeyBar("runs")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Table).focus()

    def update_view(self, view: list[RunSummary]) -> None:
        self.summaries = view
        ids = {summary.run.id for summary in view}
        self.selected = [run_id for run_id in self.selected if run_id in ids]
        self.show()

    @property
    def highlighted(self) -> RunSummary | None:
        """Run at the cursor."""
        key = self.query_one(Table).key
        return next((summary for summary in self.summaries if summary.run.id == key), None)

    def show(self) -> None:
        table = self.query_one(Table)
        table.empty = f"No run matches: {self.wanted.text}" if self.summaries else EMPTY
        now = time.time()
        matching = [each for each in self.summaries if self.wanted.matches(RunSubject(each.summary, now))]
        rows = [self._row(summary) for summary in matching]
        table.show(rows)
        n = len(self.summaries)
        counts = ["1 run" if n == 1 else f"{n} runs", f"{sum(summary.active for summary in self.summaries)} active"]
        if self.wanted != EVERYTHING:
            counts.append(f"{len(rows)} shown")
        if self.selected:
            counts.append(f"{len(self.selected)} selected")
        self.query_one("#title", Text).show(
            [("accl", theme.TITLE), ("  " + " · ".join(counts), theme.PLAIN), (f"  {self.root}", theme.DIM)]
        )
        self._show_detail()

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
            (_blank_if_unknown(percent(summary.latest("validation/accuracy"))), theme.PLAIN),
            (_blank_if_unknown(percent(summary.latest("test/accuracy"))), theme.BOLD),
            (_blank_if_unknown(short(summary.questions_per_second)), theme.DIM),
            (age(time.time() - summary.created) if math.isfinite(summary.created) else "", theme.DIM),
            (run_id, theme.VERY_DIM),
        )
        return Row(run_id, cells)

    @on(Listing.CursorMoved)
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

    def action_open(self) -> None:
        from tui.screens.run import RunScreen  # other screens are imported when opened, for a fast start

        if (summary := self.highlighted) is not None:
            self.app.push_screen(RunScreen(summary.run, self.interval))

    def action_select(self) -> None:
        if (summary := self.highlighted) is not None:
            change = self.selected.remove if summary.run.id in self.selected else self.selected.append
            change(summary.run.id)
            self.show()

    def action_compare(self) -> None:
        from tui.screens.compare import CompareScreen

        if len(self.selected) < 2:
            self.notify("Select at least two runs with space, then press c.", title="Nothing to compare")
            return
        runs = {summary.run.id: summary.run for summary in self.summaries}
        self.app.push_screen(CompareScreen([runs[run_id] for run_id in self.selected], self.interval))

    def action_stop(self) -> None:
        if (summary := self.highlighted) is not None:
            stop_after_confirmation(self.app, summary.run, summary.state_label[0][2:], summary.active)

    def action_filter(self) -> None:
        self.query_one(Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_back(self) -> None:
        if self.filter_text:
            self.query_one(Filter).action_clear()
        else:
            self.selected = []
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
