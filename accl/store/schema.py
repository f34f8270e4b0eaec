"""The tables of ``run.duckdb``; README.md beside this file describes them for readers of the database.

Tables that readers follow have a ``seq`` that only grows, so that "what is new" is one comparison.
The number of tasks K is the number of rows in ``tasks``; nothing else states it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SCHEMA_VERSION = 2

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
    # The final evaluation only: paired tests need every answer.
    "predictions": (
        "split VARCHAR, question_id VARCHAR, task INTEGER, gold INTEGER, predicted INTEGER, probabilities FLOAT[]"
    ),
    "system": "seq BIGINT, seconds DOUBLE, gpu_util DOUBLE, gpu_memory DOUBLE, power DOUBLE, cpu DOUBLE, rss DOUBLE",
    "events": "seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR",
    "tasks": "task INTEGER, name VARCHAR, subcategory VARCHAR, category VARCHAR",
    "meta": "key VARCHAR, value VARCHAR",
}

COLUMNS: dict[str, list[str]] = {
    table: [column.split()[0] for column in columns.split(", ")] for table, columns in TABLES.items()
}

FOLLOWED = tuple(table for table, columns in COLUMNS.items() if columns[0] == "seq")

# Tables whose rows belong to a step; a run resumed from an earlier step deletes later rows.
STEPPED = tuple(table for table, columns in COLUMNS.items() if "step" in columns)

# Schema 1 differed in one table: evals had one row per evaluation and one column per metric.
_EVALS_1_METRICS = ("n", "loss", "accuracy", "macro_accuracy", "ece", "brier")
EVALS_1_COLUMNS = ("seq", "step", "split", *_EVALS_1_METRICS)
EVALS_1_FACTOR = len(_EVALS_1_METRICS)


def create_statements(catalog: str) -> list[str]:
    """Return the DDL that makes every missing table in an attached catalog."""
    return [f"CREATE TABLE IF NOT EXISTS {catalog}.{table} ({columns})" for table, columns in TABLES.items()]


def schema_problem(version: str | None) -> str:
    """Say why a database of this schema version cannot be read, as the end of a sentence; empty when it can."""
    if version in ("1", str(SCHEMA_VERSION)):
        return ""
    return f"has schema {version or '?'}, this accl reads up to {SCHEMA_VERSION}"


def long_evals(row: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Turn a row of ``evals`` in schema 1 into rows of schema 2; NULLs make no row.

    Row ``seq`` becomes rows from ``EVALS_1_FACTOR * seq`` on. The numbering depends on the row alone: readers of
    schema 1, the migration and rows left in a spool agree, and a reader's cursor stays valid through a migration.
    """
    seq, step, split, *values = row
    named = zip(_EVALS_1_METRICS, values, strict=True)
    return [
        (EVALS_1_FACTOR * seq + i, step, split, name, float(value))
        for i, (name, value) in enumerate(named)
        if value is not None
    ]
