"""The table of all runs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from accl.store.rundir import RunDir
from accl.store.state import State
from tui import theme
from tui.feed import RunLine, RunsFeed
from tui.keys import bindings
from tui.scale import percent, short
from tui.screens.polled import Polled
from tui.text import Piece, age, duration
from tui.widgets.drawn import Listing
from tui.widgets.filter import Filter
from tui.widgets.frame import KeyBar, Text
from tui.widgets.table import Column, Row, Table

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


class RunsScreen(Polled[list[RunLine]]):
    """Every run under the folder, the newest on top."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("runs")

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.feed = RunsFeed(root)
        self.lines: list[RunLine] = []
        self.selected: list[str] = []
        self.words = ""

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Table(COLUMNS, EMPTY, id="runs")
        yield Filter("words: state, recipe, profile, seed or id", id="filter")
        yield Text(id="detail")
        yield KeyBar("runs")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Table).focus()

    def look(self) -> list[RunLine]:
        return self.feed.look()

    def take(self, found: list[RunLine]) -> None:
        self.lines = found
        ids = {line.run.id for line in found}
        self.selected = [run_id for run_id in self.selected if run_id in ids]
        self.show()

    # Showing -------------------------------------------------------------------------------------

    @property
    def filtered(self) -> list[RunLine]:
        return [line for line in self.lines if line.contains(self.words)]

    @property
    def highlighted(self) -> RunLine | None:
        key = self.query_one(Table).key
        return next((line for line in self.lines if line.run.id == key), None)

    def show(self) -> None:
        table = self.query_one(Table)
        table.empty = f"No run contains all of: {self.words}" if self.lines else EMPTY
        table.show([self._row(line) for line in self.filtered])
        active = sum(line.active for line in self.lines)
        counts = ["1 run" if len(self.lines) == 1 else f"{len(self.lines)} runs", f"{active} active"]
        if self.words:
            counts.append(f"{len(self.filtered)} shown")
        if self.selected:
            counts.append(f"{len(self.selected)} selected")
        self.query_one("#title", Text).show(
            [("accl", theme.TITLE), ("  " + " · ".join(counts), theme.PLAIN), (f"  {self.feed.root}", theme.DIM)]
        )
        self._show_detail()

    def _row(self, line: RunLine) -> Row:
        state = line.state
        chosen = line.run.id in self.selected
        hue = theme.ERROR if line.unreadable else theme.state_style(state.state)
        plain = theme.PLAIN if state.state.active else theme.DIM
        steps = f"{state.step:,}/{state.total_steps:,}" if state.total_steps else ""
        done = f"{state.step / state.total_steps:.0%}" if state.total_steps else ""
        speed = line.latest("questions_per_second")
        cells: tuple[Piece, ...] = (
            ("●" if chosen else " ", theme.MARK),
            (line.word, hue),
            (line.recipe, theme.BOLD),
            (line.profile, theme.DIM),
            (str(line.seed) if line.seed >= 0 else "?", theme.DIM),
            (steps, plain),
            (done, plain),
            (duration(line.left_seconds) if math.isfinite(line.left_seconds) else "", plain),
            (_known(short(line.latest("train/loss"))), plain),
            (_known(percent(line.latest("validation/accuracy"))), theme.PLAIN),
            (_known(percent(line.latest("test/accuracy"))), theme.BOLD),
            (_known(short(speed)) if state.state is State.RUNNING else "", theme.DIM),
            (age(time.time() - line.created) if math.isfinite(line.created) else "", theme.DIM),
            (line.run.id, theme.VERY_DIM),
        )
        return Row(line.run.id, cells)

    def _show_detail(self) -> None:
        line = self.highlighted
        if line is None:
            self.query_one("#detail", Text).show()
            return
        state = line.state
        said = line.reason or (state.phase if state.state.active else "")
        style = theme.ERROR if state.state in (State.CRASHED, State.FAILED) or line.problem else theme.DIM
        word: Piece = (line.word, theme.ERROR if line.unreadable else theme.state_style(state.state))
        self.query_one("#detail", Text).show([word, ("  " + line.run.id, theme.PLAIN)], [(said, style)])

    @on(Listing.Moved)
    def _moved(self) -> None:
        self._show_detail()

    # Keys ----------------------------------------------------------------------------------------

    def action_open(self) -> None:
        from tui.screens.run import RunScreen

        if (line := self.highlighted) is not None:
            self.app.push_screen(RunScreen(line.run))

    def action_select(self) -> None:
        if (line := self.highlighted) is not None:
            if line.run.id in self.selected:
                self.selected.remove(line.run.id)
            else:
                self.selected.append(line.run.id)
            self.show()

    def action_compare(self) -> None:
        from tui.screens.compare import CompareScreen

        if len(self.selected) < 2:
            self.notify("Select at least two runs with space, then press c.", title="Nothing to compare")
            return
        by_id: dict[str, RunDir] = {line.run.id: line.run for line in self.lines}
        self.app.push_screen(CompareScreen([by_id[run_id] for run_id in self.selected]))

    def action_stop(self) -> None:
        line = self.highlighted
        if line is not None and line.active:
            self.accl.stop(line.run)
        elif line is not None:
            self.notify(f"It is {line.word[2:]} already.", title=line.run.id, markup=False)

    def action_filter(self) -> None:
        self.query_one(Filter).begin()
        self.query_one(KeyBar).show("filter")

    def action_back(self) -> None:
        filter_line = self.query_one(Filter)
        if self.words:
            filter_line.action_drop()
        else:
            self.selected = []
            self.show()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self.words = event.value
        self.show()

    @on(Filter.Left)
    def _typing_over(self) -> None:
        self.query_one(Table).focus()
        self.query_one(KeyBar).show("runs")


def _known(text: str) -> str:
    return "" if text == "–" else text
