"""`accl sql`: a query over the tables of runs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from datetime import time as clock
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accl.cli.options import RUNS, ChosenOrAllArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit, print_notes
from accl.cli.table import MISSING, Column, Table, number
from accl.errors import AbsentError, RunError
from accl.text import counted

if TYPE_CHECKING:
    import pyarrow

SHOWN = 100  # rows of a table for people
# Typed for the list of tables: what other SQL shells have for it.
TABLES_WORDS = (".tables", ".schema", "\\d", "\\dt", "show tables", "show tables;")
QueryArgument = Annotated[str, typer.Argument(metavar="SQL", help="One query of DuckDB's SQL, or .tables.")]


def sql(
    query: QueryArgument,
    chosen: ChosenOrAllArgument = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Query the tables of runs with SQL; nothing is changed.

    Tables hold the rows of all the runs, and begin with the columns run,
    recipe and seed: metrics, evals, task_evals, predictions, questions,
    curriculum, confusion, system, events, tasks and meta. The table runs
    has a row for each run, with its state, its newest metrics
    ("validation/accuracy") and every key of its configuration
    ("optim.lr"), names to be put in double quotes. .tables lists all
    columns; accl/store/README.md says what they mean.

    The query is DuckDB's SQL, reads no file, and ends after a minute.
    Rows beyond the first hundred are printed by csv and json alone.

    Examples:

      accl sql .tables

      accl sql 'select recipe, seed, "validation/accuracy" from runs order by 3'

      accl sql "select step, value from metrics where name = 'train/lr'" last

      accl sql "select run, count(*) from events group by run" state:finished
    """
    from accl.store.selection import choose_runs
    from accl.store.sql import described_tables, run_sql

    if " ".join(query.lower().split()) in TABLES_WORDS:
        rows = [{"table": name, "columns": columns} for name, columns in described_tables().items()]
        notes = [
            'runs has a column for each metric ("validation/accuracy") and configuration key ("optim.lr") as well.'
        ]
        emit(Table("", [Column("table"), Column("columns", wrap=True)], rows, name="tables"), format, notes=notes)
        return
    found = choose_runs(runs, chosen or ())
    if not found.summaries:
        raise RunError(f"No runs in {runs} yet.", "Start one: accl train full --profile demo")
    answer = run_sql(query, found.summaries)
    problems = [error for error in answer.unread.values() if not (found.by_query and isinstance(error, AbsentError))]
    if problems and not found.by_query:
        raise problems[0]
    print_notes([f"left out: {error}" for error in problems] + [str(error) for error in answer.partial.values()])
    rows_shown = answer.rows if format in (Format.CSV, Format.JSON) else answer.rows.slice(0, SHOWN)
    notes = []
    if more := len(answer.rows) - len(rows_shown):
        notes.append(f"{counted(more, 'more row')}; print all of them with --format csv.")
    emit(_table(rows_shown), format, notes=notes)


def _table(rows: pyarrow.Table) -> Table:
    import pyarrow

    names = _distinct(rows.column_names)
    columns = []
    for name, field in zip(names, rows.schema, strict=True):
        is_number = pyarrow.types.is_integer(field.type) or pyarrow.types.is_floating(field.type)
        is_number = is_number or pyarrow.types.is_decimal(field.type)
        columns.append(Column(name, name, "", "right" if is_number else "left", _text, wrap=not is_number))
    values = [_values(name, column) for name, column in zip(names, rows.itercolumns(), strict=True)]
    return Table("", columns, [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)], name="rows")


def _values(name: str, column: pyarrow.ChunkedArray) -> list[Any]:
    """Return the values of a column.

    Raises:
        SqlError: one is a time of which Python knows none.
    """
    from accl.store.sql import SqlError

    try:
        return [_plain(value) for value in column.to_pylist()]
    except (OverflowError, ValueError) as error:
        what = f"The column {name} has a value that cannot be printed ({error})."
        raise SqlError(what, "Turn it into text: CAST(... AS VARCHAR)") from error


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names with a number after those that come again: a row has its values by name."""
    taken: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        wanted = name
        while wanted in taken:
            taken[name] += 1
            wanted = f"{name}_{taken[name]}"
        taken[wanted] = 1
        found.append(wanted)
    return found


def _plain(value: Any) -> Any:
    """Return a value of a row as one that json has: decimals as numbers, times and bytes as text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (date, datetime, clock)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _text(value: Any) -> str:
    """Write a value for people, whole numbers without commas: they may be a seed."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if value is None:
        return MISSING
    return number(".6g")(value) if isinstance(value, float) else str(value)
