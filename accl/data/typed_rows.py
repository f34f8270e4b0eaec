"""Rows of question, subject, choices and answer, read by the types that a file declares for them.

A value is never guessed from one of another type: a number is no text, and 1.0 no index. Classes of the package
``datasets``, numbers with names, are read as their names.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from accl.data.builder import AUXILIARY, MOST_CHARACTERS, CorpusBuilder, Place
from accl.data.questions import LETTERS
from accl.errors import DataError, first_line

COLUMNS = ("question", "subject", "choices", "answer")

MOST_SECONDS = 120.0  # to read one file; the largest of MMLU takes one
_MEMORY = "1GB"
_ROWS_AT_ONCE = 256
_LIMITS: dict[str, Any] = {
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "memory_limit": _MEMORY,
    "temp_directory": "",
}

_TEXT = {"varchar", "enum"}
_WHOLE = {sign + size for sign in ("", "u") for size in ("tinyint", "smallint", "integer", "bigint", "hugeint")}
_AGAIN = "Fetch or write the file again."

# Names of the classes of a column, by column.
Classes = Mapping[str, Sequence[str]]


def class_names(metadata: bytes | str | None) -> dict[str, list[str]]:
    """Return the names of classes that ``datasets`` has noted in a file; empty where there is no such note."""
    try:
        features = json.loads(metadata or "{}")["info"]["features"]
        noted = {name: feature.get("names") for name, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in noted.items() if isinstance(names, list) and all(map(str, names))}


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse a file with two columns that read as one of `COLUMNS`, of which SQL would take either.

    Raises:
        DataError: as said; the columns are named.
    """
    for column in COLUMNS:
        alike = [name for name in names if name.lower() == column]
        if len(alike) > 1:
            what = f"{path} has {len(alike)} columns that read as {column}: {', '.join(alike)}."
            raise DataError(what, "Keep one of them.")


