"""One csv or parquet file for each table of runs, as `accl sql` has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow
import pyarrow.compute

from accl.analysis.exports.material import Material
from accl.errors import RunError
from accl.store.frames import beside
from accl.store.instances import quoted, separate
from accl.store.schema import TABLES
from accl.store.tables import run_label, runs_table
from accl.text import spreadsheet_text


def write_tables(materials: Sequence[Material], folder: Path, form: str) -> dict[str, int]:
    """Write the tables of runs, and ``runs``, into ``folder``, and return the number of rows of each.

    Text in csv is made harmless to spreadsheets and terminals, as in all csv of accl; parquet holds what was recorded.

    Args:
        form: ``csv`` or ``parquet``.

    Raises:
        RunError: the folder cannot be written.
    """
    tables = {"runs": runs_table([material.summary for material in materials])}
    for name in TABLES:
        tables[name] = beside([(run_label(material.summary), material.read.tables[name]) for material in materials])
    options = "FORMAT parquet, COMPRESSION zstd" if form == "parquet" else "FORMAT csv, HEADER true"
    connection = separate(folder)
    try:
        for name, rows in tables.items():
            connection.register("outgoing", _harmless(rows) if form == "csv" else rows)
            path = quoted(str(folder / f"{name}.{form}"))
            connection.execute(f"COPY (SELECT * FROM outgoing) TO {path} ({options})")
            connection.unregister("outgoing")
    except duckdb.Error as error:
        what = f"{folder} cannot be written: {str(error).splitlines()[0]}."
        raise RunError(what, "Is there room, and may you write there?") from error
    finally:
        connection.close()
    return {name: len(rows) for name, rows in tables.items()}


def _harmless(rows: pyarrow.Table) -> pyarrow.Table:
    """Return rows whose text, names of columns included, no spreadsheet and no terminal acts upon."""
    names = [spreadsheet_text(name) for name in rows.column_names]
    return pyarrow.table([_harmless_column(column.combine_chunks()) for column in rows.itercolumns()], names)


def _harmless_column(column: pyarrow.Array) -> pyarrow.Array:
    if pyarrow.types.is_list(column.type) and pyarrow.types.is_string(column.type.value_type):
        lengths = pyarrow.compute.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
        values = _harmless_column(pyarrow.compute.list_flatten(column))
        return pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), values)
    if not pyarrow.types.is_string(column.type):
        return column
    encoded = column.dictionary_encode()  # most texts come often
    texts = [spreadsheet_text(text) for text in encoded.dictionary.to_pylist()]
    return pyarrow.array(texts, pyarrow.string()).take(encoded.indices)
