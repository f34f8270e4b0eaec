"""The tables of ``run.duckdb``; README.md beside this file describes them for readers of the database.

Tables that readers follow have a ``seq`` that only grows, so that "what is new" is one comparison.
The number of tasks K is the number of rows in ``tasks``; nothing else states it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any

SCHEMA_VERSION = 2

Key = tuple[Any, ...]

# Halves of a pair of UTF-16, which are no text; names of files that are no UTF-8 have them.
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_FLOAT = 3.4028234663852886e38
# Types of the arrays that rows may have in place of lists.
_ARRAYS = {"FLOAT": "float32", "INTEGER": "int32"}

TABLES: dict[str, str] = {
    # One row per logged value. seconds: running time since the first start, pauses between resumes left out.
    "metrics": "seq BIGINT, step INTEGER, epoch DOUBLE, seconds DOUBLE, name VARCHAR, value DOUBLE",
    # weights: task distribution p_K in force from this step on; drawn: questions drawn of each task so far.
    "curriculum": "seq BIGINT, step INTEGER, policy VARCHAR, weights FLOAT[], drawn INTEGER[]",
    # matrix, counts: K x K, row by row. kind: what is confused with what (see accl.method.confusion).
    "confusion": "seq BIGINT, step INTEGER, kind VARCHAR, matrix FLOAT[], counts INTEGER[]",
    # One row per metric of an evaluation, and one named n: the number of questions.
    "evals": "seq BIGINT, step INTEGER, split VARCHAR, name VARCHAR, value DOUBLE",
    "task_evals": "step INTEGER, split VARCHAR, task INTEGER, n INTEGER, correct INTEGER",
    # Every answer of the test, for paired tests, and of the best validation so far.
    "predictions": (
        "split VARCHAR, question_id VARCHAR, task INTEGER, gold INTEGER, predicted INTEGER, probabilities FLOAT[]"
    ),
    # What these answer. neighbours: tasks whose prototypes are nearest to the question, its own left out.
    "questions": ("id VARCHAR, task INTEGER, text VARCHAR, options VARCHAR[], answer INTEGER, neighbours INTEGER[]"),
    "system": "seq BIGINT, seconds DOUBLE, gpu_util DOUBLE, gpu_memory DOUBLE, power DOUBLE, cpu DOUBLE, rss DOUBLE",
    "events": "seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR",
    "tasks": "task INTEGER, name VARCHAR, subcategory VARCHAR, category VARCHAR",
    "meta": "key VARCHAR, value VARCHAR",
}

TYPES: dict[str, dict[str, str]] = {
    table: dict(column.split(" ") for column in columns.split(", ")) for table, columns in TABLES.items()
}
COLUMNS: dict[str, list[str]] = {table: list(types) for table, types in TYPES.items()}

FOLLOWED = tuple(table for table, columns in COLUMNS.items() if columns[0] == "seq")

# Tables whose rows belong to a step; a run resumed from an earlier step deletes later rows.
STEPPED = tuple(table for table, columns in COLUMNS.items() if "step" in columns)

# Schema 1 differed in one table: evals had one row per evaluation and one column per metric.
_EVALS_1_METRICS = ("n", "loss", "accuracy", "macro_accuracy", "ece", "brier")
EVALS_1_COLUMNS = ("seq", "step", "split", *_EVALS_1_METRICS)
EVALS_1 = (
    "seq BIGINT, step INTEGER, split VARCHAR, "
    "n INTEGER, loss DOUBLE, accuracy DOUBLE, macro_accuracy DOUBLE, ece DOUBLE, brier DOUBLE"
)
_EVALS_1_FACTOR = len(_EVALS_1_METRICS)


# Columns that may be NULL: a figure that is no number, a load that the machine does not measure.
_NULLABLE = {"value", *COLUMNS["system"][2:]}
BOUND = 1e12  # no step, index, count or time of a run comes near it

# Tables where a new row takes the place of the one with the same key: its first columns.
KEYS: dict[str, tuple[str, ...]] = {
    "tasks": ("task",),
    "meta": ("key",),
    "questions": ("id",),
    "predictions": ("split", "question_id"),
}

# Tables that databases of earlier versions lack; a resumed run gets them.
ADDED = {"questions"}

# Key in ``meta``: step of the validation whose answers ``predictions`` has.
VALIDATION_STEP = "validation_step"
# Key in ``meta``: step of the weights that were tested.
TESTED_STEP = "tested_step"
# Begins a key in ``meta``: seconds that the process which ended the run spent in a phase, by its name.
PHASE_SECONDS = "seconds/"


def create_statements(catalog: str) -> list[str]:
    """Return the DDL that makes every missing table in an attached catalog."""
    return [f"CREATE TABLE IF NOT EXISTS {catalog}.{table} ({columns})" for table, columns in TABLES.items()]


def by_key(table: str, rows: Iterable[Sequence[Any]]) -> dict[Key, Sequence[Any]]:
    """Return the last row of each key of a table of `KEYS`, in the order of the first ones."""
    size = len(KEYS[table])
    return {tuple(row[:size]): row for row in rows}


def check_rows(table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Make sure that rows of a table, or their first columns, hold what a run can record.

    Raises:
        ValueError: a value is NULL, or a step, an index, a count or a time is beyond any run's.
    """
    for (column, sql_type), values in zip(TYPES[table].items(), zip(*rows, strict=True), strict=False):
        if column in _NULLABLE:
            continue
        if None in values or (sql_type.endswith("[]") and any(None in value for value in values)):
            raise ValueError(f"a NULL in {table}.{column}")
        if sql_type in ("INTEGER", "DOUBLE") and not all(-BOUND < value < BOUND for value in values):
            raise ValueError(f"{table}.{column} out of range")


