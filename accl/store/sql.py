"""SQL that people type over the tables of several runs: one query, read-only, for a limited time, on no file."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow

from accl.errors import AcclError, BusyError, QueryError
from accl.store.database import time_limit
from accl.store.schema import COLUMNS, TABLES
from accl.store.summary import Summary
from accl.store.tables import RUN_COLUMNS, TablesOfRuns, read_tables, runs_table

LIMIT_S = 60.0
MOST_BYTES = 200_000_000  # of rows, which printing takes ten times as much memory for
BATCH = 2048  # rows, as many as DuckDB computes at a time, between two looks at the clock and the size
NARROWER = "Name fewer runs, or narrow it with WHERE or LIMIT."
HINT = "The tables and their columns: accl sql .tables"
_READS = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
# A statement with a PIVOT in it is several in one, and may be a query or not.
_PIVOT = duckdb.StatementType.MULTI
_QUERY = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:select|with|from|pivot)", re.IGNORECASE | re.DOTALL)
_ABSENT = re.compile(r"Table with name (.+) does not exist")


class SqlError(AcclError):
    """A statement that cannot be run; the exit code is that of a filter that cannot be understood."""

    exit_code = QueryError.exit_code


@dataclass(frozen=True)
class Answer:
    """Rows that a query returned.

    Attributes:
        unread: why the rows of a run are not among them, by its place among those asked.
        partial: why rows of a run may be missing, likewise.
    """

    rows: pyarrow.Table
    unread: dict[int, AcclError]
    partial: dict[int, AcclError]


def described_tables() -> dict[str, list[str]]:
    """Return the columns of every table that a query may read, without those of a configuration and of metrics."""
    return {"runs": runs_table([]).column_names} | {table: [*RUN_COLUMNS, *COLUMNS[table]] for table in TABLES}


def run_sql(statement: str, summaries: Sequence[Summary]) -> Answer:
    """Run a query over the tables of runs; only the tables that it names are read.

    Raises:
        SqlError: it is no query, or DuckDB refuses it.
        BusyError: it took longer than `LIMIT_S`.
    """
    named = [table for table in TABLES if re.search(rf"\b{table}\b", statement, re.IGNORECASE)]
    unread: dict[int, AcclError] = {}
    partial: dict[int, AcclError] = {}
    with TablesOfRuns(named) as tables:
        _check(tables.connection, statement)
        tables.add_runs(summaries)
        for i, summary in enumerate(summaries if named else ()):
            try:
                read = read_tables(summary.run, named)
            except AcclError as error:
                unread[i] = error
                continue
            tables.add(summary, read.tables)
            if read.left_out:
                partial[i] = read.left_out
        try:
            with time_limit(tables.connection, LIMIT_S):
                return Answer(_rows(tables.connection, statement), unread, partial)
        except duckdb.InterruptException as error:
            raise _late() from error
        except (pyarrow.ArrowException, MemoryError, OSError) as error:  # DuckDB's, from within a stream of rows
            raise _late() if "Interrupt" in str(error) else _refused(error) from error
        except (duckdb.Error, RuntimeError) as error:
            raise _refused(error) from error


def _rows(connection: duckdb.DuckDBPyConnection, statement: str) -> pyarrow.Table:
    """Return the rows of a query, which count against no limit of DuckDB's once they have left it.

    Raises:
        BusyError: all of them were not there in time.
        SqlError: they are more than `MOST_BYTES`.
    """
    deadline, size = time.monotonic() + LIMIT_S, 0
    batches = []
    # A relation gives its rows as they come; the result of `execute` would hold all of them before the first.
    reader = connection.sql(statement).to_arrow_reader(BATCH)
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > MOST_BYTES:
            raise SqlError(f"The answer has more than {MOST_BYTES / 1e6:,.0f} MB.", NARROWER)
        if time.monotonic() > deadline:
            raise _late()
    return pyarrow.Table.from_batches(batches, reader.schema)


def _late() -> BusyError:
    return BusyError(f"The query gave no answer within {LIMIT_S:g} s.", NARROWER)


def _check(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuse what is not one query: nothing else would have an effect."""
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise _refused(error) from error
    if not statements:
        raise SqlError("The query is empty.", 'For example: accl sql "select run, state from runs"')
    kind = statements[0].type
    if len(statements) > 1 or not (kind in _READS or (kind == _PIVOT and _QUERY.match(statement))):
        raise SqlError("Only one query is run, and it changes nothing.", "Begin it with SELECT, WITH, FROM or PIVOT.")


def _refused(error: Exception) -> SqlError:
    """Return what DuckDB says of a statement in one line, with the columns that it offers but not its own tables."""
    lines = [line.strip() for line in str(error).splitlines()]
    if absent := _ABSENT.search(lines[0] if lines else ""):
        near = difflib.get_close_matches(absent[1].casefold(), ["runs", *TABLES], n=1)
        guess = f" Did you mean: {near[0]}?" if near else ""
        return SqlError(f"There is no table {absent[1]}.{guess}", HINT)
    said = " ".join(line for line in lines[:2] if line and not line.startswith("LINE ")).rstrip(".!")
    return SqlError(f"The query cannot be run: {said or type(error).__name__}.", HINT)