@contextmanager
def hardened(path: Path, allowed: str = "") -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory for a block that reads one file.

    It can open no other file, loads no extension, and has limits of memory and time.

    Args:
        path: the file, for messages. allowed: the path that it is opened by.

    Raises:
        DataError: the block raises an error of DuckDB's, which is taken for a fault of the file.
    """
    with duckdb.connect(":memory:", config=_LIMITS) as connection:
        if allowed:
            connection.execute(f"SET allowed_paths = ['{allowed}']")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true").fetchall()
        timer = threading.Timer(MOST_SECONDS, connection.interrupt)
        timer.start()
        try:
            yield connection
        except duckdb.InterruptException as error:
            raise DataError(f"{path} takes longer than {MOST_SECONDS:g} s to read.", _AGAIN) from error
        except duckdb.OutOfMemoryException as error:
            raise DataError(f"{path} takes more than {_MEMORY} of memory to read.", _AGAIN) from error
        except (duckdb.Error, RuntimeError, ValueError) as error:  # the latter for texts that are not UTF-8
            reason = first_line(error).replace(allowed or str(path), path.name)
            raise DataError(f"{path} cannot be read: {reason}", _AGAIN) from error
        finally:
            timer.cancel()


def add_rows(
    builder: CorpusBuilder, connection: duckdb.DuckDBPyConnection, table: str, path: Path, part: str, classes: Classes
) -> int:
    """Add all rows of a table, in order, and return their number.

    Args:
        table: SQL of the table that the file is. path: the file, for messages.

    Raises:
        DataError: a column is missing or of another type, there are no rows, or one is malformed.
    """
    selected = _select(path, part, _types(connection, table), classes)
    _check_size(connection, table, path)
    subjects, answers = classes.get("subject"), _answers(classes.get("answer"))
    found = connection.execute(f"SELECT {selected} FROM {table}")
    number = 0
    while rows := found.fetchmany(_ROWS_AT_ONCE):
        for text, subject, choices, answer in rows:
            number += 1
            place = Place(path, number)
            # Auxiliary questions train cross-entropy alone, which needs no subject.
            task = "" if part == AUXILIARY else _task(place, subject, subjects)
            for name, value in (("question", text), ("choices", choices), ("answer", answer)):
                if value is None or (name == "choices" and None in value):
                    raise place.refuse(f"column {name} has a missing value (null)")
            if answers is not None:
                if not 0 <= answer < len(answers):
                    raise place.refuse(f"answer {answer} is none of the classes 0..{len(answers) - 1}")
                answer = answers[answer]
            builder.add(place, part, task, f"{part}/{task}" if task else part, text, choices, answer)
    if not number:
        raise DataError(f"{path} holds no question.", "Fill it, or move it away.")
    return number


def _types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, Any]:
    found = connection.execute(f"SELECT * FROM {table} LIMIT 0")
    types = {name: kind for name, kind, *_ in found.description}
    found.fetchall()
    return types


def _select(path: Path, part: str, types: Mapping[str, Any], classes: Classes) -> str:
    """Check the types of the columns, and return what to select.

    Raises:
        DataError: a column is missing, or has another type than it should.
    """
    missing = [name for name in COLUMNS if name not in types]
    if missing:
        hint = f"It has: {', '.join(types)}."
        if "train" in types:  # the Hub's config `auxiliary_train` nests its rows
            hint += " Use the files of the config `all`."
        raise DataError(f"{path} has no column {', '.join(missing)}.", hint)
    question, subject, choices, answer = (types[name] for name in COLUMNS)
    named = subject.id in _WHOLE and "subject" in classes
    listed = choices.id in ("list", "array") and dict(choices.children)["child"].id in _TEXT
    for column, good, kind, wanted in (
        ("question", question.id in _TEXT, question, "text"),
        ("subject", part == AUXILIARY or subject.id in _TEXT or named, subject, "text or classes with names"),
        ("choices", listed, choices, "a list of text"),
        ("answer", answer.id in _WHOLE, answer, "an integer: the index of the right option, from 0"),
    ):
        if not good:
            raise DataError(f"{path}: column {column} is {kind} instead of {wanted}.", "Write it with that type.")
    if "answer" in classes and _answers(classes["answer"]) is None:
        names = ", ".join(map(repr, classes["answer"]))
        raise DataError(f"{path}: column answer has the classes {names[:80]} instead of letters.", "Use A, B, C, D.")
    task = "NULL" if part == AUXILIARY else "subject" if named else "CAST(subject AS VARCHAR)"
    return f"CAST(question AS VARCHAR), {task}, CAST(choices AS VARCHAR[]), answer"


def _answers(names: Sequence[str] | None) -> list[int] | None:
    """Return the option that each class of an answer means; None without classes, or where they are no letters."""
    if names is None or not set(names) <= set(LETTERS):
        return None
    return [LETTERS.index(name) for name in names]


def _check_size(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
    """Refuse more text than a corpus may have before any of it is fetched: compressed files can hold far more.

    Raises:
        DataError: the texts of a column are too long, or cannot be decoded.
    """
    for column, each in (("question", "question"), ("choices", "unnest(choices)")):
        try:
            sql = f"SELECT sum(strlen(CAST(text AS VARCHAR))) FROM (SELECT {each} AS text FROM {table})"
            ((length,),) = connection.execute(sql).fetchall()
        except duckdb.InvalidInputException as error:
            raise DataError(f"{path}: column {column} cannot be read: {first_line(error)}", _AGAIN) from error
        if (length or 0) > MOST_CHARACTERS:
            what = f"{path}: column {column} has {length:,} bytes of text, more than the {MOST_CHARACTERS:,} read."
            raise DataError(what, "Take fewer questions.")


def _task(place: Place, subject: Any, names: Sequence[str] | None) -> str:
    if isinstance(subject, int):
        if names is None or not 0 <= subject < len(names):
            raise place.refuse(f"subject {subject} is none of the {len(names or ())} classes that column subject has")
        subject = names[subject]
    task = (subject or "").strip()
    if not task:
        raise place.refuse("the subject is empty", "Only auxiliary_train may have questions without.")
    return str(task)
