"""The queue: runs that train, and those that wait in the order in which they start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult

from accl.errors import AcclError
from accl.store.deadline import within
from accl.store.rundir import RunDir
from accl.store.state import share_a_process
from accl.store.summary import as_problem
from tui import theme
from tui.commands import bindings
from tui.feed import RunSummary, RunsView, without_path
from tui.messages import Ask, OpenRun
from tui.rundetail import labels_of
from tui.runrows import time_left
from tui.screens.polling import PollingScreen
from tui.services import Services
from tui.text import Piece, age
from tui.threads import in_daemon_thread
from tui.widgets.keybar import KeyBar, redraw_keys
from tui.widgets.listing import Listing
from tui.widgets.table import Column, Row, Table
from tui.widgets.text import Text

if TYPE_CHECKING:
    from accl.launch.queue import Entry

COLUMNS = (
    Column("#", 4, right=True),
    Column("run", 30, grow=True),
    Column("state", 11),
    Column("step", 15, right=True, rank=2),
    Column("left", 16, right=True, rank=3, sparse=True),
    Column("process", 8, right=True, rank=4, sparse=True),
    Column("waits", 5, right=True, rank=1),
    Column("paused because", 36, rank=2, sparse=True),
    Column("experiment", 32, rank=4, sparse=True),
    Column("id", 44, rank=5),
)
DEADLINE_S = 60.0  # the worker needs some seconds to begin its work
EMPTY = """Nothing trains or waits.

