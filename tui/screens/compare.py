"""Several runs side by side: their curves in one chart, and the comparison that `accl compare` prints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical

from accl.errors import AcclError
from accl.store.rundir import RunDir
from tui import theme
from tui.curves import CurveOptions
from tui.feed import RunFeed, RunView
from tui.keys import bindings
from tui.panes.curves import FLOOR_STYLES
from tui.scale import percent, short
from tui.screens.polled import Polled
from tui.text import Piece
from tui.widgets.chart import Chart, Level
from tui.widgets.charts import Charts
from tui.widgets.drawn import Listing
from tui.widgets.frame import KeyBar, Log, Text
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from accl.analysis.compare import Arm, Comparison

ARM_COLUMNS = (
    Column("arm", 18, grow=True),
    Column("state", 11, rank=2),
    Column("seed", 6, right=True, rank=4),
    Column("steps", 7, right=True, rank=3),
    Column("test", 7, right=True),
    Column("±", 4, right=True, rank=1),
    Column("by task", 7, right=True, rank=2),
    Column("floor", 7, right=True, rank=1),
    Column("", 9, rank=1),
    Column("delta", 7, right=True),
    Column("95 %", 14, rank=1),
    Column("p (Holm)", 8, right=True),
    Column("q/s", 7, right=True, rank=5),
)
TASK_COLUMNS = (
    Column("task", 30, grow=True),
    Column("n", 5, right=True, rank=1),
    Column("accuracy", 8, right=True),
    Column("gained", 6, right=True, rank=1),
    Column("lost", 5, right=True, rank=1),
    Column("delta", 7, right=True),
)


class CompareScreen(Polled[list[RunView]]):
    """The first run selected is the reference."""

    BINDINGS: ClassVar[list[BindingType]] = bindings("compare")

    def __init__(self, runs: list[RunDir]) -> None:
        super().__init__()
        self.runs = runs
        self.feeds = [RunFeed(run) for run in runs]
        self.views: list[RunView] = []
        self.comparison: Comparison | None = None
        self.why_not = ""
        self.options = CurveOptions(smoothing=0.9)
        self._compared: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Charts(
            {
                "validation/accuracy": Chart("validation accuracy", shares=True),
                "train/loss": Chart("training loss"),
                "curriculum/effective_tasks": Chart("effective tasks"),
            },
            most_columns=3,
            id="overlaid",
        )
        with Horizontal(id="compare-body"):
            with Vertical(id="arms-side"):
                yield Table(ARM_COLUMNS, "comparing …", id="arms")
                yield Log("what to know beside the numbers", "", wrap=True, id="notes")
            with Vertical(id="changes-side"):
                yield Text(id="changes-title")
                yield Table(TASK_COLUMNS, "", id="changes")
        yield KeyBar("compare")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#arms", Table).focus()

    def look(self) -> list[RunView]:
        return [feed.look() for feed in self.feeds]

    def take(self, found: list[RunView]) -> None:
        fresh = [view.version for view in found] != [view.version for view in self.views]
        self.views = found
        if fresh:
            self.show_curves()
        states = tuple(str(view.line.state.state) for view in found)
        if states != self._compared:  # a run that ended may have brought its answers
            self._compared = states
            self.run_worker(self._compare(), group="compare", exclusive=True)
        self._show_title()

    async def _compare(self) -> None:
        from accl.analysis.compare import compare

        try:
            self.comparison, self.why_not = await asyncio.to_thread(compare, self.runs), ""
        except AcclError as error:
            self.comparison, self.why_not = None, str(error)
        if self.open:
            self.show_comparison()

    # Showing -------------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """The recipe, with the seed and the end of the id as far as they are needed to tell runs apart."""
        lines = [view.line for view in self.views]
        found = []
        for line in lines:
            same = [other for other in lines if other.recipe == line.recipe]
            text = line.recipe
            if len(same) > 1:
                text += f" s{line.seed}"
            if len([other for other in same if other.seed == line.seed]) > 1:
                text += f" {line.run.id.rsplit('-', 1)[-1]}"
            found.append(text)
        return found

    def _show_title(self) -> None:
        active = sum(view.line.state.state.active for view in self.views)
        text = f"  {len(self.runs)} runs" + (f" · {active} still active" if active else "")
        pieces: list[Piece] = [("compare", theme.TITLE), (text, theme.PLAIN)]
        if self.comparison is not None:
            text = f" · {self.comparison.n:,} test questions · profile {self.comparison.profile}"
            pieces.append((text, theme.DIM))
        self.query_one("#title", Text).show(pieces)

    def show_curves(self) -> None:
        for metric, chart in self.query_one(Charts).charts.items():
            lines = [
                self.options.line(label, metric, view.series[metric], theme.series_style(i), raw=False)
                for i, (label, view) in enumerate(zip(self.labels, self.views, strict=True))
                if metric in view.series
            ]
            levels = []
            if metric == "validation/accuracy":
                # Runs on the same questions share their floors; then one line stands for all.
                floors = sorted(
                    {(name, value) for view in self.views for name, value in view.floors("validation").items()}
                )
                if len(floors) <= 2:
                    levels = [Level(name, value, FLOOR_STYLES[i % 2]) for i, (name, value) in enumerate(floors)]
            log = self.options.log and not chart.shares
            chart.show(lines, levels, self.options.axis, log, self.options.note(metric))

    def show_comparison(self) -> None:
        arms, notes = self.query_one("#arms", Table), self.query_one("#notes", Log)
        first_time = not arms.rows
        if self.comparison is None:
            arms.empty = self.why_not
            arms.show([self._row(i, None) for i in range(len(self.views))])
            notes.show([[("not compared: ", theme.MARK), (self.why_not, theme.PLAIN)]])
            self.query_one("#changes", Table).show([])
            self.query_one("#changes-title", Text).show()
        else:
            arms.show([self._row(i, arm) for i, arm in enumerate(self.comparison.arms)])
            notes.show(
                [[("! ", theme.MARK), (text, theme.PLAIN)] for text in self.comparison.warnings]
                + [[("· ", theme.VERY_DIM), (text, theme.DIM)] for text in self.comparison.notes]
            )
            notes.action_first()
            if first_time and len(self.comparison.arms) > 1:  # the reference has nothing to be compared with
                arms.move_to(1)
            self._show_changes()
        self._show_title()

    def _row(self, index: int, arm: Arm | None) -> Row:
        view = self.views[index]
        state = view.line.state
        hue = theme.series_style(index)
        word: Piece = (f"{state.state.icon} {state.state}", theme.state_style(state.state))
        name: Piece = (f"━ {arm.label if arm else self.labels[index]}", hue)
        seed: Piece = (str(view.line.seed), theme.DIM)
        if arm is None:
            steps: Piece = (f"{state.step:,}", theme.DIM)
            test: Piece = (percent(view.line.latest("test/accuracy")), theme.PLAIN)
            return Row(str(index), (name, word, seed, steps, test, *[("", theme.PLAIN)] * 8))
        floor = max(arm.trivial_baselines.values()) if arm.trivial_baselines else float("nan")
        beats = {True: "▲ above", False: "▼ below", None: ""}[arm.above_trivial]
        paired = arm.paired
        delta, interval, p = (
            ("ref", "", "")
            if paired is None
            else (
                _points(paired.delta),
                f"{_points(paired.low)} … {_points(paired.high)}",
                f"{arm.p_holm:.3g}" if arm.p_holm is not None else "",
            )
        )
        clear = paired is not None and (paired.low > 0 or paired.high < 0)
        return Row(
            str(index),
            (
                name,
                word,
                seed,
                (f"{arm.steps:,}", theme.DIM),
                (percent(arm.accuracy), theme.BOLD),
                (f"{arm.standard_error * 100:.1f}", theme.DIM),
                (percent(arm.macro_accuracy), theme.PLAIN),
                (percent(floor), theme.DIM),
                (beats, theme.DIM if arm.above_trivial else theme.MARK),
                (delta, theme.BOLD if clear else theme.DIM),
                (interval, theme.DIM),
                (p, theme.BOLD if clear else theme.DIM),
                (short(arm.questions_per_second) if arm.questions_per_second else "", theme.DIM),
            ),
        )

    @on(Listing.Moved)
    def _moved(self, event: Listing.Moved) -> None:
        if event.listing.id == "arms":
            self._show_changes()

    def _show_changes(self) -> None:
        """Gains and losses by task of the highlighted arm against the reference."""
        key = self.query_one("#arms", Table).key
        if self.comparison is None or key is None:
            return
        arm = self.comparison.arms[int(key)]
        first = self.comparison.arms[0]
        title = f"{arm.label} against {first.label}, by task" if arm is not first else f"{arm.label}, by task"
        self.query_one("#changes-title", Text).show([(title, theme.TITLE)])
        scores = arm.tasks_by_delta if arm is not first else sorted(arm.tasks, key=lambda score: -score.accuracy)
        self.query_one("#changes", Table).show(
            [
                Row(
                    score.task.name,
                    (
                        (score.task.name, theme.PLAIN),
                        (str(score.n), theme.DIM),
                        (percent(score.accuracy), theme.PLAIN),
                        (f"+{score.gains}" if arm is not first else "", theme.DIM),
                        (f"-{score.losses}" if arm is not first else "", theme.DIM),
                        (_points(score.delta) if arm is not first else "", theme.BOLD),
                    ),
                )
                for score in scores
            ]
        )

    # Keys ----------------------------------------------------------------------------------------

    def action_axis(self) -> None:
        self.options.next_axis()
        self.show_curves()

    def action_smoothing(self) -> None:
        self.options.next_smoothing()
        self.show_curves()

    def action_scale(self) -> None:
        self.options.log = not self.options.log
        self.show_curves()

    def action_back(self) -> None:
        self.app.pop_screen()


def _points(fraction: float) -> str:
    """A difference of accuracies in percentage points."""
    return f"{fraction * 100:+.1f}"
