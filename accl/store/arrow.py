"""The tables of ``run.duckdb`` as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow

from accl.store.schema import TYPES

_ARROW = {
    "VARCHAR": pyarrow.string(),
    "INTEGER": pyarrow.int32(),
    "BIGINT": pyarrow.int64(),
    "DOUBLE": pyarrow.float64(),
    "FLOAT": pyarrow.float32(),
}


def arrow_schema(table: str) -> pyarrow.Schema:
    """Return the columns of a table and their types."""
    return pyarrow.schema([(column, _arrow_type(sql_type)) for column, sql_type in TYPES[table].items()])


def arrow_table(table: str, rows: Sequence[Sequence[Any]]) -> pyarrow.Table:
    """Return rows of a table, at least one; their lists may be arrays of `numpy`."""
    schema = arrow_schema(table)
    columns = zip(*rows, strict=True)
    arrays = [pyarrow.array(values, field.type) for field, values in zip(schema, columns, strict=True)]
    return pyarrow.table(arrays, schema=schema)


def _arrow_type(sql_type: str) -> pyarrow.DataType:
    element = _ARROW[sql_type.removesuffix("[]")]
    return pyarrow.list_(element) if sql_type.endswith("[]") else element