def wrong_rows(table: str) -> str:
    """Return the condition, in SQL, of the rows of a table that `check_rows` refuses."""
    conditions = []
    for column, sql_type in TYPES[table].items():
        if column not in _NULLABLE:
            conditions.append(f"{column} IS NULL")
            if sql_type.endswith("[]"):
                conditions.append(f"list_count({column}) < len({column})")
            elif sql_type in ("INTEGER", "DOUBLE"):
                conditions.append(f"NOT ({column} > -{BOUND:.0f} AND {column} < {BOUND:.0f})")
    return " OR ".join(conditions)


def are_rows(table: str, rows: Sequence[Sequence[Any]]) -> bool:
    """Say whether all of these, without ``seq``, are rows of a table: as long as it has columns, each of its type.

    A list may be an array of `numpy` of the column's type. Whole columns are looked at, not value by value: a run
    records a thousand rows and twenty thousand numbers of matrices a second.
    """
    types = [sql_type for column, sql_type in TYPES[table].items() if column != "seq"]
    return set(map(len, rows)) <= {len(types)} and all(map(_are_values, zip(*rows, strict=True), types))


def _are_values(values: Collection[Any], sql_type: str) -> bool:
    kinds = set(map(type, values))
    if sql_type.endswith("[]"):
        element = sql_type.removesuffix("[]")
        lists = [value for value in values if isinstance(value, list)]
        others = [value for value in values if not isinstance(value, list)]
        return all(_is_array(other, _ARRAYS.get(element)) for other in others) and _are_values(
            [*chain(*lists)], element
        )
    if sql_type == "INTEGER":
        return kinds <= {int} and -(2**31) <= min(values, default=0) <= max(values, default=0) < 2**31
    if sql_type == "VARCHAR":
        return all(issubclass(kind, str) for kind in kinds) and _is_text("".join(values))
    if kinds != {float}:
        # A load that the machine does not measure is NULL.
        fractions = (float, type(None)) if sql_type == "DOUBLE" else float
        if not _are_values([value for value in values if not isinstance(value, fractions)], "INTEGER"):
            return False
    if sql_type == "FLOAT":
        finite = list(filter(math.isfinite, values))
        return -MAX_FLOAT <= min(finite, default=0) <= max(finite, default=0) <= MAX_FLOAT
    return True


def _is_array(value: Any, dtype: str | None) -> bool:
    # Known by what it has: whoever looks at a list of runs does without numpy.
    return dtype is not None and str(getattr(value, "dtype", "")) == dtype and value.ndim == 1


def _is_text(value: str) -> bool:
    return value.isascii() or not _SURROGATE.search(value)


def schema_problem(version: str | None) -> str:
    """Say why a database of this schema version cannot be read, as the end of a sentence; empty when it can."""
    if version in ("1", str(SCHEMA_VERSION)):
        return ""
    return f"has schema {version or '?'}, this accl reads up to {SCHEMA_VERSION}"


def old_evals(execute: Callable[..., list[Any]], catalog: str, after: int = -1) -> list[tuple[Any, ...]]:
    """Return the rows of ``evals`` with ``seq > after`` of a catalog of schema 1, as `long_evals` makes them."""
    sql = f"SELECT {', '.join(EVALS_1_COLUMNS)} FROM {catalog}.evals WHERE seq > ? ORDER BY seq"
    return [row for wide in execute(sql, after // _EVALS_1_FACTOR) for row in long_evals(wide)]


def long_evals(row: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Turn a row of ``evals`` in schema 1 into rows of schema 2; NULLs make no row.

    Row ``seq`` becomes rows from ``_EVALS_1_FACTOR * seq`` on. The numbering depends on the row alone: readers of
    schema 1, the migration and rows left in a spool agree, and a reader's cursor stays valid through a migration.
    """
    seq, step, split, *values = row
    named = zip(_EVALS_1_METRICS, values, strict=True)
    return [
        (_EVALS_1_FACTOR * seq + i, step, split, name, float(value))
        for i, (name, value) in enumerate(named)
        if value is not None
    ]