New runs: esc, then n. Several seeds wait here for their turn."""


@dataclass(frozen=True)
class Seen:
    """The queue of a folder as it was looked at; ``worker`` is the process id of its worker, 0 if that is unknown."""

    entries: tuple[Entry, ...]
    worker: int | None


def look(root: Path) -> Seen:
    """Look at the queue of a folder."""
    from accl.launch import queue  # in threads, here and below: its import takes a moment

    return Seen(tuple(queue.waiting(root)), queue.worker_pid(root))


class QueueScreen(PollingScreen):
    """The runs that train and that wait, followed while the screen is on top."""

    BINDINGS = bindings("queue")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.summaries: dict[RunDir, RunSummary] = {}
        self.entries: list[Entry] = []
        self.worker: int | None = None
        self._seen = False
        self._changing = asyncio.Lock()  # what is done to the queue is done in the order of the keys

    def compose(self) -> ComposeResult:
        yield Text(id="title")
        yield Table(COLUMNS, "reading …", id="waiting")
        yield Text(id="detail")
        yield KeyBar("queue")

    def on_mount(self) -> None:
        self.table.focus()
        self._change(lambda queue, root: queue.ensure_worker(root))

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def pending(self) -> str:
        return super().pending or ("" if self._seen else "its first look at the queue")

    def follow(self) -> None:
        watcher, root = self.services.watcher, self.services.root
        watcher.watch_folder(self, root, self.delivered(self._runs_arrived))
        receive = self.delivered(self._queue_arrived)
        watcher.watch_each((self, "queue"), [root], look, lambda _, found: receive(found), every=1, prompt=True)

    def unfollow(self) -> None:
        super().unfollow()
        self.services.watcher.unwatch((self, "queue"))

    def _runs_arrived(self, view: RunsView | AcclError) -> None:
        if isinstance(view, RunsView):
            self.summaries = {each.run: each for each in view.summaries}
            self.show()

    def _queue_arrived(self, found: Seen | BaseException) -> None:
        self._seen = True
        if isinstance(found, BaseException):
            self.show_problem(as_problem(found, self.services.root))
            return
        self.entries, self.worker = list(found.entries), found.worker
        self.show()

    # What is shown.

    @property
    def training(self) -> list[RunSummary]:
        """Runs that have a process."""
        waiting = {entry.run for entry in self.entries}
        return [each for each in self.summaries.values() if each.trains and each.run not in waiting]

    def show(self) -> None:
        training, paused = self.training, [each for each in self.entries if each.waiting and each.waiting.paused]
        shared = share_a_process(each.state for each in training)
        rows = [self._row(each.run, "", None, str(each.state.pid) if shared else "") for each in training]
        rows += [self._row(each.run, str(place), each) for place, each in enumerate(self.entries, 1)]
        self.table.show(rows, EMPTY)
        counts = [f"{len(self.entries)} waiting", f"{len(training)} training"]
        counts += [f"{len(paused)} paused"] * bool(paused)
        worker = "no worker" if self.worker is None else f"worker {self.worker or '?'}"
        self.query_one("#title", Text).show(
            [
                ("queue", theme.TITLE),
                ("  " + " · ".join((*counts, worker)), theme.PLAIN),
                (f"  {self.services.root}", theme.VERY_DIM),
            ]
        )
        self._show_detail()
        redraw_keys(self)

    def _row(self, run: RunDir, place: str, entry: Entry | None, process: str = "") -> Row:
        summary = self.summaries.get(run)
        setup = summary.setup if summary else None
        name = f"s{summary.seed} {summary.summary.labels.name or run.id.rpartition('-')[2]}" if summary else run.id
        total, step = (summary.state.total_steps, summary.state.step) if summary else (0, 0)
        label = summary.state_label if summary else ("", theme.DIM)
        if entry is not None:
            waiting = entry.waiting
            label = ("‖ paused", theme.MARK) if waiting and waiting.paused else label
            label = (f"? {entry.problem.kind}", theme.ERROR) if entry.problem else label
        waits = age(time.time() - entry.waiting.since) if entry and entry.waiting else ""
        return Row(
            run.id,
            (
                (place, theme.BOLD),
                (f"{setup.recipe} {name}" if setup else name, theme.arm_style(setup.recipe) if setup else theme.PLAIN),
                label,
                (f"{step:,}/{total:,}" if total else "", theme.PLAIN),
                (time_left(summary) if summary else "", theme.PLAIN),
                (process, theme.DIM),
                (waits, theme.DIM),
                (entry.waiting.paused if entry and entry.waiting else "", theme.MARK),
                (summary.summary.experiment if summary else "", theme.DIM),
                (run.id, theme.VERY_DIM),
            ),
        )

    @on(Listing.CursorMoved)
    def _show_detail(self) -> None:
        detail, run, entry = self.query_one("#detail", Text), self.run, self.entry
        if run is None:
            detail.show()
            return
        reason = [(without_path(str(entry.problem), entry.run), theme.ERROR)] if entry and entry.problem else []
        experiment = ""
        if summary := self.summaries.get(run):
            reason, experiment = reason or [summary.reason], summary.summary.experiment
        labels = labels_of(summary) if summary else []
        second: list[Piece] = [(f"experiment {experiment}" if experiment else "", theme.DIM), *labels]
        detail.show([(run.id, theme.PLAIN), ("  ", theme.PLAIN), *reason], second)
        redraw_keys(self)

    # What is at the cursor.

    @property
    def run(self) -> RunDir | None:
        """Run at the cursor."""
        runs = [*(each.run for each in self.training), *(each.run for each in self.entries)]
        return next((run for run in runs if run.id == self.table.key), None)

    @property
    def entry(self) -> Entry | None:
        """Waiting run at the cursor."""
        return next((each for each in self.entries if each.run.id == self.table.key), None)

    @property
    def waits(self) -> bool:
        return self.entry is not None

    @property
    def has_waiting(self) -> bool:
        return bool(self.entries)

    @property
    def has_runs(self) -> bool:
        return bool(self.table.rows)

    # What the keys do.

    def _change(self, make: Callable[[Any, Path], None]) -> None:
        """Make a change, with the module of the queue and the folder, in a thread, after those before."""

        def change() -> None:
            from accl.launch import queue

            make(queue, self.services.root)

        async def work() -> None:
            async with self._changing:
                try:
                    await in_daemon_thread(lambda: within(DEADLINE_S, change))
                except AcclError as error:
                    self.app.notify(str(error), title="Not done", severity="error")
            self.services.watcher.look_again()

        self.app.run_worker(work(), group="asked")

    def _move_to(self, place: int) -> None:
        entry = self.entry
        if entry is None:
            return
        place = min(max(place, 1), len(self.entries))
        # Shown at once, so that the next key finds it where it will be.
        self.entries.remove(entry)
        self.entries.insert(place - 1, entry)
        self.show()
        self._change(lambda queue, root: queue.move(root, [entry.run], place))

    def action_move_run(self, lines: int) -> None:
        if self.entry is not None:
            self._move_to(self.entries.index(self.entry) + 1 + lines)

    def action_first(self) -> None:
        self._move_to(1)

    def action_pause(self, all: bool) -> None:
        entry = self.entry
        entries = self.entries if all else [entry] if entry else []
        readable = [each for each in entries if each.waiting is not None]
        runs = [each.run for each in readable]
        if any(each.waiting and not each.waiting.paused for each in readable):
            self._change(lambda queue, root: queue.pause(root, runs))
        else:
            self._change(lambda queue, root: queue.unpause(root, runs))

    def action_cancel(self) -> None:
        if (entry := self.entry) is None:
            return

        async def cancel() -> None:
            self._change(lambda queue, root: queue.cancel(root, [entry.run]))

        told = ("It counts as stopped; its folder stays, and r", "on the list of runs lets it go on.")
        self.post_message(Ask("Take this run out of the queue?", entry.run.id, told, cancel))

    @on(Listing.Chosen)
    def action_open(self) -> None:
        if (run := self.run) is not None:
            self.post_message(OpenRun(run))
