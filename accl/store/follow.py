"""Following the measurements of a run, whose database may be busy, damaged or absent."""

from __future__ import annotations

from accl.errors import AbsentError
from accl.store.reader import Follower
from accl.store.state import RunState
from accl.store.summary import reading


def follow(follower: Follower, state: RunState | None) -> bool:
    """Fetch what is new, and return whether there was anything.

    Args:
        state: state of the run; before its first step it has no measurements, and that is no error.

    Raises:
        BusyError, DamagedError, AbsentError: the measurements cannot be read; the follower keeps what it has.
    """
    database = follower.run.database
    with reading(database):
        try:
            changed = follower.refresh()
            if follower.problem is not None:
                raise follower.problem
            return changed
        except AbsentError:
            if state is None or state.step:
                raise
            return False
