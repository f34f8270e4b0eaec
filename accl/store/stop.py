"""Asking a trainer to stop: the signals that ask, and the mark that says that a person did.

A scheduler sends the same signals as a person who types `accl stop`. The difference matters, because a run that was
stopped by its scheduler is to be queued again: whoever asks for a person leaves ``run.stop`` in the run directory.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from accl.errors import DamagedError
from accl.files import open_regular
from accl.store.files import read_tail
from accl.store.rundir import RunDir

_KILL = b"kill"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def mark(run: RunDir, *, kill: bool = False) -> None:
    """Say that a person asks for the stop that follows, or kills the trainer."""
    # Where the file cannot be made (a full disk) the run stops all the same, and counts as interrupted.
    with suppress(OSError), open(open_regular(run.stop, os.O_WRONLY | os.O_CREAT), "wb") as file:
        file.write(_KILL if kill else b"")


def unmark(run: RunDir) -> None:
    """Forget who asked for the stop of an earlier process."""
    with suppress(OSError):
        run.stop.unlink()


def killed(run: RunDir) -> bool:
    """Return whether a person killed the trainer instead of waiting for its checkpoint."""
    with suppress(OSError, DamagedError):
        return read_tail(run.stop, len(_KILL)) == _KILL
    return False


def marked(run: RunDir) -> bool:
    """Return whether a person asked for the stop."""
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(run.stop).st_mode)
    return False


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back the signals that ask for a stop, here and in processes started meanwhile, which let them in later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_in() -> None:
    """Let in the signals that were held back when this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
