"""Reader of parquet files as on the Hub: ``<split>*.parquet`` with question, subject, choices and answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import duckdb

from accl.data.builder import LAYOUTS, MOST_CHARACTERS, MOST_QUESTIONS, PART_OF, CorpusBuilder
from accl.data.files import named, open_data
from accl.data.questions import LETTERS, PARTS, Corpus
from accl.data.typed_rows import COLUMNS, add_rows, check_names, class_names, hardened
from accl.errors import DataError

# As a file declares, of the columns that are read.
_MOST_VALUES = (len(COLUMNS) + len(LETTERS)) * MOST_QUESTIONS
_MOST_BYTES = 2 * MOST_CHARACTERS


def read_parquet(folder: Path, source: str, revision: str = "") -> Corpus:
    """Read all parquet files of a folder.

    Raises:
        DataError: no such file, a column missing or of the wrong type, or a malformed row.
    """
    files = named(folder, ".parquet")
    if not files:
        raise DataError(f"{folder} holds no parquet file.", LAYOUTS)
    _check_shards(folder, files)
    builder = CorpusBuilder()
    for part, path in sorted(((_part_of(path), path) for path in files), key=lambda f: PARTS.index(f[0])):
        _add_file(path, part, builder)
    return builder.corpus(folder, source, revision)


def _check_shards(folder: Path, files: Sequence[Path]) -> None:
    """Refuse ``test-00000-of-00002.parquet`` without its other half."""
    numbered = [match for path in files if (match := re.fullmatch(r"(.+)-(\d+)-of-(\d+)", path.stem))]
    for name, _, count in (match.groups() for match in numbered):
        there = {int(match[2]) for match in numbered if (match[1], match[3]) == (name, count)}
        missing = next(number for number in range(len(there) + 1) if number not in there)
        if missing < int(count):
            lacking = f"{name}-{missing:0{len(count)}}-of-{count}.parquet"
            raise DataError(f"{folder} lacks {lacking}.", "Fetch it, or rename the others.")


def _part_of(path: Path) -> str:
    """Return the part that a file belongs to: ``test`` for ``test-00000-of-00001.parquet`` and ``test.parquet``."""
    letters = re.match(r"[^\W\d]*", path.stem)
    part = PART_OF.get(letters[0].strip("_") if letters else "")
    if part is None:
        hint = f"Its name must start with one of: {', '.join(PART_OF)}."
        raise DataError(f"{path} belongs to no known split.", hint)
    return part


def _add_file(path: Path, part: str, builder: CorpusBuilder) -> None:
    with open_data(path) as descriptor:
        # DuckDB takes names for patterns and addresses; the name of an open file is neither.
        opened = f"/dev/fd/{descriptor}"
        with hardened(path, opened) as connection:
            check_names(path, _column_names(connection, opened))
            declared = _check_size(connection, opened, path)
            noted = f"SELECT value FROM parquet_kv_metadata('{opened}') WHERE key = 'huggingface'::BLOB"
            notes = connection.execute(noted).fetchall()
            classes = class_names(notes[0][0] if notes else None)
            rows = add_rows(builder, connection, f"read_parquet('{opened}')", path, part, classes)
            if rows != declared:
                raise DataError(f"{path} has {rows:,} rows where its end says {declared:,}.", "Fetch the file again.")


def _column_names(connection: duckdb.DuckDBPyConnection, opened: str) -> list[str]:
    """Return the names of the columns as they are written: a query would rename those that come twice."""
    _, *elements = connection.execute(f"SELECT name, num_children FROM parquet_schema('{opened}')").fetchall()
    names, inside = [], 0  # elements are listed depth first; so many of those that follow are parts of a column
    for name, children in elements:
        if inside:
            inside -= 1
        else:
            names.append(name)
        inside += children or 0
    return names


def _check_size(connection: duckdb.DuckDBPyConnection, opened: str, path: Path) -> int:
    """Refuse a file that unpacks to more than a corpus may have, by what it declares, and return its number of rows."""
    ((rows,),) = connection.execute(f"SELECT num_rows FROM parquet_file_metadata('{opened}')").fetchall()
    columns = "|".join(COLUMNS)
    size = f"""SELECT coalesce(sum(num_values), 0), coalesce(sum(total_uncompressed_size), 0)
        FROM parquet_metadata('{opened}') WHERE regexp_matches(path_in_schema, '^({columns})(,|$)')"""
    ((values, length),) = connection.execute(size).fetchall()
    if rows > MOST_QUESTIONS or values > _MOST_VALUES or length > _MOST_BYTES:
        what = f"{path} unpacks to {rows:,} rows, {values:,} values and {length:,} bytes"
        most = f"{MOST_QUESTIONS:,}, {_MOST_VALUES:,} and {_MOST_BYTES:,}"
        raise DataError(f"{what}, of which at most {most} are read.", "Take fewer questions.")
    return int(rows)
