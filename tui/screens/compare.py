"""Arms side by side: their curves in common charts, and their tests against those of a reference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import ContentSwitcher
from textual.worker import Worker

from accl.analysis.grouping import Arm
from accl.store.curve import Curve
from accl.store.query import Comparison
from accl.store.rundir import RunDir
from tui import theme
from tui.commands import bindings
from tui.comparing import Comparing
from tui.feed import RunView
from tui.messages import OpenRun
from tui.panes import comparison as content
from tui.panes.overlay import Overlay, finer
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

PARTS = {
    "arms": "arms",
    "charts": "charts",
    "changes": "tasks",
    "flips": "flips",
    "config": "config",
    "notes": "notes",
    "power": "seeds",
}
SETTLE_S = 0.1  # a range that changes within it is not read
MARGIN = 0.5  # read beyond both ends of what is visible, as a share of it
BOTH_SIDES = 120  # columns from which on charts and tables stand side by side
REPAINT_S = 0.5  # at most so often is everything drawn while runs are read,
REPAINT_SHARE = 0.1  # and for at most this share of the time: a hundred runs take a while


class CompareScreen(ChartKeys, PollingScreen):
    """Arms compared with one of them.

    Attributes:
        comparing: what is known of the runs.
        part: what has the focus, of `PARTS`.
    """

    BINDINGS = bindings("compare")
    settings: ClassVar[Mapping[str, Choices]] = {"seeds_as_lines": (False, True), "by_category": (False, True)}
    seeds_as_lines = False
    by_category = False
    part = "arms"
    _repaint: Timer | None = None
    _drawing_s = 0.0
    _is_computing = False
    _zooming: Worker[None] | None = None
    _changes_of: object = None

    def __init__(self, services: Services, runs: list[RunDir]) -> None:
        super().__init__(services)
        self.comparing = Comparing(runs)
        self._overlay = Overlay()
        self._kept: dict[str, HasSettings] = {}

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
        known = self.comparing
        if known.missing:
            return f"{len(known.missing)} of {len(known.runs)} runs"
        waits = {
            "the comparison": self._repaint is not None or known.is_due or self._is_computing,
            "finer curves": self._zooming is not None and not self._zooming.is_finished,
            "a database, which is held": any(view.stale and view.problem is None for view in known.views),
        }
        return super().pending or next((words for words, wait in waits.items() if wait), "")

    def follow(self) -> None:
        self.services.watcher.watch(self, self.comparing.runs, {"curves"}, self.delivered(self.update_view))

    def update_view(self, view: RunView) -> None:
        """Show a run: the first at once, the others together with those that come within `REPAINT_S`."""
        known = self.comparing
        first = len(known.missing) == len(known.runs)
        known.take(view)
        if self._repaint is None:
            wait = max(REPAINT_S, self._drawing_s / REPAINT_SHARE) if known.missing else REPAINT_S
            self._repaint = self.set_timer(0.01 if first else wait, self._show_views)
        elif not known.missing:  # whatever the wait, nothing more is to come
            self._repaint.stop()
            self._repaint = self.set_timer(0.01, self._show_views)
        if not first:
            self._compute()

    def _show_views(self) -> None:
        begun = time.process_time()
        self._repaint = None
        self.comparing.group()
        self._compute()
        self.show_curves()
        self.show_tables()
        self._drawing_s = time.process_time() - begun

    def _compute(self) -> None:
        if self.comparing.is_due and not self._is_computing:
            self._is_computing = True
            self.run_worker(self._advance())

    async def _advance(self) -> None:
        known = self.comparing
        before = known.comparison
        while known.is_due:
            await known.advance()
        self._is_computing = False
        if self.is_open and known.comparison is not before:
            self._show_arms()
            if self.arm is not None and self.arm.label == known.reference:
                self.action_other_arm(1)  # which has changes to show
            self.show_curves()
            self.show_tables()

    # What is shown.

    def show_tables(self) -> None:
        """Show everything but the curves."""
        known, waits = self.comparing, self._waits
        self._show_arms()
        self.query_one("#notes", Log).show(content.note_lines(known))
        self.query_one("#notes", Log).move_to(0)
        config = self.query_one("#config", Table)
        config.columns, keys = content.config_table(known.arms)
        config.show(keys)
        self.query_one("#flips", Table).show(content.flip_rows(known), waits or "no pairs of runs")
        self.query_one("#power", Log).show(content.power_lines(known))
        self._show_arm()
        self.query_one("#title", Text).show(content.title(known, waits))

    def _show_arms(self) -> None:
        self.query_one("#arms", Table).show(content.arm_rows(self.comparing))

    @property
    def _waits(self) -> str:
        """What the tables wait for, if they do."""
        known = self.comparing
        if known.missing:
            return f"reading {len(known.missing)} …"
        return "computing …" if known.is_due or self._is_computing else ""

    @property
    def arm(self) -> Arm | None:
        """The arm at the cursor."""
        key = self.query_one("#arms", Table).key or ""
        index = content.run_of(key)
        return next((arm for arm in self.comparing.arms if arm.label == key or index in arm.members), None)

    @on(Listing.CursorMoved)
    def _show_arm(self) -> None:
        """Show the arm at the cursor: in the forest plot, by task, and what is to be said of it."""
        known, arm, waits = self.comparing, self.arm, self._waits
        changes = self.query_one("#changes", Table)
        changes.show(content.change_rows(known, arm, self.by_category), waits or "no test results")
        if (content_of := (arm and arm.label, self.by_category)) != self._changes_of:
            self._changes_of = content_of
            changes.move_to(0)
        forest = self.query_one("#forest", Forest)
        waits = waits or "no two arms have a finished run each"
        forest.show(*content.effects(known), waits, arm.label if arm else "")
        self.query_one("#arm-detail", Text).show(content.left_out(known, arm, self.query_one("#arms", Table).key or ""))
        self._show_tabs()

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
        self.query_one(KeyBar).redraw()

    def show_curves(self) -> None:
        """Show all metrics."""
        grid = self.query_one(Charts).grid
        grid.reference = "" if self.seeds_as_lines else self.comparing.reference
        grid.show(self._overlay.charts(self.comparing.groups, self.comparing.views, self.seeds_as_lines))

    # Zoomed in, what is visible is read in finer bins where these are coarser than the steps.

    @on(ChartGrid.Zoomed)
    def _zoom(self, event: ChartGrid.Zoomed) -> None:
        if self._zooming is not None:
            self._zooming.cancel()
        margin = MARGIN * (event.high - event.low)
        if self.query_one(Charts).grid.view.low is not None:
            self._zooming = self.run_worker(self._read_finer(int(event.low - margin), int(event.high + margin) + 1))

    async def _read_finer(self, low: int, high: int) -> None:
        """Read arm by arm, of each what is displayed first."""
        await asyncio.sleep(SETTLE_S)
        grid, views, feed = self.query_one(Charts).grid, self.comparing.views, self.services.watcher.feed
        displayed = {metric for title in grid.displayed for metric in grid.charts[title].metrics}
        found: dict[int, dict[str, Curve]] = {}
        for shown in (True, False):
            for arm in self.comparing.groups:
                coarse = {
                    i: [m for m, curve in views[i].curves.items() if not curve.raw and (m in displayed) == shown]
                    for i in arm.members
                }
                readers = {i: (feed(self.comparing.runs[i]).reader, names) for i, names in coarse.items() if names}
                if readers:
                    details = await in_daemon_thread(partial(finer, readers, low, high))
                    found = found | {i: found.get(i, {}) | curves for i, curves in details.items()}
                    self._overlay.details = found
                    self.show_curves()

    # What the keys do.

    @property
    def shows_charts(self) -> bool:
        return self.part == "charts" or not self._is_narrow

    @property
    def has_other_arms(self) -> bool:
        return len(self.comparing.arms) > 1

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
        table, labels = self.query_one("#arms", Table), [arm.label for arm in self.comparing.arms]
        if self.arm is not None:
            label = labels[(labels.index(self.arm.label) + step) % len(labels)]
            table.move_to(next(i for i, row in enumerate(table.rows) if row.key == label))

    def action_reference(self) -> None:
        """Compare with the arm at the cursor, or if that is the reference with the next one."""
        arms = self.comparing.arms
        if len(arms) > 1 and self.arm is not None:
            self.comparing.choose(self.arm.label if self.arm is not arms[0] else arms[1].label)
            self._compute()

    def action_categories(self) -> None:
        self.by_category = not self.by_category
        self._show_arm()

    def action_seeds(self) -> None:
        self.seeds_as_lines = not self.seeds_as_lines
        self.show_curves()

    def action_open(self) -> None:
        """Open the questions of the flips at the cursor, or else a run of the arm."""
        known = self.comparing
        if self.part == "flips":
            if flip := self.query_one("#flips", Table).key:
                member, word = flip.split()
                query = f"{Comparison('flip', ':', (known.arms[0].recipe,), (None,))} {word}"
                self.post_message(OpenRun(known.runs[int(member)], "questions", query))
        elif self.arm is not None:
            index = content.run_of(self.query_one("#arms", Table).key or "")
            self.post_message(OpenRun(known.runs[self.arm.members[0] if index < 0 else index]))

    @on(Listing.Chosen)
    def _open(self) -> None:
        self.action_open()

    def action_back(self) -> None:
        filters = [line for line in self.query(Filter) if line.value]
        for line in filters:
            line.action_clear()
        if not filters and not self.query_one(Charts).grid.peel():
            self.app.pop_screen()
