"""Merging the spool of a run that nobody trains."""

from __future__ import annotations

import os
import re

from accl.errors import RunError
from accl.store.append import RunAppender
from accl.store.database import database_at
from accl.store.lock import MERGING
from accl.store.rundir import RunDir
from accl.store.spool import spool_of
from accl.store.state import claim, observe, read_state, write_state

_PENDING = re.compile(r" ?\(pending: .*\)$")


def pending_words(count: int, why: str) -> str:
    """Say how many measurements are not in the database, as the end of a reason."""
    return f"(pending: {count:,} measurements in run.spool.jsonl; {why})" if count else ""


def merge_spool(run: RunDir) -> int:
    """Bring the measurements in the spool of a run into its database, where that is possible now.

    Nothing happens while somebody trains the run, holds the database, or where it may not be written: readers count
    the spool in all the same.

    Returns:
        The number of measurements merged.
    """
    if not os.path.lexists(spool_of(run.database)) or not run.database.is_file():
        return 0
    try:
        if observe(run).state.active:
            return 0
        lock = claim(run, MERGING)
    except RunError:
        return 0
    try:
        return _merge(run)
    except (RunError, OSError):
        return 0
    finally:
        lock.abandon()


def _merge(run: RunDir) -> int:
    with database_at(run.database).attached():
        pass  # raises where it is damaged: setting it aside is not for those who only look
    seconds = read_state(run).elapsed
    notes: list[tuple[float, str, str, str]] = []
    appender = RunAppender(run.database, lambda *note: notes.append((seconds, *note)))
    count = appender.pending()
    while not appender.append({}):
        pass
    if notes:
        appender.append({"events": notes})
    state = read_state(run)
    if state.pending:
        write_state(run, state.changed(pending=0, reason=_PENDING.sub("", state.reason)))
    return count
