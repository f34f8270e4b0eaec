"""Messages on any screen, each told once, of what happens to runs: they end, they stall, they warn.

What happened before the app was opened is on the screens, and is not told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.notifications import SeverityLevel

from accl.errors import AcclError
from accl.store.columns import signature_of
from accl.store.reader import attached
from accl.store.rundir import RunDir
from accl.store.schema import check_rows
from accl.store.state import State
from accl.store.summary import reading
from tui.feed import RunSummary, RunsView
from tui.scale import percent
from tui.watch import Watcher

EVERY = 3  # intervals between two looks
TOLD = 3  # events of a run at once; the log has all of them
# Kinds of events that say what the state of a run says as well.
OF_STATES = frozenset({"refused", "failed", "finished", "stall", "stalled"})
_EVENTS = "SELECT seq, seconds, level, kind, message FROM run.events WHERE seq > ? ORDER BY seq"
_NEWEST = "SELECT max(seq) FROM run.events"


@dataclass(frozen=True)
class Alert:
    """Something to be told."""

    title: str
    message: str
    severity: SeverityLevel = "information"


Tell = Callable[[Alert], object]


class Alerts:
    """Watches the runs of a folder; ``tell`` is called in the thread of the watcher."""

    def __init__(self, watcher: Watcher, root: Path, tell: Tell) -> None:
        self._watcher, self._root, self._tell = watcher, root, tell
        self._old: frozenset[RunDir] | None = None  # runs that there were at the first look
        self._states: dict[RunDir, State] = {}
        self._summaries: dict[RunDir, RunSummary] = {}
        self._readers: dict[RunDir, EventReader] = {}
        self._watched: set[RunDir] = set()
        self._told: set[tuple[str, str]] = set()  # what several runs say is told of the first

    def follow(self) -> None:
        """Begin to watch."""
        self._watcher.watch_folder(self, self._root, self._runs_arrived, every=EVERY)

    def unfollow(self) -> None:
        """Watch nothing any more."""
        for owner in (self, (self, "events")):
            self._watcher.unwatch(owner)

    def _runs_arrived(self, view: RunsView | AcclError) -> None:
        if isinstance(view, AcclError):
            return
        if self._old is None:
            self._old = frozenset(each.run for each in view.summaries)
        for summary in view.summaries:
            if summary.run in view.changed and summary.summary.state is not None:
                before = self._states.get(summary.run, None if summary.run in self._old else State.STARTING)
                self._states[summary.run] = summary.state.state
                if before is not None and (alert := changed_state(summary, before)):
                    self._tell(alert)
        self._summaries = {each.run: each for each in view.summaries}
        # One that has ended is looked at once more.
        self._follow_events(self._living() | (self._watched & self._summaries.keys()))

    def _living(self) -> set[RunDir]:
        return {run for run, each in self._summaries.items() if each.trains}

    def _follow_events(self, runs: set[RunDir]) -> None:
        if runs != self._watched:
            self._watched = runs
            watched = sorted(runs, key=lambda run: run.id)
            self._watcher.watch_each((self, "events"), watched, self._look, self._arrived, every=EVERY)

    def _look(self, run: RunDir) -> tuple[int, bool, Sequence[Alert]]:
        """Read what is new.

        Returns:
            also up to where all was read, which tells two looks apart, and whether the run had ended before.
        """
        ended = run not in self._living()
        reader = self._readers.get(run)
        if reader is None:
            reader = self._readers[run] = EventReader(run, new=run not in (self._old or ()))
        events = reader.read()
        return reader.seq, ended, [Alert(name_of(self._summaries[run]), *event) for event in events]

    def _arrived(self, run: RunDir, found: tuple[int, bool, Sequence[Alert]] | BaseException) -> None:
        if isinstance(found, BaseException):  # which the screens show
            return
        _, ended, events = found
        alerts = [each for each in events if (each.message, each.severity) not in self._told]
        self._told |= {(each.message, each.severity) for each in alerts}
        for alert in alerts[:TOLD]:
            self._tell(alert)
        if len(alerts) > TOLD:
            words = f"and {len(alerts) - TOLD} more: its log has all of them"
            self._tell(Alert(alerts[0].title, words, "warning"))
        if ended:
            self._follow_events(self._watched - {run})


class EventReader:
    """Reader of the warnings and errors of one run from now on; of a ``new`` run of all of them."""

    def __init__(self, run: RunDir, *, new: bool) -> None:
        self.run = run
        self.seq = -1
        self._new = new
        self._signature: tuple[int, ...] | None = None

    def read(self) -> list[tuple[str, SeverityLevel]]:
        """Return message and severity of what has happened since the last call.

        Raises:
            RunError: the database cannot be read, as in `accl.store.reader.attached`.
        """
        signature = signature_of(self.run.database)
        if not signature or signature == self._signature:
            return []
        with reading(self.run.database), attached(self.run.database) as session:
            if self._signature is None and not self._new:
                ((newest,),) = session(_NEWEST)
                self.seq = -1 if newest is None else int(newest)
            rows = session(_EVENTS, self.seq)
            check_rows("events", rows)
        self._signature = signature
        self.seq = rows[-1][0] if rows else self.seq
        severities: dict[str, SeverityLevel] = {"warning": "warning", "error": "error"}
        return [
            (f"{kind}: {message}", severities[level])
            for _, _, level, kind, message in rows
            if level in severities and kind not in OF_STATES
        ]


def name_of(summary: RunSummary) -> str:
    """Return the words by which a run is called in the list."""
    name = summary.summary.labels.name or summary.run.id.rpartition("-")[2]
    return f"{summary.setup.recipe} s{summary.seed} {name}"


def changed_state(summary: RunSummary, before: State) -> Alert | None:
    """Return what is told of a run whose state was another; None for what goes without saying."""
    state, name = summary.state.state, name_of(summary)
    title = f"{state.icon} {name} {state}"
    if state is before or not before.active:
        return None
    if state in (State.FAILED, State.CRASHED):
        return Alert(title, summary.reason[0], "error")
    if state is State.STALLED:
        return Alert(title, summary.reason[0], "warning")
    if state is State.FINISHED:
        test, validated = summary.latest("test/accuracy"), summary.validated
        figures = {"test": test, "validation": validated}
        words = [f"{split} {percent(value)}" for split, value in figures.items() if math.isfinite(value)]
        return Alert(title, " · ".join(words))
    return Alert(title, summary.reason[0]) if state is State.STOPPED else None
