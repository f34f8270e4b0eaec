"""Rows that are added to a run after it was trained: all of them, or none."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from accl.errors import BusyError
from accl.store.append import RunAppender
from accl.store.database import database_at
from accl.store.rundir import RunDir
from accl.store.spool import Values
from accl.store.state import read_state

# Readers hold the file for milliseconds; what holds it longer is said.
WAIT_S = 60.0
TRY_AGAIN_S = 0.05


def add_rows(run: RunDir, rows: Mapping[str, Sequence[Values]]) -> None:
    """Append rows, without ``seq``, to the database of a run in one transaction; the caller holds the run's lock.

    Raises:
        BusyError: another process holds the database for too long, or its disk is full.
        DamagedError, AbsentError, RunError: it cannot be read; it stays as it is.
        OSError: the disk failed.
    """
    seconds = read_state(run).elapsed
    notes: list[Values] = []
    appender = RunAppender(run.database, lambda *note: notes.append((seconds, *note)), run.made_as())
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with database_at(run.database).attached():
                pass  # raises where it is damaged: setting it aside is for its trainer
            if appender.append(rows):
                break
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(TRY_AGAIN_S)
    if notes:
        appender.append({"events": notes})
