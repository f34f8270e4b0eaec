"""The watch over the lock of a run while it trains."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from accl.errors import BusyError, RunError
from accl.store.lock import RunLock, holder
from accl.training.report import Reporter

CHECK_EVERY_S = 1.0


class LockGuard:
    """Thread that keeps the lock of a run, as a context: a lost lock is taken again, or the process ends.

    A process whose lock another trainer has taken ends at once and writes nothing more: the run belongs to the other.
    With it end the runs that share the process; they go on from their last checkpoints. No thread can be ended from
    outside: up to its next step that of the run, and those that record and save for it, would go on to write states,
    measurements and checkpoints between those of the other trainer, and to remove that one's checkpoints. It takes a
    lock file that was removed or replaced and a trainer that is started within a second, or a file system without locks
    and a process that was silent for a minute; and then the others of the process count as dead as well.
    """

    def __init__(self, lock: RunLock, reporter: Reporter, last_words: Callable[[str], None] | None = None) -> None:
        """Take the lock and the reporter of the run, and what is told why the process ends: by default its console."""
        self._lock, self._reporter, self._last_words = lock, reporter, last_words
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lock", daemon=True)

    def __enter__(self) -> None:
        if not self._lock.works:
            words = "the file system of the run has no locks: whether it lives is judged by its heartbeat alone"
            self._reporter.event("warning", "lock", words)
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        said = ""
        while not self._closing.wait(CHECK_EVERY_S):
            problem = "" if self._lock.is_current() else "run.lock was deleted or replaced, and is taken again"
            try:
                ours = self._lock.still_ours()
            except (OSError, RunError) as error:
                ours, problem = True, f"run.lock is lost, and whether the run lives is judged by its heartbeat: {error}"
            if not ours:
                who = holder(self._reporter.run) or "another trainer"
                name = self._reporter.run.id
                tell = self._last_words or self._reporter.say
                tell(f"error: run.lock of {name} is held by {who} now; this process ends and writes no more")
                os._exit(BusyError.exit_code)
            if problem and problem != said:
                self._reporter.event("warning", "lock", problem)
            said = problem
