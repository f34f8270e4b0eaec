"""Files of a data folder: which of them count, and reading none that is anything but a file of a sane size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accl.errors import DataError
from accl.files import open_regular

MOST_BYTES = 512 * 2**20  # of one file; the largest of MMLU, auxiliary_train/race.csv, has 147 MB


def visible(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name; nothing where it is no folder.

    Names that begin with a dot or a tilde are left out: what systems and editors leave behind (``._x.csv``,
    ``.ipynb_checkpoints``, ``~$x.csv``) is no data.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "~")))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)  # ValueError: a NUL in the path
        raise DataError(f"The folder {folder} cannot be read ({reason}).", "Check data.path.") from error


def named(folder: Path, suffix: str) -> list[Path]:
    """Return what is `visible` in a folder and has a suffix such as ``.csv``, in capitals or not."""
    return [path for path in visible(folder) if path.suffix.lower() == suffix]


@contextmanager
def open_data(path: Path) -> Iterator[int]:
    """Open a file for a block and yield its descriptor; links to files are followed.

    Raises:
        DataError: it is a folder, a pipe or a device, cannot be read, or has more than `MOST_BYTES`.
    """
    try:
        path.name.encode()
        descriptor = open_regular(path, follow=True)
    except UnicodeEncodeError as error:
        raise DataError(f"The name of {path} is not UTF-8.", "Rename the file.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).", "Mend it, or move it away.") from error
    try:
        size = os.fstat(descriptor).st_size
        if size > MOST_BYTES:
            what = f"{path} has {size:,} bytes, more than the {MOST_BYTES:,} that are read."
            raise DataError(what, "Split it into several files.")
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: as `open_data`, or the device fails.
    """
    with open_data(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        try:
            return file.read()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).", "Is its disk alive?") from error
