"""Arms side by side: their curves in common charts, and their tests against those of a reference."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import ContentSwitcher

from accl.analysis.grouping import Arm, first_reference, group_runs
from accl.errors import AcclError
from accl.store.query import Comparison
from accl.store.rundir import RunDir
from accl.store.state import RunState
from accl.store.summary import Summary
from tui import theme
from tui.commands import bindings
from tui.feed import RunSummary, RunView
from tui.messages import OpenRun
from tui.panes import comparison as content
from tui.panes.overlay import Overlay
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.text import Piece
from tui.threads import in_daemon_thread
from tui.viewstate import Choices, HasSettings
from tui.widgets.chartgrid import ChartGrid
from tui.widgets.charts import ChartKeys, Charts
from tui.widgets.filter import Filter
from tui.widgets.forest import Forest
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.table import Table
from tui.widgets.text import Log, Text

if TYPE_CHECKING:
    from accl.analysis.arms import ArmsComparison
    from accl.analysis.results import Results

PARTS = {
    "arms": "arms",
    "charts": "charts",
    "changes": "tasks",
    "flips": "flips",
    "config": "config",
    "notes": "notes",
    "power": "seeds",
}
BOTH_SIDES = 120  # columns from which on charts and tables stand side by side
REPAINT_S = 0.5  # at most so often is everything drawn while runs are read,
REPAINT_SHARE = 0.1  # and for at most this share of the time: a hundred runs take a while


class CompareScreen(ChartKeys, PollingScreen):
    """Arms compared with one of them.

    Attributes:
        arms: groups of the runs, the reference first.
        part: what has the focus, of `PARTS`.
        comparison: None until it has been computed.
        problems: why a run takes no part in it, by index.
    """

    BINDINGS = bindings("compare")
    settings: ClassVar[Mapping[str, Choices]] = {"seeds_as_lines": (False, True), "by_category": (False, True)}
    seeds_as_lines = False
    by_category = False
    part = "arms"
    comparison: ArmsComparison | None = None
    _compared: object = None
    _comparing = False
    _drawing_s = 0.0
    _changes_of: object = None
    _chosen = ""  # label of the reference that the user chose

    def __init__(self, services: Services, runs: list[RunDir]) -> None:
        super().__init__(services)
        self._kept: dict[str, HasSettings] = {}
        self.runs = runs
        unread = [RunSummary(Summary(run), RunState(), math.nan) for run in runs]
        self.views = [RunView(summary=summary) for summary in unread]
        self.arms: list[Arm] = []
        self.problems: dict[int, str] = {}
        self._answers: dict[int, Results | AcclError] = {}
        self._overlay = Overlay()
        self._missing = set(runs)  # those not read yet
        self._repaint: Timer | None = None

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        with Horizontal(id="compare-body"):
            yield Charts(id="overlaid")
            with Vertical(id="compare-side"):
                yield Forest(id="forest")
                yield Table(content.ARM_COLUMNS, "reading …", id="arms")
                yield Text(id="arm-detail")
                yield Text(id="compare-tabs")
                with ContentSwitcher(initial="changes", id="compare-parts"):
                    yield Table(content.CHANGE_COLUMNS, "computing …", id="changes")
                    yield Table(content.FLIP_COLUMNS, "computing …", id="flips")
                    yield Table((), "no key differs but the seed", id="config")
                    yield Log("what to know beside the numbers", "", wrap=True, id="notes")
                    yield Log("seeds needed for ±1 point", "nothing to tell it from yet", wrap=True, id="power")
        yield KeyBar("compare")

    def on_mount(self) -> None:
        self._kept = {"compare": self, "compare charts": self.query_one(ChartGrid)}
        for scope, owner in self._kept.items():
            self.services.view.attach(scope, owner)
        self.action_part("arms")

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
            wait = max(REPAINT_S, self._drawing_s / REPAINT_SHARE) if self._missing else REPAINT_S
            self._repaint = self.set_timer(0.01 if first else wait, self._show_views)
        elif not self._missing:  # whatever the wait, nothing more is to come
            self._repaint.stop()
            self._repaint = self.set_timer(0.01, self._show_views)

    def _show_views(self) -> None:
        begun = time.process_time()
        self._repaint = None
        self._group()
        self.show_curves()
        self._compare_if_due()
        self.show_tables()
        self._drawing_s = time.process_time() - begun

    # The arms and their comparison.

    @property
    def reference(self) -> str:
        """Label of the arm that the others are compared with."""
        return self.arms[0].label if self.arms else ""

    def _group(self) -> None:
        """Group the runs that have been read, the reference first."""
        known = [i for i, run in enumerate(self.runs) if run not in self._missing]
        summaries = [self.views[i].summary for i in known]
        arms = group_runs([(s.setup.recipe, s.setup.seed, s.summary.config) for s in summaries])
        reference = self._chosen if self._chosen in [a.label for a in arms] else ""
        reference = reference or first_reference(arms, [s.created for s in summaries])
        arms = [Arm(a.label, a.recipe, tuple(known[i] for i in a.members), a.values) for a in arms]
        self.arms = sorted(arms, key=lambda arm: arm.label != reference)

    def _compare_if_due(self) -> None:
        """Compute the comparison once all runs were read, and again when one has ended or the reference is another."""
        ready = {i: content.why_not(view) for i, view in enumerate(self.views)}
        key = ready, tuple((arm.label, arm.members) for arm in self.arms)
        if not self._missing and key != self._compared:
            self._compared, self._comparing = key, True
            self.run_worker(self._compare({i for i, why in ready.items() if not why}), group="compare", exclusive=True)

    async def _compare(self, finished: set[int]) -> None:
        arms, reference, known = list(self.arms), self.reference, self._answers

        def compute() -> tuple[dict[int, Results | AcclError], ArmsComparison]:
            from accl.analysis.arms import compare_arms  # imported late: the curves need not wait for it
            from accl.analysis.results import read_results

            answers: dict[int, Results | AcclError] = {}
            for i in sorted(finished):
                found = known.get(i)
                try:
                    answers[i] = found if found and not isinstance(found, AcclError) else read_results(self.runs[i])
                except AcclError as error:
                    answers[i] = error
            results = {i: answer for i, answer in answers.items() if not isinstance(answer, AcclError)}
            return answers, compare_arms(arms, reference, results)

        self._answers, self.comparison = await in_daemon_thread(compute)
        self._comparing = False
        if self.is_open:
            self.show_tables()
            if self.arm is not None and self.arm.label == self.reference:
                self.action_other_arm(1)  # which has changes to show

    # What is shown.

    def _find_problems(self) -> dict[int, str]:
        """Say of every run that takes no part why."""
        refused = self.comparison.problems if self.comparison else {}
        problems = {}
        for i, view in enumerate(self.views):
            answer = self._answers.get(i)
            error = answer if isinstance(answer, AcclError) else refused.get(i)
            if self.runs[i] not in self._missing and (why := content.why_not(view) or str(error or "")):
                problems[i] = why
        return problems

    def show_tables(self) -> None:
        """Show everything but the curves."""
        self.problems = self._find_problems()
        rows = content.arm_rows(self.arms, self.views, self.comparison, self.problems)
        self.query_one("#arms", Table).show(rows)
        notes = [f"! {self._run_label(i)} is not compared: {why}" for i, why in self.problems.items()]
        self.query_one("#notes", Log).show(
            content.note_lines([*notes, *(self.comparison.notes if self.comparison else ())])
        )
        self.query_one("#notes", Log).move_to(0)
        columns, keys = content.config_table(self.arms)
        config = self.query_one("#config", Table)
        config.columns = columns
        config.show(keys)
        compared = "no pairs of runs" if self.comparison else "computing …"
        self.query_one("#flips", Table).show(content.flip_rows(self.arms, self.views, self.comparison), compared)
        if self.comparison is not None:
            from accl.analysis.power import ASSUMPTIONS

            self.query_one("#power", Log).show(content.power_lines(self.arms, self.comparison, ASSUMPTIONS))
        self._show_arm()
        self._show_title()

    def _run_label(self, index: int) -> str:
        arm = next(arm for arm in self.arms if index in arm.members)
        return content.run_label(arm, self.views[index], self.views)

    @property
    def arm(self) -> Arm | None:
        """The arm at the cursor."""
        key = self.query_one("#arms", Table).key or ""
        index = int(key.removeprefix("run ")) if key.startswith("run ") else -1
        return next((arm for arm in self.arms if arm.label == key or index in arm.members), None)

    @on(Listing.CursorMoved)
    def _show_arm(self) -> None:
        """Show the arm at the cursor: in the forest plot, by task, and what is to be said of it."""
        arm, changes, key = self.arm, self.query_one("#changes", Table), self.query_one("#arms", Table).key or ""
        score = self.comparison.scores.get(arm.label) if self.comparison and arm else None
        is_reference = arm is not None and arm.label == self.reference
        rows = []
        if score is not None:
            rows = content.change_rows(score.categories if self.by_category else score.tasks, is_reference)
        nothing = "computing …" if self._comparing or self._missing else "no test results"
        changes.show(rows, nothing)
        if (content_of := (arm and arm.label, self.by_category)) != self._changes_of:
            self._changes_of = content_of
            changes.move_to(0)
        waits = nothing if self._comparing or self._missing else "no two arms have a finished run each"
        effects = content.effects(self.arms, self.views, self.comparison)
        holm = f" · p Holm over {len(effects)}" if len(effects) > 1 else " · p"
        title = f"Δ test to {self.reference} in points, 95 %{holm}"
        self.query_one("#forest", Forest).show(title, effects, waits, arm.label if arm else "")
        detail: list[Piece] = []
        if key.startswith("run "):
            detail = [("not compared: ", theme.MARK), (self.problems.get(int(key[4:]), ""), theme.PLAIN)]
        elif arm is not None and (out := [i for i in arm.members if i in self.problems]):
            words = f"{len(out)} not compared: " if len(arm.members) > 1 else "not compared: "
            detail = [(words, theme.MARK), (self.problems[out[0]], theme.PLAIN)]
        self.query_one("#arm-detail", Text).show(detail)
        self._show_tabs()

    def _show_title(self) -> None:
        active = sum(view.summary.active for view in self.views)
        seeds = {len(arm.members) for arm in self.arms}
        runs = f"{len(self.runs)} runs" if len(seeds) > 1 else f"{max(seeds, default=0)} seed{'s' * (seeds != {1})}"
        text = f"  {len(self.arms)} arm{'s' * (len(self.arms) != 1)} x {runs}" if len(seeds) == 1 else f"  {runs}"
        text += f" · {active} still active" if active else ""
        text += f" · reading {len(self._missing)} …" if self._missing else ""
        text += " · computing …" if self._comparing else ""
        pieces: list[Piece] = [("compare", theme.TITLE), (text, theme.PLAIN)]
        if self.comparison is not None and self.comparison.n:
            pieces.append((f" · {self.comparison.n:,} test questions, paired", theme.DIM))
        if out := len(self.problems):
            pieces.append((f" · {out} not compared", theme.MARK))
        self.query_one("#title", Text).show(pieces)

    def _show_tabs(self) -> None:
        shown = [part for part in PARTS if self._is_narrow or part != "charts"]
        current = self.query_one("#compare-parts", ContentSwitcher).current
        pieces: list[Piece] = []
        for part in shown:
            focused, open_ = part == self.part, part == current and self.part != "charts"
            style = theme.TITLE if focused else theme.BOLD if open_ else theme.DIM
            title = "categories" if part == "changes" and self.by_category else PARTS[part]
            pieces.append((f"[{title}]" if focused or open_ else f" {title} ", style))
        if self.arm is not None and "changes" in (self.part, current):
            pieces.append((f" {self.arm.label}", theme.arm_style(self.arm.label)))
        self.query_one("#compare-tabs", Text).show(pieces)

    def show_curves(self) -> None:
        """Show all metrics."""
        grid = self.query_one(Charts).grid
        grid.reference = "" if self.seeds_as_lines else self.reference
        grid.show(self._overlay.charts(self.arms, self.views, self.seeds_as_lines))

    # What the keys do.

    @property
    def _is_narrow(self) -> bool:
        return self.size.width < BOTH_SIDES

    def on_resize(self, event: events.Resize) -> None:
        self.action_part("arms" if self.part == "charts" and not self._is_narrow else self.part)

    def action_part(self, part: str) -> None:
        """Focus a part, and show it."""
        self.part = part
        if part not in ("arms", "charts"):
            self.query_one("#compare-parts", ContentSwitcher).current = part
        hidden = {
            "#overlaid": self._is_narrow and part != "charts",
            "#forest, #arms, #arm-detail": self._is_narrow and part != "arms",
            "#compare-parts": self._is_narrow and part == "charts",
        }
        for selector, hide in hidden.items():
            for widget in self.query(selector):
                widget.display = not hide
        self.set_class(not self._is_narrow, "-two-sides")
        self.query_one("#compare-side").set_class(part == "charts", "-tabs-alone")
        focus: Widget = self.query_one(ChartGrid) if part == "charts" else self.query_one(f"#{part}")
        focus.focus()
        self._show_tabs()

    def action_next_part(self, step: int) -> None:
        parts = [part for part in PARTS if self._is_narrow or part != "charts"]
        self.action_part(parts[(parts.index(self.part) + step) % len(parts)])

    def action_other_arm(self, step: int) -> None:
        """Move to the next arm, wherever the focus is."""
        table, labels = self.query_one("#arms", Table), [arm.label for arm in self.arms]
        if self.arm is not None:
            label = labels[(labels.index(self.arm.label) + step) % len(labels)]
            table.move_to(next(i for i, row in enumerate(table.rows) if row.key == label))

    def action_reference(self) -> None:
        """Compare with the arm at the cursor, or if that is the reference with the next one."""
        if len(self.arms) > 1 and self.arm is not None:
            self._chosen = self.arm.label if self.arm.label != self.reference else self.arms[1].label
            self.comparison = None
            self._show_views()

    def action_categories(self) -> None:
        self.by_category = not self.by_category
        self._show_arm()

    def action_seeds(self) -> None:
        self.seeds_as_lines = not self.seeds_as_lines
        self.show_curves()

    def action_open(self) -> None:
        """Open the questions of the flips at the cursor, or else a run of the arm."""
        if self.part == "flips":
            if flip := self.query_one("#flips", Table).key:
                member, word = flip.split()
                query = f"{Comparison('flip', ':', (self.arms[0].recipe,), (None,))} {word}"
                self.post_message(OpenRun(self.runs[int(member)], "questions", query))
        elif self.arm is not None:
            key = self.query_one("#arms", Table).key or ""
            index = int(key[4:]) if key.startswith("run ") else self.arm.members[0]
            self.post_message(OpenRun(self.runs[index]))

    @on(Listing.Chosen)
    def _open(self) -> None:
        self.action_open()

    def action_back(self) -> None:
        filters = [line for line in self.query(Filter) if line.value]
        for line in filters:
            line.action_clear()
        if not filters and not self.query_one(Charts).grid.peel():
            self.app.pop_screen()
