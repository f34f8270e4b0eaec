"""Following the measurements of a run, whose database may be busy, damaged or absent."""

from __future__ import annotations

from collections.abc import Iterable

from accl.errors import AbsentError
from accl.store.columns import ALL, RunReader
from accl.store.state import RunState
from accl.store.summary import reading


def follow(reader: RunReader, state: RunState | None, needs: Iterable[str] = ALL) -> bool:
    """Fetch what is new, and return whether there was anything.

    Args:
        state: of the run; before its first step it has no measurements, and that is no error.
        needs: what is read.

    Raises:
        BusyError, DamagedError, AbsentError: the measurements cannot be read; the reader keeps what it has.
    """
    with reading(reader.run.database):
        try:
            changed = reader.refresh(needs)
            if reader.problem is not None:
                raise reader.problem
            return changed
        except AbsentError:
            if state is None or state.step:
                raise
            return False
