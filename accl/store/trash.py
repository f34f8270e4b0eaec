"""The trash of a runs folder: removed runs lie in ``.trash/`` beside the others until they are restored or purged.

::

    runs/.trash/20261126-231700-084512/20261122-101500-full-s42-7f3a/

Each removal has a folder of its own, named by its time in UTC to the microsecond, and a run keeps its id in it, so that
a removal can be undone as a whole and one id may be there twice. Both ways are one rename within a file system. What
lies there is no run for anybody who lists the runs folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from accl.errors import BusyError, DamagedError, RunError
from accl.store.lock import REMOVING, RunLock, holder
from accl.store.rundir import RunDir
from accl.store.state import State, claim, read_state, write_state
from accl.store.waiting import forget_waiting

TRASH = ".trash"
_REMOVAL = re.compile(r"\d{8}-\d{6}-\d{6}")
_TIME = "%Y%m%d-%H%M%S-%f"


@dataclass(frozen=True)
class Trashed:
    """A run in the trash.

    Attributes:
        run: the run where it lies now.
        home: the run where it lay.
        removed: time of its removal, in seconds since the epoch.
    """

    run: RunDir
    home: RunDir
    removed: float

    @property
    def removal(self) -> str:
        """Name of the removal that it was a part of."""
        return self.run.path.parent.name


def remove_runs(runs: Sequence[RunDir], now: datetime | None = None) -> list[Trashed | RunError]:
    """Move runs into the trash beside them, each while its lock is held, so that no trainer can start meanwhile.

    A run that waits to be started counts as stopped from then on.

    Args:
        now: time of the removal; the current time when None.

    Returns:
        for each run where it lies now, or why it could not be moved: a `BusyError` where a trainer lives.
    """
    when = (now or datetime.now(UTC)).astimezone(UTC)
    removal = when.strftime(_TIME)
    answers: list[Trashed | RunError] = []
    for run in runs:
        target = RunDir(run.path.parent / TRASH / removal / run.id)
        try:
            _remove(run, target)
            answers.append(Trashed(target, run, when.timestamp()))
        except RunError as error:
            answers.append(error)
    return answers


def _remove(run: RunDir, target: RunDir) -> None:
    if run.path.parent.parent.name == TRASH:
        raise RunError(f"{run.id} is in the trash already.", "Delete it for ever with: accl purge")
    lock = _keep_trainers_away(run)
    try:
        _cancel(run)
        _folder(run.path.parent)
        target.path.parent.mkdir(parents=True, exist_ok=True)
        os.rename(run.path, target.path)
        if lock is not None and lock.created:  # a file without a history would prove too much
            target.lock.unlink()
    except OSError as error:
        raise _not_moved(run.path, error) from error
    finally:
        if lock is not None:
            lock.abandon()
        with suppress(OSError):  # of a removal in which nothing could be moved
            target.path.parent.rmdir()


def _keep_trainers_away(run: RunDir) -> RunLock | None:
    """Take the lock of a run, whatever else is broken about it; None where nobody can hold one.

    Raises:
        BusyError: a trainer lives.
        RunError: the lock file cannot be opened.
    """
    try:
        return claim(run, REMOVING)
    except BusyError:
        raise
    except RunError:  # the lock, or the state that would say what the run is doing, cannot be read
        try:
            return RunLock.acquire(run, REMOVING)
        except BusyError:
            raise
        except RunError as error:
            if isinstance(error, DamagedError) or not os.path.lexists(run.lock):
                return None
            raise


def _cancel(run: RunDir) -> None:
    """Let a run that waits be stopped, so that no queue starts it once it is restored."""
    with suppress(RunError):  # what cannot be read waits for nothing
        if (state := read_state(run)).state is State.QUEUED:
            write_state(run, state.changed(state=State.STOPPED, reason="removed before it was started"))
    forget_waiting(run)


def trashed_runs(root: Path) -> list[Trashed]:
    """Return what lies in the trash of a runs folder, from the first that was removed to the last.

    Raises:
        DamagedError: the trash is no folder of its own.
        RunError: it cannot be read.
    """
    found = []
    try:
        for removal in sorted(os.listdir(_folder(root))):
            folder = root / TRASH / removal
            if _REMOVAL.fullmatch(removal) and _is_folder(folder):
                removed = _time(removal)
                found += [Trashed(RunDir(folder / id), RunDir(root / id), removed) for id in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{root / TRASH} cannot be read ({error.strerror}).", "Is the runs folder yours?") from error
    return found


def last_removal(entries: Sequence[Trashed]) -> list[Trashed]:
    """Return those of a trash that were removed last, together."""
    return [entry for entry in entries if entry.removal == entries[-1].removal]


def restore_run(entry: Trashed) -> RunDir:
    """Move a run back to where it lay.

    Raises:
        RunError: something lies there now, or it cannot be moved.
    """
    home = entry.home
    if os.path.lexists(home.path):
        raise RunError(f"{home.path} is there already.", "Move it out of the way, and restore the run then.")
    try:
        os.rename(entry.run.path, home.path)
    except OSError as error:
        raise _not_moved(entry.run.path, error) from error
    _tidy(entry)
    return home


def purge_run(entry: Trashed) -> None:
    """Delete a run in the trash for ever; of a link only the link.

    Raises:
        BusyError: a trainer was started on it by its path.
        RunError: something of it cannot be deleted.
    """
    path = entry.run.path
    if (held := holder(entry.run)) is not None:
        raise BusyError(f"{entry.run.path} is held by {held}.", "Restore the run, and stop it.")
    try:
        if _is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        what = f"{error.filename or path} cannot be deleted ({error.strerror})."
        raise RunError(what, "Is the runs folder yours?") from error
    _tidy(entry)


def tree_size(path: Path) -> int:
    """Return the bytes of all files under a path, without following links; what cannot be read counts nothing."""
    total = 0
    with suppress(OSError):
        if not _is_folder(path):
            return os.lstat(path).st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _folder(root: Path) -> Path:
    """Return the folder of the trash, of which nothing behind a link is ever touched.

    Raises:
        DamagedError: something else has its place.
    """
    folder = root / TRASH
    if os.path.lexists(folder) and not _is_folder(folder):
        raise DamagedError(f"{folder} is not a folder.", "Move it out of the way.")
    return folder


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _tidy(entry: Trashed) -> None:
    """Remove the folder of a removal of which nothing is left, and the trash if that was all."""
    with suppress(OSError):  # something is left
        entry.run.path.parent.rmdir()
        entry.run.path.parent.parent.rmdir()


def _time(text: str) -> float:
    with suppress(ValueError):
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp()
    return 0.0


def _not_moved(path: Path, error: OSError) -> RunError:
    return RunError(f"{path} cannot be moved ({error.strerror}).", "Is its folder yours, and no mount?")
