"""The one thread of the app that reads run directories, for all screens."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from accl.errors import AcclError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.rundir import RunDir
from accl.store.summary import as_problem
from tui.feed import RARELY, RunFeed, RunsFeed, RunsView, RunView, Speedometers

# Runs whose data are kept although nobody watches them, so that going back to them is instant.
KEPT_FEEDS = 8

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


@dataclass(eq=False)
class _Task:
    """Something to look at again and again.

    Attributes:
        look: returns after how many intervals the next one is due.
        prompt: whether it is due at once after a change that the app made.
    """

    owner: Hashable
    look: Callable[[], int]
    run: RunDir | None = None
    prompt: bool = True
    due: float = 0.0


class Watcher:
    """Looks at runs in a daemon thread, and calls back, in that thread, when there is something new.

    A run that does not answer in time is a view that says so, and harms no other. Runs that have ended are looked at
    rarely. What was never looked at comes first, and of that what was watched last.
    """

    def __init__(self, interval: float) -> None:
        """``interval``: seconds between two looks at a run that is active."""
        self.interval = interval
        self._tasks: list[_Task] = []
        self._speedometers = Speedometers()
        self._folders: dict[Path, RunsFeed] = {}
        self._feeds: OrderedDict[RunDir, RunFeed] = OrderedDict()  # used last at the end
        self._changed = threading.Condition()
        self._working = False  # whether there is a thread

    def watch(
        self, owner: Hashable, runs: Sequence[RunDir], needs: Collection[str], callback: Callable[[RunView], None]
    ) -> None:
        """Watch runs in place of what the owner watched before; ``needs`` as in `RunFeed.fetch`.

        The callback gets the view of one run, as soon as it is read.
        """
        self._replace(owner, [self._task(owner, run, frozenset(needs), callback) for run in runs])

    def watch_folder(
        self,
        owner: Hashable,
        root: Path,
        callback: Callable[[RunsView | AcclError], None],
        *,
        since: int = 0,
        every: int = 1,
    ) -> None:
        """Watch all runs of a folder in place of what the owner watched before.

        The callback gets an error if the folder itself cannot be read; else a view that tells what has changed.

        Args:
            since: version of the view that the owner has seen; 0 for none.
            every: intervals between two looks.
        """
        feed = self._folders.setdefault(root, RunsFeed(root, self._speedometers))
        version, shown = since, False

        def look() -> int:
            nonlocal version, shown
            try:
                feed.refresh(self.interval / 2)
            except Exception as error:
                shown = False
                callback(as_problem(error, root))
                return 1
            if version != feed.last.version or not shown:
                view = feed.since(version)
                version, shown = view.version, True
                callback(view)
            return every

        self._replace(owner, [_Task(owner, look)])

    def watch_each(
        self,
        owner: Hashable,
        items: Sequence[Item],
        look: Callable[[Item], Result],
        callback: Callable[[Item, Result | BaseException], None],
        *,
        every: int = RARELY,
        deadline: float = DEADLINE_S,
        prompt: bool = False,
    ) -> None:
        """Look at items every so many intervals, in place of what the owner watched before.

        The callback gets what a look returned or raised, unless it is equal to that of the look before.

        Args:
            deadline: seconds after which a look counts as failed.
            prompt: whether `look_again` looks at them, too.
        """

        def task(item: Item) -> _Task:
            shown: list[str] = []

            def look_again() -> int:
                ((_, answer),) = each_within(deadline, look, [item])
                if shown != [repr(answer)]:  # as text, since an unknown figure, NaN, is not even equal to itself
                    shown[:] = [repr(answer)]
                    callback(item, answer)
                return every

            return _Task(owner, look_again, prompt=prompt)

        self._replace(owner, [task(item) for item in items])

    def unwatch(self, owner: Hashable) -> None:
        """Look at nothing for this owner any more. A look that is under way may still call back."""
        self._replace(owner, [])

    def look_again(self) -> None:
        """Look at once at runs and folders, those of runs that have ended too: the app has changed something."""
        with self._changed:
            for folder in self._folders.values():
                folder.look_closely()
            for task in self._tasks:
                task.due = 0.0 if task.prompt else task.due
            self._changed.notify()

    def feed(self, run: RunDir) -> RunFeed:
        """Return the data of a run, to read on demand what no view holds."""
        with self._changed:
            feed = self._feeds.setdefault(run, RunFeed(run, self._speedometers))
            self._feeds.move_to_end(run)
            return feed

    def _replace(self, owner: Hashable, tasks: list[_Task]) -> None:
        with self._changed:
            self._tasks = [*tasks, *(task for task in self._tasks if task.owner != owner)]
            watched = {task.run for task in self._tasks}
            for run in [run for run in self._feeds if run not in watched][:-KEPT_FEEDS]:
                del self._feeds[run]
            if tasks and not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True).start()
            self._changed.notify()

    def _task(self, owner: Hashable, run: RunDir, needs: frozenset[str], callback: Callable[[RunView], None]) -> _Task:
        feed = self.feed(run)
        shown: RunView | None = None

        def look() -> int:
            nonlocal shown
            ((_, answer),) = each_within(DEADLINE_S, lambda _: feed.fetch(needs), [run])
            view = feed.failed(answer) if isinstance(answer, BaseException) else answer
            if shown is None or not view.shows_the_same_as(shown):
                shown = view
                callback(view)
            return 1 if view.summary.active or view.problem else RARELY

        return _Task(owner, look, run)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            intervals = 1
            with suppress(RuntimeError):  # the app was left, and its loop is closed
                intervals = task.look()
            task.due = time.monotonic() + intervals * self.interval

    def _next(self) -> _Task | None:
        """Wait for the next task that is due; None, and the thread ends, once there is nothing to watch."""
        with self._changed:
            while self._tasks:
                # The one that waits for the longest: no run starves where a round takes longer than an interval.
                task = min(self._tasks, key=attrgetter("due"))
                if (wait := task.due - time.monotonic()) <= 0:
                    return task
                self._changed.wait(wait)
            self._working = False
            return None
