"""The one place that attaches a run's database, for reading and for writing.

A database may be a copy from a stranger, so DuckDB is held to the databases of runs (`accl.store.instances`), one is
attached at a time, only while it is used, and only base tables with the columns of `accl.store.schema` are touched, for
a limited time. What goes wrong is one of three things: `BusyError`, `DamagedError` or `AbsentError`.
"""

from __future__ import annotations

import math
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from numpy.typing import NDArray

from accl.errors import AbsentError, BusyError, DamagedError, RunError
from accl.store.files import open_run_file
from accl.store.instances import SIDE_FILES, connected, quoted
from accl.store.schema import ADDED, EVALS_1, TABLES, TYPES, create_statements, schema_problem

if TYPE_CHECKING:
    import pyarrow

Row = tuple[Any, ...]
Definitions = dict[str, set[str]]

READ_LIMIT_S = 10.0
# Rows fetched between two looks at the clock.
FETCH_ROWS = 50_000
# The trainer holds the file for about 5 ms once a second.
TRIES = 8
TRY_AGAIN_S = 0.01

OTHER_VERSION = "Read it with the accl that wrote it."
DAMAGED_HINT = "Restore the run from a backup, or train it again."

# DuckDB's words for a write-ahead log that it cannot apply.
REPLAY_FAILED = "replaying WAL"
# Its first record in every version, that of the version; DuckDB passes over a log that begins otherwise.
_LOG_BEGINS = b"\x64\x00\x62"
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")
_DAMAGED_IO = ("not a valid DuckDB", "Could not read enough bytes", "Is a directory", "orrupt", REPLAY_FAILED)
_FULL_IO = ("No space left", "Disk quota exceeded", "File too large")


class DiskFullError(BusyError):
    """The disk of the run has no room for what was to be written."""


class Session:
    """An attached database. Calling it with a statement and parameters returns all rows.

    Attributes:
        meta: the ``meta`` table; empty in a database just made.
        missing: tables that it lacks because an earlier version made it.
        left_out: names of files beside the database whose content is not, or not all, in what is read.
    """

    def __init__(self, database: Database, connection: duckdb.DuckDBPyConnection, limit_s: float) -> None:
        self._database, self._connection = database, connection
        self._limit_s, self._deadline = limit_s, time.monotonic() + limit_s
        self.meta: dict[str, str] = {}
        self.missing: set[str] = set()
        self.left_out: list[str] = []

    def __call__(self, sql: str, *parameters: Any) -> list[Row]:
        """Return all rows of a statement.

        Raises:
            BusyError: the time limit has passed.
            DamagedError, AbsentError, RunError: see `Database.attached`.
        """
        rows: list[Row] = []
        try:
            self._check_time()
            result = self._connection.execute(sql, parameters)
            # Always to the end: a pending result keeps the connection busy in DuckDB 2.
            while chunk := result.fetchmany(FETCH_ROWS):
                rows += chunk
                self._check_time()
        except duckdb.Error as error:
            raise self._database.explain(error) from error
        return rows

    def columns(self, sql: str, *parameters: Any) -> dict[str, NDArray[Any]]:
        """Return the columns of a statement's rows by name; one with NULLs is a masked array.

        Raises:
            as a call.
        """
        try:
            self._check_time()
            return self._connection.execute(sql, parameters).fetchnumpy()
        except duckdb.Error as error:
            raise self._database.explain(error) from error

    def arrow(self, sql: str) -> pyarrow.Table:
        """Return all rows of a query as an Arrow table.

        Raises:
            as a call.
        """
        try:
            self._check_time()
            return self._connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise self._database.explain(error) from error

    def append(self, table: str, rows: Sequence[Sequence[Any]], *, prefix: str = "") -> None:
        """Append rows to a table of the attached database: far faster than INSERT.

        Args:
            prefix: of the table's name in the attached database.

        Raises:
            as a call.
        """
        if not rows:
            return
        name = f"run.{prefix}{table}"
        try:
            # An appender takes lists apart value by value, and holds Python's lock meanwhile.
            if any(sql_type.endswith("[]") for sql_type in TYPES[table].values()):
                from accl.store.arrow import arrow_table

                self._connection.from_arrow(arrow_table(table, rows)).insert_into(name)
                return
            appender = self._connection.appender(name)
            appender.append_rows(rows)
            appender.flush()
        except duckdb.Error as error:
            raise self._database.explain(error) from error

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._database.too_slow(self._limit_s)


