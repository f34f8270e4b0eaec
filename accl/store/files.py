"""Reading files of a run directory that may be anything: a run is data from a stranger.

A file is opened only if it is a regular one, without following a link and without waiting for a writer, and no more
than a limit is read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accl.errors import BusyError, DamagedError, RunError
from accl.files import lock_within, open_regular

LIMIT = 16 * 2**20  # bytes; the largest file that is read whole, a provenance of many resumes, is a thousandth of it

ALONE_S = 2.0  # for an edit of small files by another process

RESTORE = "Restore it from a backup or remove the run."


def open_run_file(path: Path) -> int:
    """Open a file of a run for reading, and return its descriptor.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is a folder, a link, a pipe or a device, or may not be read.
    """
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        # Another user's run is not ours to remove.
        hint = "Ask its owner for permission." if isinstance(error, PermissionError) else RESTORE
        raise DamagedError(f"{path} cannot be read ({error.strerror}).", hint) from error


def read_text(path: Path, limit: int = LIMIT) -> str:
    """Read a regular UTF-8 file whole.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: no regular file, unreadable, longer than ``limit`` bytes, or not UTF-8.
    """
    with open(open_run_file(path), "rb") as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise DamagedError(f"{path} cannot be read ({error.strerror}).", RESTORE) from error
    if len(content) > limit:
        raise DamagedError(f"{path} has more than {limit:,} bytes.", RESTORE)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 text.", RESTORE) from error


def read_tail(path: Path, limit: int) -> bytes:
    """Read at most the last ``limit`` bytes of a regular file.

    Raises:
        FileNotFoundError, DamagedError: as `read_text`.
    """
    with open(open_run_file(path), "rb") as file:
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit)
        except OSError as error:
            raise DamagedError(f"{path} cannot be read ({error.strerror}).", RESTORE) from error


@contextmanager
def alone_in(folder: Path, busy: str) -> Iterator[None]:
    """Keep out whoever calls this for the same folder meanwhile, where its file system has locks.

    What is read, changed and written within it is so in one step, without a file of its own, for which there may be no
    room.

    Args:
        busy: what to say when another does not end within `ALONE_S`.

    Raises:
        BusyError: that.
        RunError: the folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise not_done(folder, "opened", error) from error
    try:
        try:
            lock_within(descriptor, ALONE_S)
        except BlockingIOError as error:
            raise BusyError(busy, "Try again in a moment.") from error
        except OSError:  # no locks: two edits at once are rarer than such a folder
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what went wrong where a file or folder of a run cannot be written, moved or made, as a `RunError`."""
    try:
        yield
    except OSError as error:
        raise not_done(path, "written", error) from error


def not_done(path: Path, done: str, error: OSError) -> RunError:
    """Return the error for something that could not be done to a path, with what helps against that cause."""
    return RunError(f"{path} cannot be {done} ({error.strerror}).", _HELP.get(error.errno or 0, "Is its folder yours?"))


_ROOM = "Make room, for example with: accl prune"
_HELP = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "Is its disk alive?",
    errno.ESTALE: "Is its disk alive?",
    errno.ENOENT: "Another command may have moved it: accl runs",
    errno.EXDEV: "It is on another disk than its folder; move it by hand.",
    errno.EBUSY: "Is something mounted there?",
}
