"""Pane 7: load of the machine, the configuration with origins and differences, and the provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from accl.errors import AcclError, ConfigError
from accl.store.config_values import config_values
from accl.store.rundir import RunDir
from tui import theme
from tui.commands import bindings
from tui.feed import RunSummary, RunsView, RunView, without_path
from tui.load import load_charts, load_text
from tui.panes.pane import Pane
from tui.services import services_of
from tui.text import Piece, cell_len, fit
from tui.widgets.charts import ChartKeys, Charts
from tui.widgets.filter import Filter
from tui.widgets.keybar import redraw_keys
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Log, Text

if TYPE_CHECKING:
    from accl.store.facts import Facts

PARTS = {"configuration": "#configuration", "load": "#load ChartGrid", "provenance": "#provenance"}
ABSENT = "–"


class MachinePane(ChartKeys, Pane):
    """Charts of the load and the provenance beside the configuration, whose differences to another run come first.

    A narrow screen shows one of the three `PARTS`.
    """

    needs = frozenset({"curves", "system", "config"})
    scope = "machine"
    BINDINGS = bindings(scope)
    main_widget = Table
    settings: ClassVar = {"different": (False, True)}
    different = False
    _waits = True
    part = "configuration"
    _runs: Sequence[RunSummary] = ()
    _candidates: Sequence[RunSummary] = ()
    _differing = 0
    _reference: RunDir | None = None
    _drawn: object = None

    def compose(self) -> ComposeResult:
        yield Text(id="machine-head")
        with Horizontal(id="machine-body"):
            with Vertical(id="configuration-side"):
                columns = (
                    Column("key", 34),
                    Column("value", 14, grow=True),
                    Column("reference", 20, grow=True, rank=1),
                    Column("from", 20, rank=2),
                )
                yield Table(columns, "reading …", id="configuration")
            with Vertical(id="machine-side"):
                yield Charts(id="load")
                yield Log("provenance", "reading …", wrap=True, id="provenance")
        yield Filter("part of a key", id="config-filter")

    @property
    def pending(self) -> str:
        return "the other runs of its folder" if self._waits else ""

    @property
    def shows_charts(self) -> bool:
        return self.part == "load" or not self.screen.has_class("-narrow")

    def on_mount(self) -> None:
        self._show_part()

    def on_show(self) -> None:
        """Look at the other runs once."""
        services = services_of(self)

        def receive(runs: RunsView | AcclError) -> None:
            services.watcher.unwatch(self)
            self.call_later(self._take_references, runs)

        services.watcher.watch_folder(self, services.root, receive)

    def on_unmount(self) -> None:
        services_of(self).watcher.unwatch(self)

    def _take_references(self, runs: RunsView | AcclError) -> None:
        self._waits = False
        if isinstance(runs, RunsView):
            self._runs = runs.summaries
        self.show()

    def show_view(self, view: RunView) -> None:
        grid = self.query_one(Charts).grid
        if self._drawn is not view.system:
            self._drawn = view.system
            grid.show(load_charts(view))
        self._candidates = references(view.summary, self._runs)
        facts, pattern = view.facts, self.query_one("#config-filter", Filter).value.lower()
        if facts is None:
            return
        self._show_configuration(facts, pattern)
        label = max((cell_len(key) for key, _ in facts.provenance), default=0) + 1
        log = self.query_one(Log)
        log.empty = "nothing is recorded"
        is_first = not log.entries
        log.show(
            [
                [(fit(key, min(label, 22)) + " ", theme.DIM), (text, theme.PLAIN)]
                for key, text in facts.provenance
                if pattern in key.lower() or pattern in text.lower()
            ]
        )
        if is_first:
            log.cursor = 0
        self._show_head()

    def _show_configuration(self, facts: Facts, pattern: str) -> None:
        """Show the keys that match, first those whose value is another than that of the reference."""
        others = _values(self.reference)
        differing: list[Row] = []
        same: list[Row] = []
        for key in dict.fromkeys([*facts.config, *others]):
            value, other = facts.config.get(key), others.get(key)
            differs = bool(others) and value != other
            if pattern not in key.lower() or (self.different and not differs):
                continue
            origin = facts.origins.get(key, "")
            cells: tuple[Piece, ...] = (
                (f"≠ {key}" if differs else f"  {key}", theme.MARK if differs else theme.PLAIN),
                (_shown(value), theme.BOLD if differs else theme.PLAIN),
                (_shown(other) if differs else "", theme.DIM),
                (origin, theme.VERY_DIM if origin == "base" else theme.DIM),
            )
            (differing if differs else same).append(Row(key, cells))
        self._differing = len(differing)
        table = self.query_one(Table)
        table.columns[2] = Column(self._reference_name or "reference", 20, grow=True, rank=1)
        table.show([*differing, *same], "no such key" if pattern or self.different else "no configuration")

    @property
    def reference(self) -> RunSummary | None:
        """The run that the configuration is compared with."""
        chosen = [summary for summary in self._candidates if summary.run == self._reference]
        return next(iter((*chosen, *self._candidates)), None)

    @property
    def _reference_name(self) -> str:
        return f"{self.reference.setup.recipe} s{self.reference.seed}" if self.reference else ""

    @on(Listing.CursorMoved)
    def _show_head(self) -> None:
        if self.view is None or self.view.facts is None:
            return
        facts, reference, name = self.view.facts, self.reference, self._reference_name
        second: list[Piece] = []
        for problem in facts.problems:
            second += [(without_path(str(problem), self.view.summary.run), theme.ERROR), ("  ", theme.PLAIN)]
        if reference is not None:
            count, number = self._differing, [s.run for s in self._candidates].index(reference.run) + 1
            keys = "1 key differs" if count == 1 else f"{count} keys differ"
            second.append((f"{keys} from {name}", theme.MARK if count else theme.DIM))
            second.append((f"  run {number} of {len(self._candidates)}: {reference.run.id}", theme.VERY_DIM))
        else:
            second.append(("no other run of this profile to compare with", theme.VERY_DIM))
        if pattern := self.query_one("#config-filter", Filter).value:
            second.append((f"  /{pattern}", theme.MARK))
        third: list[Piece] = []
        if (key := self.query_one(Table).key) is not None:
            third = [
                (f"{key} = {_shown(facts.config.get(key))}  ", theme.BOLD),
                (facts.meanings.get(key, ""), theme.DIM),
            ]
        self.query_one("#machine-head", Text).show(load_text(self.view), second, third)

    @on(Filter.Changed, "#config-filter")
    def _filter_anew(self, event: Filter.Changed) -> None:
        event.stop()
        self.show()

    def on_filter_closed(self, event: Filter.Closed) -> None:
        event.stop()
        self.focus_main_widget()

    def focus_main_widget(self) -> None:
        self.query_one(PARTS[self.part]).focus()

    def peel(self) -> bool:
        return self.query_one(Charts).grid.peel()

    def action_filter(self) -> None:
        self.query_one("#config-filter", Filter).open()

    def action_different(self) -> None:
        self.different = not self.different
        self.show()

    def action_reference(self) -> None:
        runs = [summary.run for summary in self._candidates]
        if self.reference is not None:
            self._reference = runs[(runs.index(self.reference.run) + 1) % len(runs)]
            self.show()

    def action_part(self, direction: int) -> None:
        parts = list(PARTS)
        self.part = parts[(parts.index(self.part) + direction) % len(parts)]
        self._show_part()
        self.focus_main_widget()

    def _show_part(self) -> None:
        for part in PARTS:
            self.set_class(part == self.part, f"-{part}")
        redraw_keys(self)


def references(own: RunSummary, summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs of the same profile: the baseline of the same seed, other baselines, then the oldest first."""
    others = [s for s in summaries if s.run != own.run and s.setup.profile == own.setup.profile and s.summary.config]

    def rank(summary: RunSummary) -> tuple[bool, bool, tuple[float, bool, str]]:
        setup = summary.setup
        return setup.recipe != "baseline", setup.seed != own.setup.seed, summary.summary.age_key

    return sorted(others, key=rank)


def _values(reference: RunSummary | None) -> Mapping[str, str | float]:
    if reference is None:
        return {}
    try:
        return config_values(reference.summary.config, reference.run.config)
    except ConfigError:
        return {}


def _shown(value: str | float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.15g}" if isinstance(value, float) else value or "''"
