"""The tables of ``run.duckdb``.

Tables that readers follow have a ``seq`` that only grows, so that "what is new" is one comparison.
K, the number of tasks, is the number of rows in ``tasks`` and is written nowhere else.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

TABLES: dict[str, str] = {
    # One row per logged value. seconds: training time since the first start, pauses between resumes left out.
    "metrics": "seq BIGINT, step INTEGER, epoch DOUBLE, seconds DOUBLE, name VARCHAR, value DOUBLE",
    # weights: task distribution p_K in force from this step on; drawn: questions drawn of each task so far.
    "curriculum": "seq BIGINT, step INTEGER, policy VARCHAR, weights FLOAT[], drawn INTEGER[]",
    # matrix, counts: K x K, row by row. kind: what is confused with what (see accl.method.confusion).
    "confusion": "seq BIGINT, step INTEGER, kind VARCHAR, matrix FLOAT[], counts INTEGER[]",
    "evals": (
        "seq BIGINT, step INTEGER, split VARCHAR, n INTEGER, loss DOUBLE, accuracy DOUBLE, "
        "macro_accuracy DOUBLE, ece DOUBLE, brier DOUBLE"
    ),
    "task_evals": "step INTEGER, split VARCHAR, task INTEGER, n INTEGER, correct INTEGER",
    # The final evaluation only: paired tests need every answer.
    "predictions": (
        "split VARCHAR, question_id VARCHAR, task INTEGER, gold INTEGER, predicted INTEGER, probabilities FLOAT[]"
    ),
    "system": ("seq BIGINT, seconds DOUBLE, gpu_util DOUBLE, gpu_memory DOUBLE, power DOUBLE, cpu DOUBLE, rss DOUBLE"),
    "events": "seq BIGINT, seconds DOUBLE, level VARCHAR, kind VARCHAR, message VARCHAR",
    "tasks": "task INTEGER, name VARCHAR, subcategory VARCHAR, category VARCHAR",
    "meta": "key VARCHAR, value VARCHAR",
}

COLUMNS: dict[str, list[str]] = {
    table: [column.split()[0] for column in columns.split(", ")] for table, columns in TABLES.items()
}

FOLLOWED = tuple(table for table, columns in COLUMNS.items() if columns[0] == "seq")

# Tables whose rows belong to a step: a run resumed from an earlier step forgets what lies after it.
STEPPED = tuple(table for table, columns in COLUMNS.items() if "step" in columns)


def create_statements(catalog: str) -> list[str]:
    """DDL that makes every table in an attached catalog, and leaves existing ones as they are."""
    return [f"CREATE TABLE IF NOT EXISTS {catalog}.{table} ({columns})" for table, columns in TABLES.items()]
