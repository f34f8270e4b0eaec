"""The list of all runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.timer import Timer

from accl.errors import AcclError, QueryError
from accl.store.glance import Glance
from accl.store.query import EVERYTHING, parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir
from tui import theme
from tui.actions import stop_after_confirmation
from tui.arms import GROUPINGS, Group, grouped, references
from tui.background import Background
from tui.commands import bindings, next_choice
from tui.feed import RunSummary, RunsView, RunView
from tui.messages import OpenCompare, OpenRun
from tui.rundetail import detail_lines
from tui.runorder import ordered, problem_of, value_of
from tui.runrows import COLUMNS, GLANCED, SORTS, Context, columns, group_row, run_row, scale_of
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.viewstate import Choices
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.preview import Preview
from tui.widgets.runtable import RunTable
from tui.widgets.table import Row
from tui.widgets.text import Text

AGE_S = 60.0  # ages are shown anew so often
REST_S = 0.15  # a cursor that moves on sooner only passes over a run
PREVIEW_S = 3.0
LATE_S = 0.1  # figures that arrive one by one are shown together
PREVIEWED = 8  # runs of an arm whose curves are shown
EMPTY = """No runs yet.

Start one in another terminal, it appears here at once:

  accl train full --profile demo"""


class RunsScreen(PollingScreen):
    """All runs of a folder in groups, newest first or sorted.

    Attributes:
        grouping: key of `GROUPINGS`, empty for none.
        sort: key of `tui.runorder.value_of` with an arrow, empty for newest first.
        selected: ids of those to compare.
        preview: data of the run whose curves arrived last, once they are read.
    """

    BINDINGS = bindings("runs")
    settings: ClassVar[Mapping[str, Choices]] = {"filter_text": None, "sort": None, "grouping": [*GROUPINGS, ""]}
    filter_text = ""
    wanted = EVERYTHING  # the newest filter that could be understood
    problem = ""
    sort = ""
    grouping = "arm"
    machine: tuple[str, ...] = ()

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-beside")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-medium"), (34, "-tall")]
        self.summaries: Sequence[RunSummary] = ()
        self.selected: list[str] = []
        self.folded: set[str] = set()
        self.preview: RunView | None = None
        self.context = Context()
        self._listed = False
        self._shown = 0  # runs that match the filter
        self._background = Background(services.watcher, self.context)
        self._entries: dict[str, RunSummary | Group] = {}  # by the keys of the rows, in their order
        self._arranged_for: tuple[object, ...] = ()  # what the entries depend on
        self._groups: dict[RunDir, str] = {}  # key of the group of each run
        self._rows: dict[str, Row] = {}  # by their keys
        self._made_for: object = None  # what all rows depend on
        self._previewed: dict[RunDir, RunView | None] = {}
        self._redraw: Timer | None = None  # runs until the curves are drawn again
        self._rest: Timer | None = None  # runs until the cursor has come to rest
        self._late: Timer | None = None  # runs until what has arrived is shown

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        with Container(id="runs-body"):
            yield RunTable(COLUMNS, "reading …", id="runs")
            yield Preview(id="preview")
        yield Filter("words, or: state:finished val>30% cfg.optim.lr>=1e-4 -tag:old", id="filter")
        yield Filter("config key or metric to sort by: optim.lr, age, validation/accuracy", id="order")
        yield Text(id="detail")
        yield KeyBar("runs", "groups")

    def on_mount(self) -> None:
        self.services.view.attach("runs", self)
        self.query_one("#filter", Filter).restore(self.filter_text)
        self.table.focus()
        self.set_interval(AGE_S, self._show_ages)

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    @property
    def pending(self) -> str:
        if not self._listed:
            return "its first look at the runs"
        if self._background.waits:
            return "the databases of the runs"
        if None in self._previewed.values():
            return "the curves of the highlighted runs"
        return ""

    def follow(self) -> None:
        self._background.follow_load(self.delivered(self._load_arrived))
        self.services.watcher.watch_folder(self, self.services.root, self.delivered(self.update_view))
        self._follow_highlighted()

    def unfollow(self) -> None:
        super().unfollow()
        self._previewed = {}
        self._background.forget()
        self.services.watcher.unwatch((self, "preview"))

    def update_view(self, view: RunsView | AcclError) -> None:
        first, self._listed = not self._entries, True
        if isinstance(view, AcclError):
            self.show_problem(view)
            return
        self.summaries = view.summaries
        self.context.references = references(grouped(view.summaries, "arm"))
        for run in view.changed:
            self._forget_row(run)
        ids = {summary.run.id for summary in view.summaries}
        self.selected = [run_id for run_id in self.selected if run_id in ids]
        self.show()
        if first:  # the cursor begins on a run, also where that of a group is above it
            self.table.move_to(
                next((i for i, each in enumerate(self._entries.values()) if isinstance(each, RunSummary)), 0)
            )
        self._follow_rows()

    # What is highlighted.

    @property
    def entry(self) -> RunSummary | Group | None:
        """Run or group at the cursor."""
        return self._entries.get(self.table.key or "")

    @property
    def highlighted(self) -> RunSummary | None:
        """Run at the cursor."""
        return entry if isinstance(entry := self.entry, RunSummary) else None

    @property
    def highlighted_runs(self) -> Sequence[RunSummary]:
        """Run at the cursor, or all those of the group there."""
        entry = self.entry
        return entry.runs if isinstance(entry, Group) else [entry] if entry else []

    # What is shown.

    def show(self) -> None:
        self._prepare()
        self._arrange()
        table = self.table
        table.sorted_by = self.sort
        rows = [self._rows.get(key) or self._row(key, entry) for key, entry in self._entries.items()]
        table.show(rows, f"No run matches: {self.wanted.text}" if self.summaries else EMPTY)
        self._show_title()
        self._show_detail()

    def _prepare(self) -> None:
        """Collect what all rows depend on, and forget them if that has changed."""
        context, key = self.context, self.sort[:-1]
        typed = key if key and key not in SORTS else ""
        context.typed = value_of(typed) if typed else None
        floors = [glance.floor for glance in context.glances.values() if isinstance(glance, Glance)]
        tests = [each.latest("test/accuracy") for each in self.summaries]
        context.scale = scale_of([value for value in (*floors, *tests) if math.isfinite(value)])
        reference_tests = [repr(reference.arm.tests) for reference in context.references.values()]
        made_for = (context.scale, reference_tests, self.grouping, typed)
        if made_for != self._made_for:
            self._made_for = made_for
            self._rows.clear()
            self.table.columns = columns(context.scale, typed)

    def _arrange(self) -> None:
        """Set the entries: runs and groups by the keys of their rows. An arm of one run is no group."""
        arranged_for = (self.summaries, self.wanted, self.sort, self.grouping, frozenset(self.folded))
        before = self._arranged_for
        if before and arranged_for[0] is before[0] and arranged_for[1:] == before[1:]:
            return
        self._arranged_for = arranged_for
        now, shown = time.time(), self.summaries
        if self.wanted != EVERYTHING:
            shown = [each for each in shown if self.wanted.matches(RunSubject(each.summary, now))]
        self._shown = len(shown)
        self._entries, self._groups = {}, {}
        for group in grouped(ordered(shown, self.sort), self.grouping):
            key = group.key
            if self.grouping and (len(group.runs) > 1 or self.grouping != "arm"):
                self._entries[key] = group
                self._groups |= {each.run: key for each in group.runs}
            if key not in self.folded:
                self._entries |= {each.run.id: each for each in group.runs}

    def _row(self, key: str, entry: RunSummary | Group) -> Row:
        """Make a row, and keep it."""
        if isinstance(entry, Group):
            count = sum(each.run.id in self.selected for each in entry.runs)
            row = group_row(entry, self.context, selected=count, folded=key in self.folded)
        else:
            indented = self.grouping == "arm" and entry.run in self._groups
            row = run_row(entry, self.context, selected=key in self.selected, indented=indented)
        self._rows[key] = row
        return row

    def _forget_row(self, run: RunDir) -> None:
        """Let the row of a run, and that of its group, be made anew."""
        self._rows.pop(run.id, None)
        self._rows.pop(self._groups.get(run, ""), None)

    def _show_title(self) -> None:
        n = len(self.summaries)
        counts = ["1 run" if n == 1 else f"{n:,} runs", f"{sum(each.active for each in self.summaries)} active"]
        if self.wanted != EVERYTHING:
            counts.append(f"{self._shown:,} shown")
        if self.selected:
            counts.append(f"{len(self.selected)} selected")
        settings = [("filter", self.filter_text), ("group", self.grouping), ("sort", self.sort)]
        named = "  ".join(f"{name}: {value}" for name, value in settings if value)
        self.query_one("#title", Text).show(
            [
                ("accl", theme.TITLE),
                ("  " + " · ".join((*counts, *self.machine)), theme.PLAIN),
                (f"  {named}", theme.DIM),
                (f"  {self.services.root}", theme.VERY_DIM),
            ]
        )

    def _show_detail(self) -> None:
        detail, entry = self.query_one("#detail", Text), self.entry
        if self.problem:
            detail.show([(self.problem, theme.ERROR)])
        elif entry is None:
            detail.show()
        else:
            detail.show(*detail_lines(entry, self.context))

    # What is read behind it.

    @on(Listing.CursorMoved)
    def _cursor_moved(self) -> None:
        self._show_detail()
        if self.preview is None:
            self._follow_highlighted()
        elif self._rest is None:
            self._rest = self.set_timer(REST_S, self._follow_highlighted)

    def _follow_highlighted(self) -> None:
        """Read the curves of the run or arm at the cursor, and follow them."""
        self._rest = None
        runs = [summary.run for summary in self.highlighted_runs[:PREVIEWED]]
        if not runs or self.app.screen is not self:
            return
        self._follow_rows()
        if runs != list(self._previewed):
            self._previewed = dict.fromkeys(runs)
            receive = self.delivered(self.update_preview)
            self.services.watcher.watch((self, "preview"), runs, {"curves"}, receive)

    def update_preview(self, view: RunView) -> None:
        """Show the curves of a run, those of one that trains every `PREVIEW_S`: drawing costs more than reading."""
        if view.summary.run not in self._previewed:
            return
        first = self._previewed[view.summary.run] is None
        self.preview = self._previewed[view.summary.run] = view
        if first:
            self._show_preview()
        elif self._redraw is None:
            self._redraw = self.set_timer(PREVIEW_S, self._show_preview)

    def _show_preview(self) -> None:
        self._redraw = None
        self.query_one(Preview).show_views([each for each in self._previewed.values() if each])

    def _follow_rows(self) -> None:
        """Watch the runs and arms whose rows are in sight."""
        table = self.table
        height = max(1, table.size.height)
        entries = list(self._entries.values())[table.top : table.top + height]
        arms = [entry for entry in entries if isinstance(entry, Group) and entry.is_arm]
        runs = {each.run: each for arm in arms for each in arm.runs[:GLANCED]}
        runs |= {entry.run: entry for entry in entries if isinstance(entry, RunSummary)}
        self._background.follow(list(runs.values()), arms, self.delivered(self._arrived_behind))

    def _arrived_behind(self, found: tuple[Any, Any]) -> None:
        item, what = found
        kept: dict[Any, Any] = self.context.glances if isinstance(item, RunDir) else self.context.deltas
        kept[item] = what
        self._forget_row(item if isinstance(item, RunDir) else item.second[0])
        if self._late is None:
            self._late = self.set_timer(LATE_S, self._show_late)

    def _show_late(self) -> None:
        self._late = None
        self.show()
        self._follow_rows()

    def _load_arrived(self, found: tuple[str, tuple[str, ...] | BaseException]) -> None:
        self.machine = () if isinstance(found[1], BaseException) else found[1]
        if self.summaries:
            self._show_title()

    def _show_ages(self) -> None:
        self._rows.clear()
        self._arranged_for = ()  # a filter or an order may be by age
        self.show()

    # What the keys do.

    @on(Listing.HeadClicked)
    def _sort_by_head(self, event: Listing.HeadClicked) -> None:
        """Sort by the column clicked: descending, ascending, not any more."""
        column = self.table.column_at(event.x)
        if column is not None and (column.title in SORTS or column.title == self.sort[:-1]):
            self.sort = {f"{column.title}▼": f"{column.title}▲", f"{column.title}▲": ""}.get(
                self.sort, f"{column.title}▼"
            )
            self.show()

    def action_sort(self) -> None:
        choices = ["", *(f"{title}▼" for title in SORTS)]
        current = self.sort.replace("▲", "▼")
        self.sort = next_choice(choices, current) if current in choices else ""
        self.show()

    def action_order(self) -> None:
        self.query_one("#order", Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_group(self) -> None:
        self.grouping = next_choice([*GROUPINGS, ""], self.grouping)
        self.show()

    def action_fold(self, fold: bool) -> None:
        """Fold or unfold the group at the cursor; from a run, go to its group."""
        entry, table = self.entry, self.table
        if isinstance(entry, Group):
            (self.folded.add if fold else self.folded.discard)(entry.key)
            self._rows.pop(entry.key, None)
            self.show()
        elif fold and entry is not None:
            above = list(self._entries.values())[: table.cursor]
            groups = [i for i, each in enumerate(above) if isinstance(each, Group) and entry in each.runs]
            table.move_to(groups[-1] if groups else table.cursor)

    @on(Listing.Chosen)
    def action_open(self) -> None:
        entry = self.entry
        if isinstance(entry, Group):
            self.action_fold(entry.key not in self.folded)
        elif entry is not None:
            self.post_message(OpenRun(entry.run))

    def action_select(self) -> None:
        """Select what is highlighted, or no more if all of it is selected, and step on."""
        runs = self.highlighted_runs
        ids = [each.run.id for each in runs]
        rest = [run_id for run_id in self.selected if run_id not in ids]
        self.selected = rest if set(ids) <= set(self.selected) else [*rest, *ids]
        for each in runs:
            self._forget_row(each.run)
        self.show()
        self.table.action_move(1)

    def action_select_all(self) -> None:
        shown = [each.run.id for each in self._entries.values() if isinstance(each, RunSummary)]
        self.selected = [] if set(self.selected) == set(shown) else shown
        self._rows.clear()
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
        self.query_one("#filter", Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_back(self) -> None:
        if self.filter_text:
            self.query_one("#filter", Filter).action_clear()
        else:
            self.selected = []
            self._rows.clear()
            self.show()

    def on_input_changed(self, event: Filter.Changed) -> None:
        if event.input.id != "filter":
            return
        self.filter_text = event.value
        try:
            self.wanted, self.problem = parse(event.value), ""
        except QueryError as error:  # while it is being typed: the rows stay those of before
            self.problem = str(error)
        self.show()

    def on_filter_closed(self) -> None:
        order = self.query_one("#order", Filter)
        if key := order.value.strip():
            self.problem = problem_of(key, self.summaries)
            self.sort = self.sort if self.problem else f"{key}▼"
            order.value = ""
        order.display = False
        self.table.focus()
        self.query_one(KeyBar).show("runs", "groups")
        self.show()
