"""The watcher's side of ``run.duckdb``: short reads that never keep the trainer waiting.

`query` reads once; a `Follower` keeps what it has read and asks only for what is new.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from accl.errors import RunError
from accl.store.rundir import RunDir
from accl.store.schema import COLUMNS, SCHEMA_VERSION

# The trainer holds the file for about 5 ms once a second.
TRIES = 8
TRY_AGAIN_S = 0.01

_connection: duckdb.DuckDBPyConnection | None = None
_lock = threading.Lock()


class StoreBusyError(RunError):
    """The trainer holds the file just now, or it is not there yet. Look again later."""


def query(database: Path, *statements: tuple[str, Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, read under one attach. Tables are named ``run.<table>``.

    Raises:
        StoreBusyError: the file stayed locked, or does not exist yet.
        RunError: the file is not a database, or not of this schema.
    """
    global _connection
    path = str(database).replace("'", "''")
    # One attach at a time in this process: DuckDB refuses to attach a file twice.
    with _lock:
        if _connection is None:
            _connection = duckdb.connect(":memory:")
        for attempt in range(TRIES):
            try:
                _connection.execute(f"ATTACH '{path}' AS run (READ_ONLY)").fetchall()
                break
            except (duckdb.IOException, duckdb.ResourceInUseException) as error:
                reason = str(error).splitlines()[0]
                if "not a valid DuckDB" in reason:
                    raise RunError(f"{database} is not a DuckDB file.", "The run directory is damaged.") from error
                if not database.exists() or attempt == TRIES - 1:
                    raise StoreBusyError(f"{database} cannot be read now: {reason}", "Try again.") from error
                time.sleep(TRY_AGAIN_S)
        try:
            return [_connection.execute(sql, list(values)).fetchall() for sql, values in statements]
        except duckdb.BinderException as error:
            raise RunError(
                f"{database} was written by another version of accl: {str(error).splitlines()[0]}",
                "Read it with the accl that wrote it.",
            ) from error
        except duckdb.CatalogException as error:
            raise StoreBusyError(f"{database} has no such table yet: {str(error).splitlines()[0]}") from error
        finally:
            _connection.execute("DETACH run").fetchall()


@dataclass
class Series:
    """One metric over time. Parallel lists; `array` gives numpy."""

    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def array(self, axis: str = "steps") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(x, y) with x one of ``steps``, ``epochs``, ``seconds``."""
        return np.asarray(getattr(self, axis), dtype=np.float64), np.asarray(self.values, dtype=np.float64)


@dataclass(frozen=True)
class Task:
    """A task as the run recorded it."""

    index: int
    name: str
    subcategory: str
    category: str


@dataclass(frozen=True)
class Weights:
    """The task distribution in force from ``step`` on: weights p_K, and questions drawn of each task so far."""

    step: int
    policy: str
    weights: NDArray[np.float64]
    drawn: NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """A K x K task confusion matrix; ``counts`` says how many pairs each cell is made of (0: never seen)."""

    step: int
    kind: str
    matrix: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a split.

    Attributes:
        n: number of questions.
        values: every metric by name; one that was not measured is missing.
    """

    step: int
    split: str
    n: int
    values: dict[str, float]

    def value(self, name: str) -> float:
        """Return a metric, or NaN where it was not measured."""
        return self.values.get(name, float("nan"))


def evaluation_from_row(row: tuple[Any, ...]) -> Evaluation:
    step, split, n, *values = row
    named = zip(COLUMNS["evals"][4:], values, strict=True)
    return Evaluation(step, split, n, {name: value for name, value in named if value is not None})


@dataclass(frozen=True)
class Event:
    """Something worth telling: a fallback taken, a setting ignored, a phase begun."""

    seconds: float
    level: str
    kind: str
    message: str


_FOLLOW: dict[str, str] = {
    "metrics": "seq, step, epoch, seconds, name, value",
    "curriculum": "seq, step, policy, weights, drawn",
    "confusion": "seq, step, kind, matrix, counts",
    "evals": "seq, step, split, n, loss, accuracy, macro_accuracy, ece, brier",
    "system": "seq, seconds, gpu_util, gpu_memory, power, cpu, rss",
    "events": "seq, seconds, level, kind, message",
}
SYSTEM_NAMES = ("gpu_util", "gpu_memory", "power", "cpu", "rss")