class Database:
    """A database file, by path; use `database_at`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()

    @contextmanager
    def attached(self, *, write: bool = False, beside: bool = False, tries: int = TRIES) -> Iterator[Session]:
        """Attach the file for a block. Its tables are named ``run.{table}``.

        Args:
            write: attach for writing, and make the file when there is none.
            beside: name its tables ``file.{table}``, so that the block may attach another ``run``; nothing is wrong
                when there is no file or no table.
            tries: attempts while another process holds the file.

        Raises:
            BusyError: another process holds the file, or the disk does not answer in time.
            DamagedError: the file is no DuckDB database, or its tables are not those of this accl.
            AbsentError: there is no file, or it has no table yet, and it is not to be written.
            RunError: the database has a later schema.
        """
        # One attach at a time in this process: DuckDB does not attach a file twice, and file locks are per process.
        if not self._lock.acquire(timeout=READ_LIMIT_S):
            raise self.too_slow(READ_LIMIT_S)
        try:
            if "?" in self.path:
                what = f"{self.path} cannot be a database: DuckDB reads what follows a ? as options."
                raise RunError(what, "Rename the folder.")
            # Writing has no limit: a commit that is interrupted would be done again.
            limit_s = math.inf if write else READ_LIMIT_S
            with connected(self.path, alone=write) as connection, time_limit(connection, limit_s):
                session = Session(self, connection, limit_s)
                catalog = "file" if beside else "run"
                definitions = _definitions(connection)
                try:
                    self._attach(connection, catalog, write, tries)
                    if not write and self._has_foreign_log():
                        session.left_out.append(f"{os.path.basename(self.path)}.wal")
                    self._check_tables(session, catalog, definitions, write)
                except AbsentError:
                    if not beside:
                        raise
                yield session
        finally:
            self._lock.release()

    def explain(self, error: duckdb.Error) -> RunError:
        """Return the error of accl that an error of DuckDB means."""
        # The path first: it may hold a line break.
        said = str(error).replace(self.path, os.path.basename(self.path)) or type(error).__name__
        reason = said.splitlines()[0].rstrip(".!")
        if holder := _HOLDER.search(reason):
            program, pid = Path(holder[1]).name, holder[2]
            return BusyError(f"{self.path} is held by process {pid} ({program}).", "Try again when it has let go.")
        if isinstance(error, duckdb.InterruptException):
            return self.too_slow(READ_LIMIT_S)
        if any(words in reason for words in _FULL_IO):
            return DiskFullError(f"There is no room on the disk for {self.path}.", "Make room.")
        if isinstance(error, duckdb.CatalogException):
            return AbsentError(f"{self.path} has no such table: {reason}.")
        if "database does not exist" in reason:
            return AbsentError(f"{self.path} does not exist.", "Nothing has been recorded yet, or it was deleted.")
        io = isinstance(error, (duckdb.IOException, duckdb.PermissionException, duckdb.OutOfMemoryException))
        if io and not any(words in reason for words in _DAMAGED_IO):
            return BusyError(f"{self.path} cannot be used now: {reason}.", "Try again.")
        return DamagedError(f"{self.path} is damaged: {reason}.", DAMAGED_HINT)

    def too_slow(self, seconds: float) -> BusyError:
        """Return the error for a database that does not answer."""
        hint = "The machine is very busy, or its disk or network mount hangs."
        return BusyError(f"{self.path} gave no answer within {seconds:g} s.", hint)

    def _attach(self, connection: duckdb.DuckDBPyConnection, catalog: str, write: bool, tries: int) -> None:
        self._check_files(write)
        for attempt in range(tries):
            try:
                mode = "" if write else " (READ_ONLY)"
                connection.execute(f"ATTACH {quoted(self.path)} AS {catalog}{mode}").fetchall()
                return
            except duckdb.Error as error:
                problem = self.explain(error)
                if not isinstance(problem, BusyError) or attempt == tries - 1:
                    raise problem from error
                time.sleep(TRY_AGAIN_S)

    def _check_files(self, write: bool) -> None:
        """Refuse what is no regular file: opening a pipe would wait for ever, and a link leads elsewhere."""
        for suffix in SIDE_FILES:
            try:
                status = os.lstat(self.path + suffix)
            except FileNotFoundError:
                if not suffix and not write:
                    hint = "Nothing has been recorded yet, or it was deleted."
                    raise AbsentError(f"{self.path} does not exist.", hint) from None
                continue
            except OSError as error:
                raise DamagedError(f"{self.path}{suffix} cannot be read ({error.strerror}).", DAMAGED_HINT) from error
            if not stat.S_ISREG(status.st_mode):
                raise DamagedError(f"{self.path}{suffix} is not a file.", DAMAGED_HINT)
            if not suffix and not write and not os.access(self.path, os.R_OK):
                raise DamagedError(f"{self.path} may not be read.", "Ask its owner for permission.")

    def _has_foreign_log(self) -> bool:
        with suppress(FileNotFoundError), open(open_run_file(Path(f"{self.path}.wal")), "rb") as file:
            return not _LOG_BEGINS.startswith(file.read(len(_LOG_BEGINS)))
        return False

    def _check_tables(self, session: Session, catalog: str, definitions: Definitions, write: bool) -> None:
        """Let only base tables of ours through; a view could read or compute anything in their place."""
        rows = session("SELECT database_name, schema_name, table_name, sql FROM duckdb_tables()")
        tables = {name: sql for database, schema, name, sql in rows if (database, schema) == (catalog, "main")}
        if not tables:
            if write:
                return
            raise AbsentError(f"{self.path} has no table.", "Nothing has been recorded yet.")
        if tables.get("meta") not in definitions["meta"]:
            raise DamagedError(f"{self.path} is not the database of a run.", DAMAGED_HINT)
        session.meta = {str(k): str(v) for k, v in session(f"SELECT key, value FROM {catalog}.meta")}
        version = session.meta.get("schema_version")
        if version is None:
            raise DamagedError(f"{self.path} is damaged: `meta` names no schema.", DAMAGED_HINT)
        if problem := schema_problem(version):
            raise RunError(f"{self.path} {problem}.", OTHER_VERSION)
        if absent := ADDED - tables.keys():
            views = session("SELECT view_name FROM duckdb_views() WHERE database_name = ?", catalog)
            session.missing = absent - {name for (name,) in views}
        for table in TABLES.keys() - session.missing:
            if tables.get(table) not in definitions[table]:
                is_there = "has another form" if table in tables else "is missing or no table"
                raise DamagedError(f"{self.path} is damaged: `{table}` {is_there}.", DAMAGED_HINT)
        if write and session("SELECT 1 FROM duckdb_triggers() LIMIT 1"):
            raise DamagedError(f"{self.path} is damaged: it has triggers.", DAMAGED_HINT)


_databases: dict[str, Database] = {}
_known: Definitions = {}
_databases_lock = threading.Lock()


def database_at(path: Path) -> Database:
    """Return the database at a path: one object for each file, however the path is written."""
    # Absolute, so that no folder's name (``s3:``, ``exp:v2``) is taken for a protocol.
    absolute = os.path.join(os.path.realpath(path.parent), path.name)
    with _databases_lock:
        return _databases.setdefault(absolute, Database(absolute))


@contextmanager
def time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt what a connection does after so many seconds, and again every second until the block ends."""
    if seconds == math.inf:
        yield
        return
    done = threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not done.wait(wait):
            with suppress(duckdb.ConnectionException):  # closed by a caller that gave up
                connection.interrupt()
            wait = 1.0

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _definitions(connection: duckdb.DuckDBPyConnection) -> Definitions:
    """Return how DuckDB writes the definition of each table of ours, in every schema that is readable."""
    if not _known:
        select = "SELECT table_name, sql FROM duckdb_tables()"
        connection.execute("BEGIN")
        for statement in create_statements("memory"):
            connection.execute(statement)
        found = {name: {sql} for name, sql in connection.execute(select).fetchall()}
        connection.execute(f"CREATE OR REPLACE TABLE memory.evals ({EVALS_1})")
        found["evals"].add(dict(connection.execute(select).fetchall())["evals"])
        connection.execute("ROLLBACK")
        _known.update(found)
    return _known
