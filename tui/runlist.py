"""The runs of the list in their order and groups, and their rows, which are kept until what they show changes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from accl.store.glance import Glance
from accl.store.query import EVERYTHING, parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir
from tui.arms import GROUPINGS, Group, grouped, references
from tui.feed import RunSummary, RunsView
from tui.runorder import groups_ordered, ordered, value_of
from tui.runrows import AGE_AT, COLUMNS, SORTS, Context, age_of, columns, group_row, run_row, scale_of
from tui.viewstate import TEXTS, Choices
from tui.widgets.table import Column, Row

Entry = RunSummary | Group


class RunList:
    """All runs of a folder in groups, newest first or sorted.

    Attributes:
        filter_text, wanted: the filter, and the newest one that could be understood.
        sort: key of `tui.runorder.value_of` with an arrow, empty for newest first.
        grouping: key of `GROUPINGS`, empty for none.
        folded: keys of groups whose runs are hidden.
        selected: ids of those to compare.
        entries: runs and groups that are listed, in their order, by the keys of their rows.
        version: that of the newest view.
        shown, active: number of runs that match the filter, and of all that have not ended.
    """

    settings: ClassVar[Mapping[str, Choices]] = {
        "filter_text": None,
        "sort": None,
        "grouping": [*GROUPINGS, ""],
        "folded": TEXTS,
    }
    filter_text = ""
    wanted = EVERYTHING
    sort = ""
    grouping = "arm"
    shown = active = version = 0
    folded: Sequence[str] = ()
    selected: Sequence[str] = ()
    summaries: Sequence[RunSummary] = ()
    columns: Sequence[Column] = COLUMNS

    def __init__(self) -> None:
        self.context = Context()
        self.entries: dict[str, Entry] = {}
        self._arranged_for: tuple[object, ...] = ()  # what the entries depend on
        self._groups: dict[RunDir, str] = {}  # key of the group of each run
        self._rows: dict[str, Row] = {}  # by their keys
        self._made_for: object = None  # what all rows depend on
        self._tests: list[float] = []

    def update(self, view: RunsView) -> None:
        """Take new summaries."""
        self.summaries, self.version = view.summaries, view.version
        self.active = sum(each.active for each in view.summaries)
        self.context.references = references(grouped(view.summaries, "arm"))
        tests = (each.latest("test/accuracy") for each in view.summaries)
        self._tests = [test for test in tests if math.isfinite(test)]
        for run in view.changed:
            self.forget_row(run)
        ids = {summary.run.id for summary in view.summaries}
        self.selected = [run_id for run_id in self.selected if run_id in ids]

    def set_filter(self, text: str) -> None:
        """Take what is typed as the filter.

        Raises:
            QueryError: it cannot be understood, and the runs shown stay those of before.
        """
        self.filter_text = text
        self.wanted = parse(text)

    def select(self, runs: Sequence[RunSummary]) -> None:
        """Select runs as well, or no more if all of them are selected."""
        ids = [each.run.id for each in runs]
        rest = [run_id for run_id in self.selected if run_id not in ids]
        self.selected = rest if set(ids) <= set(self.selected) else [*rest, *ids]
        for each in runs:
            self.forget_row(each.run)

    def select_only(self, ids: Sequence[str]) -> None:
        self.selected = ids
        self._rows.clear()

    def fold(self, group: Group, fold: bool) -> None:
        """Hide the runs of a group, or show them."""
        self.folded = [*(key for key in self.folded if key != group.key), *[group.key] * fold]
        self._rows.pop(group.key, None)

    def group_of(self, summary: RunSummary) -> str | None:
        """Return the key of the group that a run is listed in."""
        return self._groups.get(summary.run)

    # Its rows.

    def rows(self) -> list[Row]:
        """Return the rows of the entries; those that are missing are made."""
        self._prepare()
        self._arrange()
        return [self._rows.get(key) or self._row(key, entry) for key, entry in self.entries.items()]

    def forget_row(self, run: RunDir) -> None:
        """Let the row of a run, and that of its group, be made anew."""
        self._rows.pop(run.id, None)
        self._rows.pop(self._groups.get(run, ""), None)

    def grow_older(self) -> None:
        """Let what depends on the time be made anew."""
        for each in self.summaries:
            row = self._rows.get(each.run.id)
            if row and row.cells[AGE_AT][0] != age_of(each):
                del self._rows[each.run.id]
        if self.wanted != EVERYTHING:  # which may be by age
            self._arranged_for = ()

    def _prepare(self) -> None:
        """Collect what all rows depend on, and forget them if that has changed."""
        context, key = self.context, self.sort[:-1]
        typed = key if key and key not in SORTS else ""
        context.typed = value_of(typed) if typed else None
        floors = [glance.floor for glance in context.glances.values() if isinstance(glance, Glance)]
        context.scale = scale_of(self._tests, floors)
        reference_tests = [reference.arm.tests for reference in context.references.values()]
        made_for = (context.scale, reference_tests, self.grouping, typed)
        if made_for != self._made_for:
            self._made_for = made_for
            self._rows.clear()
            self.columns = columns(context.scale, typed)

    def _arrange(self) -> None:
        """Set the entries. An arm of one run is no group."""
        arranged_for = (self.summaries, self.wanted, self.sort, self.grouping, tuple(self.folded))
        before = self._arranged_for
        if before and arranged_for[0] is before[0] and arranged_for[1:] == before[1:]:
            return
        self._arranged_for = arranged_for
        now, shown = time.time(), self.summaries
        if self.wanted != EVERYTHING:
            shown = [each for each in shown if self.wanted.matches(RunSubject(each.summary, now))]
        self.shown = len(shown)
        entries, groups = self.entries, self._groups
        self.entries, self._groups = {}, {}
        for group in groups_ordered(grouped(ordered(shown, self.sort), self.grouping), self.sort):
            key = group.key
            if self.grouping and (len(group.runs) > 1 or self.grouping != "arm"):
                self.entries[key] = group
                self._groups |= {each.run: key for each in group.runs}
                if entries.get(key) != group:
                    self._rows.pop(key, None)
            if key not in self.folded:
                self.entries |= {each.run.id: each for each in group.runs}
        for run in groups.keys() ^ self._groups.keys():  # indented no more, or only now
            self._rows.pop(run.id, None)

    def _row(self, key: str, entry: Entry) -> Row:
        """Make a row, and keep it."""
        if isinstance(entry, Group):
            count = sum(each.run.id in self.selected for each in entry.runs)
            row = group_row(entry, self.context, selected=count, folded=key in self.folded)
        else:
            indented = self.grouping == "arm" and entry.run in self._groups
            row = run_row(entry, self.context, selected=key in self.selected, indented=indented)
        self._rows[key] = row
        return row