class Follower:
    """Keeps up with one run while it trains.

    `refresh` fetches what is new. When the file cannot be read just now the old content stays, and
    `stale_seconds` says how old it is.

    Attributes:
        tasks: the K tasks, in index order.
        series: metric name -> `Series`.
        curriculum: every `Weights` so far, oldest first.
        confusion: kind -> newest `Confusion`.
        evaluations: every `Evaluation` so far, oldest first.
        task_accuracy: split -> (step, n_K, correct_K) of the newest evaluation of that split.
        system: name of ``SYSTEM_NAMES`` -> (seconds, values).
        events: every `Event` so far, oldest first.
        meta: what ``meta`` holds: floors of the evaluation splits among them.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._signature: tuple[int, ...] = ()
        self._last_good = time.monotonic()
        self._failed = False
        self._reset("")

    def _reset(self, generation: str) -> None:
        self._generation = generation
        self._cursor = dict.fromkeys(_FOLLOW, -1)
        self.tasks: list[Task] = []
        self.series: dict[str, Series] = {}
        self.curriculum: list[Weights] = []
        self.confusion: dict[str, Confusion] = {}
        self.evaluations: list[Evaluation] = []
        self.task_accuracy: dict[str, tuple[int, NDArray[np.int64], NDArray[np.int64]]] = {}
        self.system: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SYSTEM_NAMES}
        self.events: list[Event] = []
        self.meta: dict[str, str] = {}

    @property
    def stale_seconds(self) -> float:
        """Age of the content in seconds while the file cannot be read; 0 when the last look succeeded."""
        return time.monotonic() - self._last_good if self._failed else 0.0

    def refresh(self) -> bool:
        """Fetch what is new; True when there was something.

        Raises:
            RunError: the file is damaged or of another schema. A file that is merely locked raises nothing.
        """
        signature = _signature(self.run.database)
        if signature == self._signature and not self._failed:
            return False
        try:
            rows = query(
                self.run.database,
                ("SELECT key, value FROM run.meta", ()),
                *(
                    (f"SELECT {columns} FROM run.{table} WHERE seq > ? ORDER BY seq", (self._cursor[table],))
                    for table, columns in _FOLLOW.items()
                ),
                ("SELECT task, name, subcategory, category FROM run.tasks ORDER BY task", ()),
                (
                    "SELECT t.split, t.step, t.task, t.n, t.correct FROM run.task_evals t JOIN "
                    "(SELECT split, max(step) AS step FROM run.task_evals GROUP BY split) m USING (split, step) "
                    "ORDER BY t.split, t.task",
                    (),
                ),
            )
        except StoreBusyError:
            self._failed = self.run.database.exists()
            return False
        self._failed, self._last_good, self._signature = False, time.monotonic(), signature
        return self._take(rows)

    def _take(self, rows: list[list[tuple[Any, ...]]]) -> bool:
        meta_rows, *followed, tasks, task_evals = rows
        meta = {str(key): str(value) for key, value in meta_rows}
        if meta.get("schema_version") != str(SCHEMA_VERSION):
            raise RunError(
                f"{self.run.database} has schema {meta.get('schema_version', '?')}, this accl reads {SCHEMA_VERSION}.",
                "Read it with the accl that wrote it.",
            )
        generation = meta.get("generation", "")
        if generation != self._generation:
            first_look = self._generation == ""
            self._reset(generation)
            if not first_look:  # resumed from an earlier step: what was read after it no longer holds
                self._signature = ()
                return self.refresh()
        self.meta = meta
        self.tasks = [Task(*row) for row in tasks]
        new = dict(zip(_FOLLOW, followed, strict=True))
        for table, found in new.items():
            if found:
                self._cursor[table] = int(found[-1][0])
        for _, step, epoch, seconds, name, value in new["metrics"]:
            series = self.series.setdefault(name, Series())
            series.steps.append(step)
            series.epochs.append(epoch)
            series.seconds.append(seconds)
            series.values.append(value if value is not None else float("nan"))
        for _, step, policy, weights, drawn in new["curriculum"]:
            self.curriculum.append(Weights(step, policy, np.asarray(weights, float), np.asarray(drawn, np.int64)))
        for _, step, kind, matrix, counts in new["confusion"]:
            k = round(len(matrix) ** 0.5)
            self.confusion[kind] = Confusion(
                step,
                kind,
                np.asarray(matrix, float).reshape(k, k),
                np.asarray(counts, np.int64).reshape(k, k),
            )
        self.evaluations += [evaluation_from_row(row[1:]) for row in new["evals"]]
        for _, seconds, *values in new["system"]:
            for name, value in zip(SYSTEM_NAMES, values, strict=True):
                if value is not None:
                    self.system[name][0].append(seconds)
                    self.system[name][1].append(value)
        self.events += [Event(*row[1:]) for row in new["events"]]
        self._take_task_evals(task_evals)
        return any(new.values())

    def _take_task_evals(self, rows: list[tuple[Any, ...]]) -> None:
        k = len(self.tasks)
        for split in {row[0] for row in rows}:
            n, correct = np.zeros(k, np.int64), np.zeros(k, np.int64)
            step = 0
            for row_split, row_step, task, row_n, row_correct in rows:
                if row_split == split:
                    step, n[task], correct[task] = row_step, row_n, row_correct
            self.task_accuracy[split] = (step, n, correct)


def _signature(database: Path) -> tuple[int, ...]:
    """Changes whenever the file or its write-ahead log does; a look costs two stat calls."""
    marks: list[int] = []
    for path in (str(database), f"{database}.wal"):
        try:
            stat = os.stat(path)
            marks += [stat.st_mtime_ns, stat.st_size]
        except FileNotFoundError:
            marks += [0, 0]
    return tuple(marks)
