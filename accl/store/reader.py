"""Reading ``run.duckdb`` in short attaches that do not keep the trainer waiting, and what its rows mean.

`query` reads once; `accl.store.columns.RunReader` keeps what it has read and fetches only what is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.errors import DamagedError
from accl.store.database import DAMAGED_HINT, Row, Session, database_at
from accl.store.schema import check_rows, old_evals
from accl.store.spool import MERGED, RUN, read_spool, spool_of
from accl.store.united import unite

Execute = Callable[..., list[Row]]
TASKS = "SELECT task, name, subcategory, category FROM run.tasks ORDER BY task"


@contextmanager
def attached(database: Path) -> Iterator[Session]:
    """Attach a database read-only for a block, as ``run``, together with the rows that wait in the spool.

    Yields:
        What returns all rows of a statement and its parameters.

    Raises:
        BusyError: another process holds the file, or its disk does not answer.
        DamagedError: it is no database, or its tables are not those of a run.
        AbsentError: there is neither a table nor a spool.
        RunError: it has a later schema.
    """
    spool = spool_of(database)
    spooled = os.path.lexists(spool)
    with database_at(database).attached(beside=spooled) as session:
        if spooled:
            # Nobody merges while the file is attached, so this is what `merged_spool` does not count yet.
            waiting = read_spool(spool, session.meta.get(MERGED, ""), run=session.meta.get(RUN, ""))
            unite(session, waiting.rows)
            if waiting.damaged or waiting.torn:
                session.left_out.append(spool.name)
        yield session


def query(database: Path, *statements: tuple[str, Sequence[Any]]) -> list[list[Row]]:
    """Return the rows of each statement, read under one attach. Tables are named ``run.<table>``.

    Raises:
        RunError: as `attached`.
    """
    with attached(database) as execute:
        return [execute(sql, *values) for sql, values in statements]


def read_meta(execute: Execute) -> dict[str, str]:
    """Return the ``meta`` table of an attached database."""
    return {str(key): str(value) for key, value in execute("SELECT key, value FROM run.meta")}


def read_evals(execute: Execute, version: str, after: int = -1) -> list[Row]:
    """Return the rows of ``evals`` (seq, step, split, name, value) with ``seq > after``, of either schema."""
    if version == "1":
        return old_evals(execute, "run", after)
    return execute("SELECT seq, step, split, name, value FROM run.evals WHERE seq > ? ORDER BY seq", after)


@contextmanager
def checking(database: Path) -> Iterator[None]:
    """Say of a block that a `ValueError` or `OverflowError` in it means a damaged database."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise DamagedError(f"{database} is damaged: it holds what no run records ({error}).", DAMAGED_HINT) from error


@dataclass(frozen=True)
class Task:
    """A task of the run: its index and its place in the taxonomy."""

    index: int
    name: str
    subcategory: str
    category: str


def read_tasks(rows: Sequence[Row]) -> list[Task]:
    """Return the K tasks of rows in index order.

    Raises:
        ValueError: their indices are not 0..K-1, or one has no name.
    """
    check_rows("tasks", rows)
    if [row[0] for row in rows] != list(range(len(rows))):
        raise ValueError("indices of tasks that are not 0, 1, 2 ...")
    return [Task(*row) for row in rows]


@dataclass(frozen=True)
class Confusion:
    """K x K task confusion matrix, and the number of pairs behind each cell (0: none, the cell is NaN)."""

    step: int
    kind: str
    matrix: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of n questions of a split: every metric that was measured by name."""

    step: int
    split: str
    n: int
    values: dict[str, float]

    def value(self, name: str) -> float:
        """Return a metric, or NaN where it was not measured."""
        return self.values.get(name, float("nan"))


def group_evaluations(rows: Sequence[Row]) -> list[Evaluation]:
    """Gather rows of `read_evals` into evaluations, oldest first."""
    grouped: list[tuple[int, str, dict[str, float]]] = []
    for _, step, split, name, value in rows:
        # A name that comes twice belongs to a second evaluation at the same step, by a run resumed from there.
        if not grouped or grouped[-1][:2] != (step, split) or name in grouped[-1][2]:
            grouped.append((step, split, {}))
        if value is not None:
            grouped[-1][2][name] = value
    return [Evaluation(step, split, int(values.pop("n", 0)), values) for step, split, values in grouped]


@dataclass(frozen=True)
class Event:
    """An event of the run, such as a fallback taken, a setting ignored or a phase begun."""

    seconds: float
    level: str
    kind: str
    message: str
