"""Instances of DuckDB, each held to databases of runs: they open no other file, no network and no extension.

Making one takes 12 ms and 3.5 MB, attaching a file half a millisecond. So they are kept, and each for reading serves
the runs that lie together in a folder, one at a time. Who waits for a file that does not answer has its instance to
itself, and keeps nobody else waiting.
"""

from __future__ import annotations

import atexit
import os
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from accl.errors import DamagedError

# DuckDB puts these beside a database.
SIDE_FILES = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
# Neighbours by name, which begins with the time; naming a thousand would take longer than making another instance.
TOGETHER = 128
KEPT = 16
CATALOGS = ("run", "file")
_CONFIGURATION: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",  # nothing spills beside the reader
    "memory_limit": "2GB",
    "threads": "1",
    "async_threads": "0",
}


@dataclass(frozen=True, eq=False)
class _Instance:
    connection: duckdb.DuckDBPyConnection
    databases: frozenset[str]


_idle: list[_Instance] = []  # used last at the end
_lock = threading.Lock()


@contextmanager
def connected(database: str, *, alone: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect for a block to an instance that nobody else uses, and detach what it attached as one of `CATALOGS`.

    Args:
        database: absolute path of the file that the block will attach.
        alone: whether it may open no other database, as for writing.
    """
    instance = _taken(database, alone) or _made([database] if alone else _together(database))
    is_sound = True
    try:
        yield instance.connection
    except DamagedError:  # no other run shall suffer from what it may have left
        is_sound = False
        raise
    finally:
        try:
            for catalog in CATALOGS:
                instance.connection.execute(f"DETACH DATABASE IF EXISTS {catalog}").fetchall()
        except duckdb.Error:  # a fatal error invalidates it for good
            is_sound = False
        if is_sound:
            _keep(instance)
        else:
            instance.connection.close()


def separate(folder: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Make an instance for SQL that people type: it opens no file and sees no variable of this process.

    Args:
        folder: where it may read and write files nevertheless.
    """
    connection = duckdb.connect(":memory:", config=_CONFIGURATION | {"python_enable_replacements": "false"})
    if folder is not None:
        connection.execute(f"SET allowed_directories = [{quoted(str(folder))}]")
    connection.execute("SET enable_progress_bar = false")  # it goes to stdout, among the rows
    _lock_up(connection, [])
    return connection


def _taken(database: str, alone: bool) -> _Instance | None:
    """Take the instance used last out of those that are idle and fit; None if none does."""
    with _lock:
        for instance in reversed(_idle):
            if database in instance.databases and not (alone and len(instance.databases) > 1):
                _idle.remove(instance)
                return instance
    return None


def _keep(instance: _Instance) -> None:
    """Let others use an instance, and close the one used least lately when there are too many."""
    with _lock:
        _idle.append(instance)
        surplus = _idle[:-KEPT]
        del _idle[:-KEPT]
    for each in surplus:
        each.connection.close()


def _made(databases: list[str]) -> _Instance:
    connection = duckdb.connect(":memory:", config=_CONFIGURATION)
    _lock_up(connection, [database + suffix for database in databases for suffix in SIDE_FILES])
    return _Instance(connection, frozenset(databases))


def _lock_up(connection: duckdb.DuckDBPyConnection, files: Iterable[str]) -> None:
    """Let a connection open no file but these, for good."""
    # In this order: each closes the way back.
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _together(database: str) -> list[str]:
    """Return a database with those of the runs that lie beside its run."""
    folder, file = os.path.split(database)
    root, name = os.path.split(folder)
    with suppress(OSError):
        names = sorted(each for each in os.listdir(root) if each.isprintable())
        newer = len(names) - bisect_left(names, name) - 1
        end = len(names) - newer // TOGETHER * TOGETHER
        return list({database, *(os.path.join(root, each, file) for each in names[max(0, end - TOGETHER) : end])})
    return [database]


def quoted(text: str) -> str:
    """Return a text as DuckDB's SQL has it."""
    return "'" + text.replace("'", "''") + "'"


@atexit.register
def _close_all() -> None:
    """Close the instances that nobody uses, before Python ends and takes their module away."""
    while _idle:
        _idle.pop().connection.close()
