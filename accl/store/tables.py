"""The tables of runs as Arrow tables, and those of several runs beside each other, for SQL that touches no file.

Every table of `accl.store.schema` begins with the columns of `RUN_COLUMNS`, which say whose row it is. What is read is
copied, so that no query keeps a trainer waiting, and nothing but rows that a run can record reaches one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow

from accl.errors import DamagedError
from accl.store.arrow import arrow_schema
from accl.store.config_values import all_values
from accl.store.database import Session
from accl.store.deadline import within
from accl.store.instances import separate
from accl.store.reader import TASKS, attached, checking, read_tasks
from accl.store.rundir import RunDir
from accl.store.schema import COLUMNS, KEYS, TABLES, check_rows, old_evals, wrong_rows
from accl.store.summary import Summary, reading

READ_S = 15.0  # for each run; a large database on a slow disk takes seconds
RUN_COLUMNS = {"run": "VARCHAR", "recipe": "VARCHAR", "seed": "UBIGINT"}
RUN_TYPES = {"run": pyarrow.string(), "recipe": pyarrow.string(), "seed": pyarrow.uint64()}

# Conditions, in SQL, of rows that no run of K tasks records, beside those of `wrong_rows`; ``{k}`` stands for K.
_IMPOSSIBLE = {
    "predictions": "least(gold, predicted) < 0 OR greatest(gold, predicted) >= len(probabilities)",
    "questions": "answer < 0 OR answer >= len(options)",
    "task_evals": "correct < 0 OR correct > n",
    "curriculum": "{k} > 0 AND (len(weights) <> {k} OR len(drawn) <> {k})",
    "confusion": "len(matrix) <> len(counts) OR ({k} > 0 AND len(matrix) <> {k} * {k})",
}


@dataclass(frozen=True)
class RunTables:
    """Tables that were read of a run.

    Attributes:
        tables: by name, with the columns of `accl.store.schema`.
        meta: the ``meta`` table.
        left_out: what could not be read of what lies beside the database; None when nothing is left out.
    """

    tables: Mapping[str, pyarrow.Table]
    meta: Mapping[str, str] = field(default_factory=dict)
    left_out: DamagedError | None = None


def read_tables(run: RunDir, names: Iterable[str]) -> RunTables:
    """Read tables of a run; one that an earlier version did not make yet has no rows.

    Raises:
        BusyError, DamagedError, AbsentError, RunError: the database cannot be read.
    """
    wanted = list(names)
    with reading(run.database):
        return within(READ_S, lambda: _read(run, wanted))


def _read(run: RunDir, names: Sequence[str]) -> RunTables:
    with checking(run.database), attached(run.database) as session:
        k = len(read_tasks(session(TASKS)))
        tables = {
            name: arrow_schema(name).empty_table() if name in session.missing else _checked(session, name, k)
            for name in names
        }
        left_out = None
        if session.left_out:
            what = f"{' and '.join(session.left_out)} in {run.path} cannot be read whole."
            left_out = DamagedError(what, "Some measurements may be missing.")
        return RunTables(tables, dict(session.meta), left_out)


def _checked(session: Session, name: str, k: int) -> pyarrow.Table:
    """Return a table of a run with K tasks.

    Raises:
        ValueError: it has rows that no run records.
    """
    if name == "evals" and session.meta.get("schema_version") == "1":
        rows = old_evals(session, "run")
        check_rows(name, rows)
        schema = arrow_schema(name)
        return pyarrow.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    wrong = [wrong_rows(name), _IMPOSSIBLE.get(name, "false").format(k=k)]
    if "task" in COLUMNS[name] and k:
        wrong.append(f"task < 0 OR task >= {k}")
    if session(f"SELECT 1 FROM run.{name} WHERE {' OR '.join(wrong)} LIMIT 1"):
        raise ValueError(f"rows in {name} that cannot be")
    key = ", ".join(KEYS.get(name, ()))
    if key and session(f"SELECT 1 FROM run.{name} GROUP BY {key} HAVING count(*) > 1 LIMIT 1"):
        raise ValueError(f"rows in {name} that come twice")
    order = " ORDER BY seq" if COLUMNS[name][0] == "seq" else ""
    table = session.arrow(f"SELECT {', '.join(COLUMNS[name])} FROM run.{name}{order}")
    table.validate(full=True)  # text of a stranger's file may be no UTF-8
    return table


class RunLabel(NamedTuple):
    """The columns of `RUN_COLUMNS`; recipe and seed are None where the configuration cannot be read."""

    run: str
    recipe: str | None = None
    seed: int | None = None


def run_label(summary: Summary) -> RunLabel:
    """Return the label of a run's rows."""
    setup = summary.setup
    return RunLabel(summary.run.id, setup.recipe, setup.seed) if setup else RunLabel(summary.run.id)


def empty_tables(names: Iterable[str]) -> RunTables:
    """Return tables without rows, as of a run that has recorded nothing."""
    return RunTables({name: arrow_schema(name).empty_table() for name in names})


