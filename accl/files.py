"""Files: opened only where they are files, written in one step, and believed where they were derived earlier.

The rule of belief is one for data and for compiled code: a folder or file counts when it belongs to this user or to
root, nobody else can write to it, and it is no link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
LOCK_AGAIN_S = 0.01
LIMIT = 2**32  # bytes of a derived file; the tokens of all of MMLU are a thirtieth of it
# What `os.open` says of a socket and of a pipe that nobody reads (ENXIO), and of a folder opened for writing.
_NO_FILE = (errno.ENXIO, errno.EISDIR)


class NotAFileError(OSError):
    """A link, a folder, a pipe or a device stands where a file should; ``strerror`` says so in a clause."""


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a file only if it is a regular one, without waiting for whoever might use a pipe in its place.

    Args:
        flags: how to open it; a file that they make has the permissions that the umask leaves.
        follow: whether it may be a link to a regular file.

    Returns:
        Its descriptor.

    Raises:
        NotAFileError: something else has this path, or nothing can have it.
        OSError: it cannot be opened; ``strerror`` says why.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), 0o666)
    except ValueError as error:  # a NUL or a surrogate
        raise NotAFileError(errno.EINVAL, "no file can have this name", str(path)) from error
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise NotAFileError(error.errno, "it is a symbolic link", str(path)) from error
        if error.errno in _NO_FILE:
            raise NotAFileError(error.errno, "it is not a file", str(path)) from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise NotAFileError(errno.EINVAL, "it is not a file", str(path))


def lock_within(descriptor: int, seconds: float) -> None:
    """Lock an open file, or a folder, for this process alone until the descriptor is closed.

    Raises:
        BlockingIOError: another process holds it for longer than ``seconds``.
        OSError: the file system has no locks.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(LOCK_AGAIN_S)


def replace_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part of either.

    Args:
        mode: permissions of the file, of which the umask takes away.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, _CREATE, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def untrusted_folder(folder: Path, *, follow: bool) -> str | None:
    """Return why derived files in a folder are not believed, as the end of a sentence; None if there is no reason.

    A folder that does not exist is fine: it is made with the first file.

    Args:
        follow: whether it may be a link; the folder behind it is judged.
    """
    try:
        return _untrusted(os.stat(folder, follow_symlinks=follow), folder=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _untrusted(state: os.stat_result, *, folder: bool = False) -> str | None:
    """Return why the content of a file, or of a folder, may be another user's; None if there is no reason."""
    if stat.S_ISLNK(state.st_mode):
        return "is a symbolic link"
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(state.st_mode):
        return "is not a folder" if folder else "is not a file"
    if state.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "other users can write to" if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def read_trusted(path: Path) -> bytes:
    """Read a file of which the rule holds; the file that is checked is the one that is read.

    Raises:
        OSError: it cannot be opened, as `open_regular`, or read.
        ValueError: it may be another user's, or is larger than `LIMIT`; the message ends a sentence on its path.
    """
    with open(open_regular(path), "rb") as file:
        state = os.fstat(file.fileno())
        if reason := _untrusted(state):
            raise ValueError(reason)
        if state.st_size > LIMIT:
            raise ValueError(f"has more than {LIMIT:,} bytes")
        return file.read()


def state_folder() -> Path:
    """Return this user's folder for what accl remembers from one command to the next; it may not exist."""
    home = os.environ.get("XDG_STATE_HOME", "")
    states = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return states / "accl"
