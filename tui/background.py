"""Readers behind the list of runs: glances into databases, differences of arms, the load of the machine.

The rows in sight are watched. What is known of a run that has ended is not looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accl.errors import BusyError
from accl.store.glance import Glance, GlanceReader
from accl.store.rundir import RunDir
from tui.arms import Group
from tui.deltas import Pairing, difference
from tui.feed import RunSummary
from tui.runrows import Context
from tui.watch import Watcher

DELTA_DEADLINE_S = 60.0
LOAD_EVERY = 3  # looks at the list

Receive = Callable[[tuple[Any, Any]], None]


class Background:
    """Watches for a list; ``receive`` is called in the watcher's thread with a run or pairing, and what was found."""

    def __init__(self, watcher: Watcher, context: Context) -> None:
        self._watcher, self._context = watcher, context
        self._readers: dict[RunDir, GlanceReader] = {}
        self._totals: dict[RunDir, int] = {}
        self._runs: set[RunDir] = set()
        self._pairings: set[Pairing] = set()

    @property
    def waits(self) -> bool:
        """Whether something in sight was never read."""
        return bool(self._runs - self._context.glances.keys() or self._pairings - self._context.deltas.keys())

    def follow_load(self, receive: Receive) -> None:
        """Watch the load of the machine, which is received as that of ``load``."""

        def look(_: str) -> tuple[str, ...]:
            from tui.load import machine_load  # in the background, for a fast start

            return machine_load()

        self._watcher.watch_each((self, "load"), ["load"], look, lambda *found: receive(found), every=LOAD_EVERY)

    def follow(self, summaries: Sequence[RunSummary], arms: Sequence[Group], receive: Receive) -> None:
        """Look into the databases of runs, and compare arms with the references of their profiles."""

        def deliver(*found: Any) -> None:
            receive(found)

        self._totals |= {each.run: each.state.total_steps for each in summaries}
        due = [each.run for each in summaries if each.active or _is_open(self._context.glances.get(each.run))]
        if self._runs != set(due):
            self._runs = set(due)
            self._watcher.watch_each((self, "glances"), due, self._glance, deliver)
        found = [self._context.pairing(arm) for arm in arms]
        pairings = [each for each in found if each and _is_open(self._context.deltas.get(each))]
        if self._pairings != set(pairings):
            self._pairings = set(pairings)
            self._watcher.watch_each((self, "deltas"), pairings, difference, deliver, deadline=DELTA_DEADLINE_S)

    def forget(self) -> None:
        """Watch nothing any more."""
        self._runs, self._pairings = set(), set()
        for name in ("glances", "deltas", "load"):
            self._watcher.unwatch((self, name))

    def _glance(self, run: RunDir) -> Glance:
        return self._readers.setdefault(run, GlanceReader(run)).read(self._totals[run])


def _is_open(found: object) -> bool:
    return found is None or isinstance(found, BusyError)