class TablesOfRuns:
    """Tables of several runs in memory, on a connection that opens no file.

    Attributes:
        connection: of DuckDB; use it in one thread.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Make the tables, without rows."""
        self.connection = separate()
        self._named: dict[str, RunDir] = {}
        for name in names:
            columns = ", ".join(f"{column} {sql_type}" for column, sql_type in RUN_COLUMNS.items())
            self.connection.execute(f"CREATE TABLE {name} ({columns}, {TABLES[name]})")

    def add(self, summary: Summary, tables: Mapping[str, pyarrow.Table]) -> None:
        """Add what was read of a run. Of two runs with one id the second is named by its path."""
        label = run_label(summary)
        if self._named.setdefault(label.run, summary.run) != summary.run:
            label = label._replace(run=str(summary.run.path))
        for table, rows in tables.items():
            self.connection.register("incoming", rows)
            self.connection.execute(f"INSERT INTO {table} SELECT ?, ?, ?, * FROM incoming", label)
            self.connection.unregister("incoming")

    def add_runs(self, summaries: Sequence[Summary]) -> None:
        """Make the table ``runs``, of one row for each run."""
        self.connection.register("incoming", runs_table(summaries))
        self.connection.execute("CREATE TABLE runs AS SELECT * FROM incoming")
        self.connection.unregister("incoming")

    def close(self) -> None:
        """Free the memory."""
        self.connection.close()

    def __enter__(self) -> TablesOfRuns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def runs_table(summaries: Sequence[Summary]) -> pyarrow.Table:
    """Return one row for each run: what it is, the newest metrics of its state, and every value of its configuration.

    Times are in UTC. Metrics have a slash in their names (``validation/accuracy``) and configuration keys a dot
    (``optim.lr``). What is not known is null; ``problem`` says why a run could not be read.
    """
    columns: dict[str, pyarrow.Array] = {}
    for column, (sql_type, get) in _OF_RUN.items():
        columns[column] = pyarrow.array([get(summary) for summary in summaries], sql_type)
    taken = set(columns)  # DuckDB takes two columns for one whose names differ in case alone
    latest = [summary.state.latest if summary.state else {} for summary in summaries]
    configs = [all_values(summary.config) if summary.config else {} for summary in summaries]
    metrics = dict.fromkeys(name for each in latest for name in each if name.strip() and name.isprintable())
    for name in metrics:
        if name.casefold() not in taken:
            columns[name] = pyarrow.array([each.get(name) for each in latest], pyarrow.float64())
            taken.add(name.casefold())
    for key in dict.fromkeys(key for each in configs for key in each if "." in key and key.isprintable()):
        if key.casefold() not in taken:
            columns[key] = _config_column([each.get(key) for each in configs])
            taken.add(key.casefold())
    return pyarrow.table(columns)


def _time(seconds: float | None) -> int | None:
    """Return seconds since the epoch as microseconds; None where they are not known."""
    # Before the year 9999, which is the last that Python's dates know.
    return round(seconds * 1e6) if seconds and math.isfinite(seconds) and 0 < seconds < 2.5e11 else None


_TEXT, _INTEGER, _MOMENT = pyarrow.string(), pyarrow.int64(), pyarrow.timestamp("us")
_OF_RUN: dict[str, tuple[pyarrow.DataType, Callable[[Summary], Any]]] = {
    "run": (_TEXT, lambda of: of.run.id),
    "name": (_TEXT, lambda of: of.labels.name),
    "experiment": (_TEXT, lambda of: of.experiment),
    "tags": (pyarrow.list_(_TEXT), lambda of: list(of.labels.tags)),
    "note": (_TEXT, lambda of: of.labels.note),
    "state": (_TEXT, lambda of: of.state.state.value if of.state else None),
    "reason": (_TEXT, lambda of: of.state.reason if of.state else ""),
    "problem": (_TEXT, lambda of: str(of.problem) if of.problem else ""),
    "recipe": (_TEXT, lambda of: of.setup.recipe if of.setup else None),
    "profile": (_TEXT, lambda of: of.setup.profile if of.setup else None),
    "seed": (pyarrow.uint64(), lambda of: of.setup.seed if of.setup else None),
    "step": (_INTEGER, lambda of: of.state.step if of.state else None),
    "total_steps": (_INTEGER, lambda of: of.state.total_steps if of.state else None),
    "created": (_MOMENT, lambda of: _time(of.age_key[0])),
    "started": (_MOMENT, lambda of: _time(of.state.begun) if of.state else None),
    "ended": (_MOMENT, lambda of: _time(of.state.ended) if of.state else None),
}


def _config_column(values: Sequence[str | float | None]) -> pyarrow.Array:
    """Return the values of a key as whole numbers, numbers, truth values or text, whichever all of them are."""
    known = [value for value in values if value not in (None, "null")]
    if known and all(value in ("true", "false") for value in known):
        return pyarrow.array(
            [None if value in (None, "null") else value == "true" for value in values], pyarrow.bool_()
        )
    if known and all(isinstance(value, float) for value in known):
        numbers = [value if isinstance(value, float) else None for value in values]
        if all(value.is_integer() and abs(value) < 2**53 for value in known if isinstance(value, float)):
            return pyarrow.array([None if value is None else int(value) for value in numbers], _INTEGER)
        return pyarrow.array(numbers, pyarrow.float64())
    texts = [None if value in (None, "null") else value if isinstance(value, str) else f"{value:g}" for value in values]
    return pyarrow.array(texts, _TEXT)
