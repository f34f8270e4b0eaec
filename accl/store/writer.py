"""Writing the measurements of a run: rows are queued, and a thread appends them about once a second.

DuckDB allows one writing process or many readers, so nobody holds the file: each append attaches it, commits one
transaction and detaches it. While another process holds the file, or the disk is full, rows wait in memory, and after
repeated failure in the spool, which belongs to the run. Training neither waits for this nor fails because of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from accl.errors import BusyError, RunError
from accl.store.append import RunAppender
from accl.store.database import DiskFullError
from accl.store.rows import RowWriter, fitting_rows
from accl.store.spool import Rows, Values

INTERVAL_S = 1.0
# Readers hold the file for a few milliseconds, so a few short tries nearly always suffice.
TRIES = 20
TRY_AGAIN_S = 0.02
# Tries when a checkpoint waits: it is not held for long.
FLUSH_TRIES = 2
# Failed appends in a row (about half a minute) after which rows go to the spool.
SPOOL_AFTER_ROUNDS = 30
# Failed appends in a row after which it is worth saying who is in the way.
SAY_AFTER_ROUNDS = 3
# A start or a resume waits so long for a database that another process holds, and an end so long.
START_WAIT_S = 3600.0
END_WAIT_S = 60.0
# A stop that was asked for waits so long all the same: for readers, who hold the file for a moment.
STOP_WAIT_S = 1.0
# Rows kept in memory while they can be written nowhere: about 1 GB.
MAX_QUEUED = 2_000_000


class Recorder(RowWriter):
    """Writer of the measurements of one run.

    Methods may be called from any thread and return at once, except `flush` and `end_flush`, which write what is
    queued, and `rewind` and `close`, which wait for whoever holds the database.

    Args:
        database: path of ``run.duckdb``; made when missing, and brought to the current schema.
        on_tick: called in the background after every append (the heartbeat), and while `rewind` or `close` wait.
        interval: seconds between appends.
        seconds: running time of the run, for the events that are recorded here.
        notify: gets those events as lines.
        stop: whether waiting should end.
        run: id that the run was made under; a database or a spool of another is set aside.

    Attributes:
        trouble: why measurements cannot be written just now, in words; empty when they can.
        lost: measurements that were dropped because there was no room for them anywhere.

    Raises:
        RunError: the database has a later schema.
    """

    def __init__(
        self,
        database: Path,
        on_tick: Callable[[], None] = lambda: None,
        interval: float = INTERVAL_S,
        seconds: Callable[[], float] = lambda: 0.0,
        notify: Callable[[str], None] = lambda _line: None,
        stop: Callable[[], bool] = lambda: False,
        run: str = "",
    ) -> None:
        self._on_tick, self._interval = on_tick, interval
        self._seconds, self._notify, self._stop = seconds, notify, stop
        self._queue: Rows = defaultdict(list)
        self._queued = 0
        self._queue_lock = threading.Lock()
        self._batch: Rows = defaultdict(list)  # taken from the queue, and not written yet
        self._file_lock = threading.Lock()
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._flushing: Future[None] = Future()
        self._failed_rounds = 0
        self._failing_since = 0.0
        self._stuck_since: float | None = None
        self._problem: Exception | None = None
        self.trouble = ""
        self.lost = 0
        self._waiting = False
        self._closing = threading.Event()
        self._appender = RunAppender(database, self._say, run)
        with contextlib.suppress(BusyError, OSError):  # then the thread goes on trying
            self._appender.append({})
        self._thread = threading.Thread(target=self._loop, name="recorder", daemon=True)
        self._thread.start()

    @property
    def stuck_seconds(self) -> float:
        """Seconds for which measurements could be written nowhere, because the disk is full; 0 when they can be."""
        since = self._stuck_since
        return 0.0 if since is None else time.monotonic() - since

    def flush(self) -> None:
        """Bring all queued rows to disk: to the database or, if it is held or rows wait in the spool, to the spool."""
        with self._file_lock:
            # Bringing rows back from the spool takes a while, and is the work of the thread.
            for _ in range(0 if os.path.lexists(self._appender.spool_path) else FLUSH_TRIES):
                if self._write():
                    self._recovered()
                    return
                time.sleep(TRY_AGAIN_S)
            self._write_spool()

    def begin_flush(self) -> None:
        """Begin to `flush`, while the caller goes on; at most once before `end_flush`."""
        self._flushing = self._flusher.submit(self.flush)

    def end_flush(self) -> None:
        """Wait until the flush that was begun is done."""
        self._flushing.result()

    def rewind(self, step: int, validated: bool = True) -> None:
        """Delete what was recorded after ``step``, and the test: a run resumed from there records them again.

        A step below 0 deletes everything. The ``generation`` in ``meta`` grows, so that readers start over.

        Args:
            validated: whether the validation at ``step`` itself stands; it is deleted otherwise.

        Raises:
            BusyError: another process held the database for too long, or `stop` ended the waiting.
            RunError: the database has a later schema.
        """

        def work() -> bool:
            return self._write() and self._appender.rewind(step, validated)

        self._waiting = True
        try:
            if not self._wait(work, START_WAIT_S):
                raise BusyError(f"Not started: {self._words()}.", "Close what holds it, and resume the run.")
            self._recovered()
        finally:
            self._waiting = False

    def close(self) -> int:
        """Stop the thread, and wait until all rows are in the database, for a limited time.

        Returns:
            The number of measurements that are in the spool instead; `trouble` says why. Others may be `lost`.
        """
        self._closing.set()
        self._thread.join()
        with self._file_lock:
            if self._write():
                return 0
            self._write_spool()  # first, so that nothing is lost by a kill while waiting
        if self._wait(self._write, END_WAIT_S):
            self._recovered()
            self.flush()
            return self._appender.pending()
        self.trouble = self._words()
        with self._file_lock:
            self._write_spool()
            with self._queue_lock:
                self.lost += self._queued
                self._queued = 0
            return self._appender.pending()

    def put(self, table: str, rows: list[Values]) -> None:
        with self._queue_lock:
            if self._queued + len(rows) > MAX_QUEUED:
                self.lost += len(rows)
                return
            self._queued += len(rows)
            self._queue[table].extend(rows)

    def _say(self, level: str, kind: str, message: str) -> None:
        self.event(self._seconds(), level, kind, message)
        self._notify(f"{level}: {message}")

    def _loop(self) -> None:
        while not self._closing.wait(self._interval):
            self._round()
            self._on_tick()

    def _round(self) -> None:
        """Try a few times to write; the file lock is free between tries, for a checkpoint that waits for it."""
        for _ in range(TRIES):
            if self._waiting:  # `rewind` tries on its own, and deletes what is written before
                return
            with self._file_lock:
                if self._write():
                    self._recovered()
                    return
            if self._closing.wait(TRY_AGAIN_S):
                return
        self._failed_rounds += 1
        if self._failed_rounds >= SAY_AFTER_ROUNDS:
            self.trouble = self._words()
        if self._failed_rounds >= SPOOL_AFTER_ROUNDS:
            with self._file_lock:
                self._write_spool()

    def _write(self) -> bool:
        """Bring queued rows, and those of the spool, to the database; False to try again. Needs the file lock."""
        if not self._appender.unsure:
            self._take()
        if not self._batch and not os.path.lexists(self._appender.spool_path):
            return True
        try:
            if not self._appender.append(self._batch):
                return False  # there is more in the spool
        except (RunError, OSError) as error:
            self._failed(error)
            if isinstance(error, DiskFullError):
                self._stuck_since = self._stuck_since or time.monotonic()
                self.trouble = self._words()
            return False
        self._written()
        return not self._queue

    def _failed(self, error: Exception) -> None:
        if self._problem is None:
            self._failing_since = time.monotonic()
        self._problem = error

    def _recovered(self) -> None:
        """Note that writing works, and say so if it did not."""
        if self.trouble:
            waited = time.monotonic() - self._failing_since
            self._say("warning", "recording", f"recording waited {waited:.0f} s: {self.trouble}")
        self._failed_rounds, self._problem, self.trouble = 0, None, ""

    def _write_spool(self) -> None:
        """Bring queued rows to the spool, where possible. Needs the file lock."""
        if self._appender.unsure:  # they may be in the database already; the next append will know
            return
        self._take()
        try:
            if self._batch:
                self._appender.spool(self._batch)
                self._written()
        except OSError as error:
            self._stuck_since = self._stuck_since or time.monotonic()
            self._problem = self._problem or error

    def _written(self) -> None:
        self._stuck_since = None
        with self._queue_lock:
            self._queued -= sum(map(len, self._batch.values()))
        self._batch = defaultdict(list)

    def _take(self) -> None:
        """Add what is queued to the batch."""
        with self._queue_lock:
            queue, self._queue = self._queue, defaultdict(list)
        for table, rows in queue.items():
            good = fitting_rows(table, rows)
            self._batch[table] += good
            if len(good) < len(rows):
                with self._queue_lock:
                    self._queued -= len(rows) - len(good)
                self._say("error", "recording", f"{len(rows) - len(good)} rows do not fit the table {table}: dropped")

    def _wait(self, work: Callable[[], bool], limit_s: float) -> bool:
        """Try until ``work`` returns True; False when the time is over or waiting should end."""
        stop_from, end = time.monotonic() + STOP_WAIT_S, time.monotonic() + limit_s
        tick_due = time.monotonic() + self._interval
        while True:
            with self._file_lock:
                try:
                    if work():
                        return True
                except (BusyError, OSError) as error:
                    self._failed(error)
            now = time.monotonic()
            if now > end or (self._stop() and now > stop_from):
                return False
            if now > tick_due:
                self.trouble = self._words()
                tick_due = now + self._interval
                self._on_tick()
            time.sleep(TRY_AGAIN_S)

    def _words(self) -> str:
        problem = self._problem
        words = problem.what if isinstance(problem, RunError) else str(problem)
        return words.replace(f"{self._appender.path.parent}{os.sep}", "").removesuffix(".")
