"""The list of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.timer import Timer

from accl.errors import AcclError, QueryError
from accl.store.query import EVERYTHING
from accl.store.rundir import RunDir
from tui import theme
from tui.arms import GROUPINGS, Group
from tui.background import Background
from tui.commands import bindings, next_choice
from tui.feed import RunSummary, RunsView, RunView
from tui.messages import OpenCompare, OpenQueue, OpenRun
from tui.rundetail import detail_lines
from tui.runlist import Entry, RunList
from tui.runorder import problem_of
from tui.runrows import COLUMNS, GLANCED, SORTS
from tui.screens.acting import ActingScreen
from tui.services import Services
from tui.text import wrapped
from tui.widgets.filter import Filter
from tui.widgets.keybar import KeyBar
from tui.widgets.listing import Listing
from tui.widgets.preview import Preview
from tui.widgets.runtable import RunTable
from tui.widgets.text import Text

AGE_S = 60.0  # ages are shown anew so often
REST_S = 0.15  # a cursor that moves on sooner only passes over a run
LATE_S = 0.1  # figures that arrive one by one are shown together
PREVIEWED = 8  # runs of an arm whose curves are shown
EMPTY = """No runs yet.

Start one in another terminal, it appears here at once:

  accl train full --profile demo"""


class RunsScreen(ActingScreen):
    """All runs of a folder, with the curves of what is at the cursor."""

    BINDINGS = bindings("runs")
    problem = ""
    unreadable = ""  # why the filter cannot be read

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-beside")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-medium"), (34, "-tall")]
        self.list = RunList()
        self.preview = Preview(id="preview")
        self._listed = False
        self._background = Background(services.watcher, self.list.context)
        self._rest: Timer | None = None  # runs until the cursor has come to rest
        self._late: Timer | None = None  # runs until what has arrived is shown

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        with Container(id="runs-body"):
            yield RunTable(COLUMNS, "reading …", id="runs")
            yield self.preview
        yield Filter("words, or: state:finished val>30% cfg.optim.lr>=1e-4 -tag:old", id="filter")
        yield Filter("config key or metric to sort by: optim.lr, age, validation/accuracy", id="order")
        yield Text(id="detail")
        yield KeyBar("runs", "groups")

    def on_mount(self) -> None:
        self.services.view.attach("runs", self.list)
        self.query_one("#filter", Filter).restore(self.list.filter_text)
        self.table.focus()
        self.set_interval(AGE_S, self._show_ages)

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    @property
    def summaries(self) -> Sequence[RunSummary]:
        return self.list.summaries

    @property
    def pending(self) -> str:
        if not self._listed:
            return "its first look at the runs"
        if self._background.waits or self._late:
            return "the databases of the runs"
        return "the curves of the highlighted runs" if self.preview.waits or self._rest else ""

    def follow(self) -> None:
        self._background.follow_load(self.delivered(self._load_arrived))
        receive, since = self.delivered(self.update_view), self.list.version
        self.services.watcher.watch_folder(self, self.services.root, receive, since=since)
        self._follow_highlighted()

    def unfollow(self) -> None:
        super().unfollow()
        self._background.forget()
        self._follow_curves([])

    def update_view(self, view: RunsView | AcclError) -> None:
        first, self._listed = not self.list.entries, True
        if isinstance(view, AcclError):
            self.show_problem(view)
            return
        self.list.update(view)
        self.show()
        if first:  # the cursor begins on a run, also where that of a group is above it
            self.table.move_to(
                next((i for i, each in enumerate(self.list.entries.values()) if isinstance(each, RunSummary)), 0)
            )
            self._follow_highlighted()
        self._follow_rows()

    # What is highlighted.

    @property
    def entry(self) -> Entry | None:
        """Run or group at the cursor."""
        return self.list.entries.get(self.table.key or "")

    @property
    def highlighted(self) -> RunSummary | None:
        """Run at the cursor."""
        return entry if isinstance(entry := self.entry, RunSummary) else None

    @property
    def highlighted_runs(self) -> Sequence[RunSummary]:
        """Run at the cursor, or all those of the group there."""
        entry = self.entry
        return entry.runs if isinstance(entry, Group) else [entry] if entry else []

    @property
    def targets(self) -> Sequence[RunSummary]:
        """The selected runs, or without any those highlighted."""
        selected = set(self.list.selected)
        return [each for each in self.summaries if each.run.id in selected] or self.highlighted_runs

    @property
    def known(self) -> Sequence[RunSummary]:
        return self.summaries

    # What is shown.

    def show(self) -> None:
        rows = self.list.rows()
        empty = f"No run matches: {self.list.wanted.text}" if self.summaries else EMPTY
        if self.unreadable:
            empty = "\n".join(wrapped(self.unreadable, self.table.size.width - 2))
        self.table.show(rows, empty, self.list.columns, self.list.sort)
        self._show_title()
        self._show_detail()

    def _show_title(self) -> None:
        listed, n = self.list, len(self.summaries)
        counts = ["1 run" if n == 1 else f"{n:,} runs", f"{listed.active} active"]
        if listed.wanted != EVERYTHING:
            counts.append(f"{listed.shown:,} shown")
        if listed.selected:
            counts.append(f"{len(listed.selected)} selected")
        settings = [("filter", listed.filter_text), ("group", listed.grouping), ("sort", listed.sort)]
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
            view = self.preview.view_of(entry.run) if isinstance(entry, RunSummary) else None
            detail.show(*detail_lines(entry, self.list.context, view))

    # What is read behind it.

    @on(Listing.CursorMoved)
    def _cursor_moved(self) -> None:
        self._show_detail()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST_S, self._follow_highlighted)

    def _follow_highlighted(self) -> None:
        """Follow the curves of the run or arm at the cursor, and the rows that are in sight now."""
        self.query_one(KeyBar).redraw()
        self._rest = None
        runs = [summary.run for summary in self.highlighted_runs[:PREVIEWED]]
        if self.app.screen is not self:
            return
        self._follow_curves(runs)
        if runs:
            self._follow_rows()
        else:
            self.preview.show([])

    def _follow_curves(self, runs: Sequence[RunDir]) -> None:
        if self.preview.expect(runs):
            receive = self.delivered(self._curves_arrived)
            self.services.watcher.watch((self, "preview"), runs, {"curves", "system"}, receive)

    def _curves_arrived(self, view: RunView) -> None:
        self.preview.receive(view)
        self._show_detail()
        self._follow_rows()

    def _follow_rows(self) -> None:
        """Watch the runs and arms whose rows are in sight, once the curves of those highlighted are there."""
        if self.preview.waits:
            return
        table = self.table
        height = max(1, table.size.height)
        entries = list(self.list.entries.values())[table.top : table.top + height]
        arms = [entry for entry in entries if isinstance(entry, Group) and entry.is_arm]
        runs = {each.run: each for arm in arms for each in arm.runs[:GLANCED]}
        runs |= {entry.run: entry for entry in entries if isinstance(entry, RunSummary)}
        self._background.follow(list(runs.values()), arms, self.delivered(self._arrived_behind))

    def _arrived_behind(self, found: tuple[Any, Any]) -> None:
        item, what = found
        context = self.list.context
        kept: dict[Any, Any] = context.glances if isinstance(item, RunDir) else context.deltas
        kept[item] = what
        self.list.forget_row(item if isinstance(item, RunDir) else item.second[0])
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
        self.list.grow_older()
        self.show()

    # What the keys do.

    @on(Listing.HeadClicked)
    def _sort_by_head(self, event: Listing.HeadClicked) -> None:
        """Sort by the column clicked: descending, ascending, not any more."""
        column, sort = self.table.column_at(event.x), self.list.sort
        if column is not None and (column.title in SORTS or column.title == sort[:-1]):
            self._sort({f"{column.title}▼": f"{column.title}▲", f"{column.title}▲": ""}.get(sort, f"{column.title}▼"))

    def _sort(self, sort: str) -> None:
        self.list.sort = sort
        self.show()

    def action_sort(self) -> None:
        choices = ["", *(f"{title}▼" for title in SORTS)]
        current = self.list.sort.replace("▲", "▼")
        self._sort(next_choice(choices, current) if current in choices else "")

    def action_order(self) -> None:
        self.query_one("#order", Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_group(self) -> None:
        self.list.grouping = next_choice([*GROUPINGS, ""], self.list.grouping)
        self.show()

    def action_fold(self, fold: bool) -> None:
        """Fold or unfold the group at the cursor; from a run, go to its group."""
        entry = self.entry
        if isinstance(entry, RunSummary) and fold and (group := self.list.group_of(entry)):
            self.table.move_to(list(self.list.entries).index(group))
        elif isinstance(entry, Group) and fold != (entry.key in self.list.folded):
            self.list.fold(entry, fold)
            self.show()

    @on(Listing.Chosen)
    def action_open(self) -> None:
        entry = self.entry
        if isinstance(entry, Group):
            self.action_fold(entry.key not in self.list.folded)
        elif entry is not None:
            self.post_message(OpenRun(entry.run))

    def action_select(self) -> None:
        """Select what is highlighted, or no more if all of it is selected, and step on."""
        self.list.select(self.highlighted_runs)
        self.show()
        self.table.action_move(1)

    def action_select_all(self) -> None:
        shown = [key for key, each in self.list.entries.items() if isinstance(each, RunSummary)]
        self.list.select_only([] if set(self.list.selected) == set(shown) else shown)
        self.show()

    def action_compare(self) -> None:
        if len(self.list.selected) < 2:
            self.notify("Select at least two runs with space, then press c.", title="Nothing to compare")
            return
        runs = {summary.run.id: summary.run for summary in self.summaries}
        self.post_message(OpenCompare([runs[run_id] for run_id in self.list.selected]))

    def action_queue(self) -> None:
        self.post_message(OpenQueue())

    def action_filter(self) -> None:
        self.query_one("#filter", Filter).open()
        self.query_one(KeyBar).show("filter")

    def action_back(self) -> None:
        if self.list.filter_text:
            self.query_one("#filter", Filter).action_clear()
        else:
            self.list.select_only([])
            self.show()

    def on_input_changed(self, event: Filter.Changed) -> None:
        if event.input.id != "filter":
            return
        self.unreadable = ""
        try:
            self.list.set_filter(event.value)
        except QueryError as error:  # while it is being typed
            self.unreadable = str(error)
        self.problem = self.unreadable
        self.show()

    def on_filter_closed(self) -> None:
        order = self.query_one("#order", Filter)
        if key := order.value.strip():
            self.problem = problem_of(key, self.summaries)
            self.list.sort = self.list.sort if self.problem else f"{key}▼"
            order.value = ""
        order.display = False
        self.table.focus()
        self.query_one(KeyBar).show("runs", "groups")
        self.show()
