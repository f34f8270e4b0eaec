"""The spool: rows that could not be brought to the database yet, in ``run.spool.jsonl`` beside it.

It belongs to the run: readers count its rows in, and whoever may write merges them. Its first line names it, and every
other line is one row with a checksum, ``[table, row, checksum]``, so that a line torn by a kill or a full disk and
lines that are not ours are told from rows. ``merged_spool`` in ``meta`` says how far it has been merged, so that a
kill between merging and deleting it doubles no row.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accl.errors import DamagedError
from accl.files import open_regular
from accl.store.files import open_run_file
from accl.store.schema import COLUMNS, EVALS_1_COLUMNS, TABLES, are_rows, long_evals

MERGED = "merged_spool"
# Key in ``meta`` and in the first line: the id that the run was made under.
RUN = "run"
# More bytes than a run can have recorded while its database was held: what is longer is not ours.
LIMIT = 1 << 30
TORN_S = 5.0  # a trainer writes a line in milliseconds


class ForeignSpoolError(DamagedError):
    """The spool is of another run."""


Values = Sequence[Any]
Rows = dict[str, list[Values]]


@dataclass
class Spooled:
    """Rows read from a spool.

    Attributes:
        rows: by table, in the order in which they were recorded, without ``seq``.
        damaged: lines that hold no row; a last line without an end, still being written or torn, is not among them.
        name: identity of the file, the same as long as lines are only added.
        end: number of bytes up to the end of the last line read.
        whole: whether nothing follows.
        torn: whether a line without an end follows that nobody has been writing for `TORN_S`.
    """

    rows: Rows = field(default_factory=dict)
    damaged: int = 0
    name: str = ""
    end: int = 0
    whole: bool = True
    torn: bool = False

    @property
    def mark(self) -> str:
        """Value of ``merged_spool`` in ``meta`` once these rows are merged."""
        return f"{self.name}:{self.end}"

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(map(len, self.rows.values()))


def spool_of(database: Path) -> Path:
    """Return the path of the spool of a database."""
    return database.with_name("run.spool.jsonl")


def read_spool(path: Path, merged: str = "", lines: int | None = None, run: str = "") -> Spooled:
    """Read the rows of a spool that are not merged yet; none when there is no spool.

    Args:
        merged: ``merged_spool`` of ``meta``.
        lines: read at most so many.
        run: id that the run was made under; empty to take the spool of any.

    Raises:
        DamagedError: it is no regular file, may not be read, or is of another run (`ForeignSpoolError`).
        OSError: the disk failed.
    """
    spooled = Spooled()
    with suppress(FileNotFoundError), open(open_run_file(path), "rb") as file:
        first = file.readline(LIMIT)
        spooled.torn = bool(first) and time.time() - os.fstat(file.fileno()).st_mtime > TORN_S
        if not first.endswith(b"\n"):  # still being written, or torn
            return spooled
        if run and _made_as(first) not in ("", run):
            raise ForeignSpoolError(f"{path} is of another run.", "Remove it, or move it to the run that it is of.")
        spooled.name = _name(first)
        name, _, offset = merged.partition(":")
        file.seek(int(offset) if name == spooled.name and offset.isdecimal() else 0)
        spooled.end = file.tell()
        while spooled.end < LIMIT and (line := file.readline(LIMIT)).endswith(b"\n"):
            if lines == 0:
                spooled.whole = False
                break
            lines = None if lines is None else lines - 1
            spooled.end += len(line)
            _add(spooled, line)
        spooled.torn &= spooled.end < os.fstat(file.fileno()).st_size
    return spooled


def append_spool(path: Path, rows: Mapping[str, Sequence[Values]], run: str = "") -> None:
    """Append rows to the spool of a run, all of them or, when the disk is full, none.

    Raises:
        OSError: it cannot be written.
    """
    lines = [_line(table, list(map(_plain, row))) for table, of_table in rows.items() for row in of_table]
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            lines.insert(0, json.dumps({"spool": secrets.token_hex(8), RUN: run}).encode() + b"\n")
        elif os.pread(descriptor, 1, size - 1) != b"\n":
            lines.insert(0, b"\n")  # a torn line must not swallow the next row
        try:
            left = memoryview(b"".join(lines))
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value  # without an import of numpy


def _line(table: str, row: list[Any]) -> bytes:
    return (json.dumps([table, row, _checksum(table, row)]) + "\n").encode()


def _checksum(table: str, row: list[Any]) -> int:
    return zlib.crc32(json.dumps([table, row]).encode())


def _name(first: bytes) -> str:
    return hashlib.blake2b(first, digest_size=8).hexdigest()


def _made_as(first: bytes) -> str:
    """Return the id of the run in the first line of a spool; empty where it says none, as of earlier versions."""
    try:
        content = json.loads(first)
    except (ValueError, RecursionError):
        return ""
    return str(content.get(RUN, "")) if isinstance(content, dict) else ""


def _add(spooled: Spooled, line: bytes) -> None:
    """Add what a line holds, or count it as damaged."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "spool" in content and spooled.end == len(line):
        return
    if not line.strip():  # before a row that followed a torn line
        return
    rows = _rows(content)
    if rows and all(are_rows(table, [row]) for table, row in rows):
        for table, row in rows:
            spooled.rows.setdefault(table, []).append(row)
    else:
        spooled.damaged += 1


def _rows(content: Any) -> list[tuple[str, Values]]:
    """Return the rows that the content of a line may be; the types of their values are not checked yet."""
    match content:
        case [str(table), list(row), int(checksum)] if table in TABLES and checksum == _checksum(table, row):
            return [(table, row)]
        case [str(table), list(row)] if table in TABLES:  # of earlier versions: with seq, without checksum
            if table == "evals" and len(row) == len(EVALS_1_COLUMNS):
                return [(table, long[1:]) for long in _long(row)]
            return [(table, row[1:] if COLUMNS[table][0] == "seq" else row)]
    return []


def _long(row: list[Any]) -> list[tuple[Any, ...]]:
    try:
        return long_evals(row)
    except (TypeError, ValueError):
        return []
