"""Files written in one step, and derived files that may be believed when they are found again.

The rule of belief is one for data and for compiled code: a folder or file counts when it belongs to this user or to
root, nobody else can write to it, and it is no link.
"""

from __future__ import annotations

import os
import secrets
import stat
from io import BufferedReader
from pathlib import Path

# O_NONBLOCK: a pipe in a file's place must not be waited for.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
LIMIT = 2**32  # bytes of a derived file; the tokens of all of MMLU are a thirtieth of it


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


def untrusted_reason(state: os.stat_result, *, folder: bool = False) -> str | None:
    """Return why the content of a file may be another user's, as the end of a sentence, or None.

    Args:
        state: from `os.lstat` or `os.fstat`.
        folder: whether it has to be a folder rather than a regular file.
    """
    if stat.S_ISLNK(state.st_mode):
        return "is a symbolic link"
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(state.st_mode):
        return "is not a folder" if folder else "is not a file"
    if state.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "other users can write to" if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading; a link is not followed, and a pipe not waited for.

    Raises:
        OSError: there is no such file, it is a link, or it cannot be read.
        ValueError: it is no regular file; the message ends a sentence that begins with its path.
    """
    descriptor = os.open(path, _READ)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("is not a file")


def read_trusted(path: Path) -> bytes:
    """Read a file that passes `untrusted_reason`; the file that is checked is the one that is read.

    Raises:
        OSError, ValueError: as `open_plain`; or it may be another user's, or is larger than `LIMIT`.
    """
    with open_plain(path) as file:
        state = os.fstat(file.fileno())
        if reason := untrusted_reason(state):
            raise ValueError(reason)
        if state.st_size > LIMIT:
            raise ValueError(f"has more than {LIMIT:,} bytes")
        return file.read()
