"""Several runs side by side: their curves in common charts, and the comparison that `accl compare` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer

from accl.errors import AcclError
from accl.store.curve import Curve
from accl.store.rundir import RunDir
from accl.store.state import RunState
from accl.store.summary import Summary
from tui import theme
from tui.commands import bindings
from tui.feed import RunSummary, RunView
from tui.plot import arm_curve
from tui.scale import percent, short
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.text import Piece
from tui.threads import in_daemon_thread
from tui.viewstate import Choices, HasSettings
from tui.widgets.chart import Chart, Line
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import ChartKeys, Charts, floor_lines, kind_of
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Log, Text

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
# Metrics whose charts come before those of all others, with the titles of these charts.
FIRST_METRICS = {
    "validation/accuracy": "validation accuracy",
    "train/loss": "training loss",
    "curriculum/effective_tasks": "effective tasks",
}
TASK_COLUMNS = (
    Column("task", 30, grow=True),
    Column("n", 5, right=True, rank=1),
    Column("accuracy", 8, right=True),
    Column("gained", 6, right=True, rank=1),
    Column("lost", 5, right=True, rank=1),
    Column("delta", 7, right=True),
)
REPAINT_S = 0.5  # at most so often are the charts drawn while runs are read: a hundred lines take a while


class CompareScreen(ChartKeys, PollingScreen):
    """Runs compared with the first of them, the reference."""

    BINDINGS = bindings("compare")
    settings: ClassVar[Mapping[str, Choices]] = {"seeds_as_lines": (False, True)}
    seeds_as_lines = False
    comparison: Comparison | None = None
    compare_error = ""
    _compared_states: tuple[str, ...] = ()
    _comparing = False

    def __init__(self, services: Services, runs: list[RunDir]) -> None:
        super().__init__(services)
        self._kept: dict[str, HasSettings] = {}
        self.runs = runs
        unread = [RunSummary(Summary(run), RunState(), math.nan) for run in runs]
        self.views = [RunView(summary=summary) for summary in unread]
        self._missing = set(runs)  # those not read yet
        self._repaint: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Charts(id="overlaid")
        with Horizontal(id="compare-body"):
            with Vertical(id="arms-side"):
                yield Table(ARM_COLUMNS, "comparing …", id="arms")
                yield Log("what to know beside the numbers", "", wrap=True, id="notes")
            with Vertical(id="changes-side"):
                yield Text(id="changes-title")
                yield Table(TASK_COLUMNS, "", id="changes")
        yield KeyBar("compare")

    def on_mount(self) -> None:
        self._kept = {"compare": self, "compare charts": self.query_one(ChartGrid)}
        for scope, owner in self._kept.items():
            self.services.view.attach(scope, owner)
        self.query_one("#arms", Table).focus()

    def on_unmount(self) -> None:
        super().on_unmount()
        for owner in self._kept.values():  # which are gone from the screen by now
            self.services.view.detach(owner)

    @property
    def pending(self) -> str:
        if self._missing:
            return f"{len(self._missing)} of {len(self.runs)} runs"
        held = any(view.stale and view.problem is None for view in self.views)
        waits = self._repaint is not None or self._comparing
        return super().pending or ("the comparison" if waits else "a database, which is held" if held else "")

    def follow(self) -> None:
        self.services.watcher.watch(self, self.runs, {"curves"}, self.delivered(self.update_view))

    def update_view(self, view: RunView) -> None:
        """Show a run: the first at once, the others together with those that come within `REPAINT_S`."""
        first = len(self._missing) == len(self.runs)
        self.views[self.runs.index(view.summary.run)] = view
        self._missing.discard(view.summary.run)
        if self._repaint is None:
            self._repaint = self.set_timer(0.01 if first else REPAINT_S, self._show_views)

    def _show_views(self) -> None:
        self._repaint = None
        self.show_curves()
        states = tuple(view.summary.state_label[0] for view in self.views)
        # A run that has ended may have written its predictions.
        if not self._missing and states != self._compared_states:
            self._compared_states, self._comparing = states, True
            self.run_worker(self._compare(), group="compare", exclusive=True)
        self._show_title()

    async def _compare(self) -> None:
        from accl.analysis.compare import compare  # imported late: the curves need not wait for it

        try:
            self.comparison, self.compare_error = await in_daemon_thread(lambda: compare(self.runs)), ""
        except AcclError as error:
            self.comparison, self.compare_error = None, str(error)
        if self.is_open:
            self.show_comparison()
        self._comparing = False

    @property
    def labels(self) -> list[str]:
        """Recipes, with the seed and the end of the id where these are needed to distinguish runs."""
        setups = [view.summary.setup for view in self.views]
        by_recipe = Counter(setup.recipe for setup in setups)
        by_seed = Counter((setup.recipe, setup.seed) for setup in setups)
        return [
            setup.recipe
            + (f" s{setup.seed}" if by_recipe[setup.recipe] > 1 else "")
            + (f" {run.id.rsplit('-', 1)[-1]}" if by_seed[setup.recipe, setup.seed] > 1 else "")
            for setup, run in zip(setups, self.runs, strict=True)
        ]

    def _show_title(self) -> None:
        active = sum(view.summary.active for view in self.views)
        text = f"  {len(self.runs)} runs" + (f" · {active} still active" if active else "")
        text += f" · reading {len(self._missing)} …" if self._missing else ""
        pieces: list[Piece] = [("compare", theme.TITLE), (text, theme.PLAIN)]
        if self.comparison is not None:
            text = f" · {self.comparison.n:,} test questions · profile {self.comparison.profile}"
            pieces.append((text, theme.DIM))
        self.query_one("#title", Text).show(pieces)

    def show_curves(self) -> None:
        curves = [view.curves for view in self.views]
        floors = {floor for view in self.views for floor in view.floors("validation").items()}
        metrics = dict.fromkeys(metric for metric in FIRST_METRICS if any(metric in run for run in curves))
        metrics |= dict.fromkeys(sorted({metric for run in curves for metric in run}))
        charts = []
        for metric in metrics:
            lines = self._lines(metric, curves)
            # Runs with the same questions have the same floors; those of others would crowd the chart.
            floored = metric == "validation/accuracy" and len(floors) <= 2
            title, shares = FIRST_METRICS.get(metric, metric), metric.endswith("accuracy")
            charts.append(Chart(title, lines, floor_lines(floors) if floored else (), shares, (metric,)))
        grid = self.query_one(Charts).grid
        grid.reference = charts[0].lines[0].name if charts else ""
        grid.show(charts)

    def _lines(self, metric: str, curves: Sequence[Mapping[str, Curve]]) -> tuple[Line, ...]:
        """Make a line of each run that has a metric, or one of each arm from all of its seeds."""
        by_line: dict[str, list[Curve]] = {}
        styles = (
            dict(zip(self.labels, map(_style, self.views), strict=True))
            if self.seeds_as_lines
            else {view.summary.setup.recipe: theme.arm_style(view.summary.setup.recipe) for view in self.views}
        )
        recipes = [view.summary.setup.recipe for view in self.views]
        for name, run in zip(self.labels if self.seeds_as_lines else recipes, curves, strict=True):
            by_line.setdefault(name, []).extend([run[metric]] if metric in run else [])
        return tuple(
            Line(name, arm_curve(seeds), styles[name], "line" if len(seeds) > 1 else kind_of(metric))
            for name, seeds in by_line.items()
            if seeds
        )

    def action_seeds(self) -> None:
        self.seeds_as_lines = not self.seeds_as_lines
        self.show_curves()

    def action_back(self) -> None:
        filters = [line for line in self.query(Filter) if line.value]
        for line in filters:
            line.action_clear()
        if not filters and not self.query_one(Charts).grid.peel():
            self.app.pop_screen()

    def show_comparison(self) -> None:
        arms, notes = self.query_one("#arms", Table), self.query_one("#notes", Log)
        if self.comparison is None:
            arms.show([self._row(i, None) for i in range(len(self.views))])
            notes.show([[("not compared: ", theme.MARK), (self.compare_error, theme.PLAIN)]])
        else:
            first_time = not arms.rows
            arms.show([self._row(i, arm) for i, arm in enumerate(self.comparison.arms)])
            notes.show(
                [[("! ", theme.MARK), (text, theme.PLAIN)] for text in self.comparison.warnings]
                + [[("· ", theme.VERY_DIM), (text, theme.DIM)] for text in self.comparison.notes]
            )
            notes.move_to(0)
            if first_time:
                arms.move_to(1)  # the reference has no changes to show
        self._show_changes()
        self._show_title()

    def _row(self, index: int, arm: Arm | None) -> Row:
        """Make the row of a run, from the run alone if it has not been compared."""
        summary = self.views[index].summary
        state = summary.state
        cells: list[Piece] = [
            (f"━ {arm.label if arm else self.labels[index]}", _style(self.views[index])),
            summary.state_label,
            (summary.seed, theme.DIM),
            (f"{arm.steps if arm else state.step:,}", theme.DIM),
        ]
        if arm is None:
            cells += [(percent(summary.latest("test/accuracy")), theme.PLAIN), *[("", theme.PLAIN)] * 8]
            return Row(str(index), tuple(cells))
        above_floor = {True: "▲ above", False: "▼ below", None: ""}[arm.above_trivial]
        delta, interval, style = "ref", "", theme.DIM
        if (paired := arm.paired) is not None:
            delta, interval = _points(paired.delta), f"{_points(paired.low)} … {_points(paired.high)}"
            style = theme.BOLD if paired.low > 0 or paired.high < 0 else theme.DIM
        cells += [
            (percent(arm.accuracy), theme.BOLD),
            (f"{arm.standard_error * 100:.1f}", theme.DIM),
            (percent(arm.macro_accuracy), theme.PLAIN),
            (percent(max(arm.trivial_baselines.values(), default=float("nan"))), theme.DIM),
            (above_floor, theme.DIM if arm.above_trivial else theme.MARK),
            (delta, style),
            (interval, theme.DIM),
            (f"{arm.p_holm:.3g}" if arm.p_holm is not None else "", style),
            (short(arm.questions_per_second) if arm.questions_per_second else "", theme.DIM),
        ]
        return Row(str(index), tuple(cells))

    @on(Listing.CursorMoved)
    def _show_changes(self) -> None:
        """Show gains and losses by task of the arm at the cursor against the reference."""
        changes, title = self.query_one("#changes", Table), self.query_one("#changes-title", Text)
        key = self.query_one("#arms", Table).key
        if self.comparison is None or key is None:
            changes.show([])
            title.show()
            return
        arm, reference = self.comparison.arms[int(key)], self.comparison.arms[0]
        compared = arm is not reference
        title.show([(arm.label + (f" against {reference.label}" if compared else "") + ", by task", theme.TITLE)])
        scores = arm.tasks_by_delta if compared else sorted(arm.tasks, key=lambda score: -score.accuracy)
        rows = []
        for score in scores:
            change = (f"+{score.gains}", f"-{score.losses}", _points(score.delta)) if compared else ("", "", "")
            name, n, accuracy = score.task.name, str(score.n), percent(score.accuracy)
            styles = (theme.PLAIN, theme.DIM, theme.PLAIN, theme.DIM, theme.DIM, theme.BOLD)
            rows.append(Row(name, tuple(zip((name, n, accuracy, *change), styles, strict=True))))
        changes.show(rows)


def _style(view: RunView) -> Style:
    return theme.arm_style(view.summary.setup.recipe, view.summary.setup.seed)


def _points(fraction: float) -> str:
    """Format a difference of accuracies in percentage points."""
    return f"{fraction * 100:+.1f}"
