"""The trash of a runs folder: removed runs lie in ``.trash/`` beside the others until they are restored or purged.

::

    runs/.trash/20261126-231700-084512/20261122-101500-full-s42-7f3a/

Each removal has a folder of its own, named by its time in UTC to the microsecond, and a run keeps its id in it, so that
a removal can be undone as a whole and one id may be there twice. What lies there is no run for anybody who lists the
runs folder. Every way of a run, there, back, and to its end, begins with one rename within a file system while its lock
is held: of several commands at once one gets it whole, and no trainer lives in it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from accl.errors import BusyError, DamagedError, RunError
from accl.store.files import not_done
from accl.store.lock import REMOVING, RunLock
from accl.store.rundir import RunDir
from accl.store.state import State, claim, end_waiting, read_state
from accl.store.waiting import forget_waiting

TRASH = ".trash"
_PURGED = ".purged-"  # begins the name of what is being deleted, or was when a purge was killed
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
    try:
        with _moving(run) as move:
            _cancel(run)
            _folder(run.path.parent)
            target.path.parent.mkdir(parents=True, exist_ok=True)
            move(target.path)
    except OSError as error:
        raise not_done(run.path, "moved", error) from error
    finally:
        with suppress(OSError):  # of a removal in which nothing could be moved
            target.path.parent.rmdir()


@contextmanager
def _moving(run: RunDir) -> Iterator[Callable[[Path], None]]:
    """Keep trainers away from a run, and yield what renames its folder.

    Raises:
        BusyError, RunError: as `_keep_trainers_away`.
    """
    lock = _keep_trainers_away(run)

    def move(target: Path) -> None:
        os.rename(run.path, target)
        if lock is not None and lock.created:  # a file without a history would prove too much
            RunDir(target).lock.unlink(missing_ok=True)

    try:
        yield move
    finally:
        if lock is not None:
            lock.abandon()


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
            end_waiting(run, state.changed(state=State.STOPPED, reason="removed before it was started"))
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
        raise not_done(root / TRASH, "read", error) from error
    return found


def last_removal(entries: Sequence[Trashed]) -> list[Trashed]:
    """Return those of a trash that were removed last, together."""
    return [entry for entry in entries if entry.removal == entries[-1].removal]


def restore_run(entry: Trashed) -> RunDir:
    """Move a run back to where it lay.

    Raises:
        BusyError: a trainer was started on it by its path.
        RunError: something lies there now, or it cannot be moved.
    """
    home = entry.home
    if os.path.lexists(home.path):
        raise RunError(f"{home.path} is there already.", "Move it out of the way, and restore the run then.")
    try:
        with _moving(entry.run) as move:
            move(home.path)
    except OSError as error:
        raise not_done(entry.run.path, "moved", error) from error
    _tidy(entry.run.path.parent)
    return home


def purge_run(entry: Trashed) -> None:
    """Delete a run in the trash for ever; of a link only the link.

    It has left the trash before anything of it is deleted, so that no part of it can be restored; what cannot be
    deleted goes back there.

    Raises:
        BusyError: a trainer was started on it by its path.
        RunError: it is gone, or something of it cannot be deleted.
    """
    path = entry.run.path
    doomed = path.parent.parent / f"{_PURGED}{secrets.token_hex(8)}"
    try:
        with _moving(entry.run) as move:
            move(doomed)
    except OSError as error:
        raise not_done(path, "moved", error) from error
    try:
        _delete(doomed)
    except OSError as error:
        with suppress(OSError):
            os.rename(doomed, path)
        raise not_done(Path(str(error.filename or path).replace(str(doomed), str(path))), "deleted", error) from error
    _tidy(entry.run.path.parent)


def end_purges(root: Path) -> None:
    """Delete what purges that were killed left behind in the trash of a runs folder.

    Raises:
        DamagedError: the trash is no folder of its own.
        RunError: something of it cannot be deleted.
    """
    try:
        for name in os.listdir(_folder(root)):
            if name.startswith(_PURGED):  # and not an empty folder, into which another command may be moving a run
                _delete(root / TRASH / name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_done(Path(error.filename or root / TRASH), "deleted", error) from error


def _delete(path: Path) -> None:
    """Delete a folder with all that is in it, or what stands in its place; others may be deleting it as well."""
    while os.path.lexists(path):
        with suppress(FileNotFoundError):  # others were faster
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink()


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


def _tidy(removal: Path) -> None:
    """Remove the folder of a removal of which nothing is left, and the trash if that was all."""
    with suppress(OSError):  # something is left
        removal.rmdir()
        removal.parent.rmdir()


def _time(text: str) -> float:
    with suppress(ValueError):
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp()
    return 0.0
