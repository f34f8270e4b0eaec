"""Reading ``run.duckdb`` in short attaches that do not keep the trainer waiting.

`query` reads once; a `Follower` keeps what it has read and fetches only what is new.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.errors import AbsentError, BusyError, DamagedError
from accl.store.database import DAMAGED_HINT, Row, Session, database_at
from accl.store.rundir import RunDir
from accl.store.schema import COLUMNS, FOLLOWED, check_rows, old_evals
from accl.store.spool import MERGED, RUN, read_spool, spool_of
from accl.store.united import unite

Execute = Callable[..., list[Row]]


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


@dataclass
class Series:
    """One metric over time, as parallel lists; ``seconds`` are running time, pauses between resumes left out."""

    steps: list[int] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def append(self, step: int, epoch: float, seconds: float, value: float | None) -> None:
        """Add a value; None becomes NaN."""
        self.steps.append(step)
        self.epochs.append(epoch)
        self.seconds.append(seconds)
        self.values.append(float("nan") if value is None else value)

    def array(self, axis: str = "steps") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (x, y) as arrays; ``axis`` is one of ``steps``, ``epochs``, ``seconds``."""
        return np.asarray(getattr(self, axis), dtype=np.float64), np.asarray(self.values, dtype=np.float64)


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
class Weights:
    """Task distribution in force from ``step`` on: weights p_K, and questions drawn of each task so far."""

    step: int
    policy: str
    weights: NDArray[np.float64]
    drawn: NDArray[np.int64]


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


_FOLLOW = {table: ", ".join(COLUMNS[table]) for table in FOLLOWED if table != "evals"}
TASKS = "SELECT task, name, subcategory, category FROM run.tasks ORDER BY task"
_TASK_EVALS = (
    "SELECT t.step, t.split, t.task, t.n, t.correct FROM run.task_evals t JOIN "
    "(SELECT split, max(step) AS step FROM run.task_evals GROUP BY split) m USING (split, step) "
    "ORDER BY t.split, t.task"
)
SYSTEM_NAMES = tuple(COLUMNS["system"][2:])


class Follower:
    """Measurements of one run, kept up to date while it trains.

    `refresh` fetches what is new. While the database cannot be read the old content stays, and `stale_seconds` says
    how old it is.

    Attributes:
        tasks: K tasks, in index order.
        series: `Series` by metric. A metric of evaluations is named ``{split}/{name}``, and taken from the
            ``metrics`` table where it was recorded there as well.
        curriculum, evaluations, events: all of them, oldest first.
        confusion: newest `Confusion` by kind.
        task_accuracy: (step, n_K, correct_K) of the newest evaluation, by split.
        system: (seconds, values) by name of ``SYSTEM_NAMES``.
        meta: the ``meta`` table: trivial baselines and totals among others.
        left_out: what could not be read of what lies beside the database; None when nothing is left out.
        problem: why the last `refresh` could not read: busy or absent; None when it could.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._signature: tuple[int, ...] | None = None  # of the last read
        self._last_good = time.monotonic()
        self.problem: BusyError | AbsentError | None = None
        self.left_out: DamagedError | None = None
        self._reset("")

    def _reset(self, generation: str) -> None:
        self._generation = generation
        self._cursor = dict.fromkeys(FOLLOWED, -1)
        self.tasks: list[Task] = []
        self.series: dict[str, Series] = {}
        self._recorded: dict[str, Series] = {}
        self._evaluated: dict[str, Series] = {}
        self.curriculum: list[Weights] = []
        self.confusion: dict[str, Confusion] = {}
        self.evaluations: list[Evaluation] = []
        self.task_accuracy: dict[str, tuple[int, NDArray[np.int64], NDArray[np.int64]]] = {}
        self.system: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SYSTEM_NAMES}
        self.events: list[Event] = []
        self.meta: dict[str, str] = {}

    @property
    def stale_seconds(self) -> float:
        """Age of the content in seconds while the database cannot be read; 0 after a successful read."""
        return time.monotonic() - self._last_good if isinstance(self.problem, BusyError) else 0.0

    def refresh(self) -> bool:
        """Fetch what is new, and return whether there was anything.

        A database that is locked or does not exist yet raises nothing: `problem` says it.

        Raises:
            DamagedError: the file is damaged.
            RunError: the file has a later schema.
        """
        signature = _signature(self.run.database)
        if signature == self._signature and self.problem is None:
            return False
        try:
            with attached(self.run.database) as execute:
                meta = read_meta(execute)
                new = {
                    table: execute(f"SELECT {columns} FROM run.{table} WHERE seq > ? ORDER BY seq", self._cursor[table])
                    for table, columns in _FOLLOW.items()
                }
                new["evals"] = read_evals(execute, meta["schema_version"], self._cursor["evals"])
                tasks, task_evals = execute(TASKS), execute(_TASK_EVALS)
        except (BusyError, AbsentError) as error:
            self.problem = error
            return False
        self.problem = None
        with checking(self.run.database):
            k_tasks = read_tasks(tasks)
            _check(new, task_evals, len(tasks))
        self._last_good, self._signature = time.monotonic(), signature
        self.left_out = None
        if execute.left_out:
            what = f"{' and '.join(execute.left_out)} in {self.run.path} cannot be read whole."
            self.left_out = DamagedError(what, "Some measurements may be missing; what could be read is shown.")
        generation = meta.get("generation", "")
        if generation != self._generation:
            first_read = self._generation == ""
            self._reset(generation)
            if not first_read:  # resumed from an earlier step: rows read of later steps no longer hold
                self._signature = None
                return self.refresh()
        self.meta, self.tasks = meta, k_tasks
        self._add(new)
        self._set_task_accuracy(task_evals)
        return any(new.values())

    def _add(self, new: dict[str, list[Row]]) -> None:
        for table, rows in new.items():
            if rows:
                self._cursor[table] = int(rows[-1][0])
        for _, step, epoch, seconds, name, value in new["metrics"]:
            self._recorded.setdefault(name, Series()).append(step, epoch, seconds, value)
        self._add_evaluations(group_evaluations(new["evals"]))
        self.series = {**self._evaluated, **self._recorded}
        for _, step, policy, weights, drawn in new["curriculum"]:
            self.curriculum.append(Weights(step, policy, np.asarray(weights, float), np.asarray(drawn, np.int64)))
        for _, step, kind, matrix, counts in new["confusion"]:
            k = round(len(matrix) ** 0.5)
            cells, pairs = np.asarray(matrix, float), np.asarray(counts, np.int64)
            self.confusion[kind] = Confusion(step, kind, cells.reshape(k, k), pairs.reshape(k, k))
        for _, seconds, *values in new["system"]:
            for name, value in zip(SYSTEM_NAMES, values, strict=True):
                if value is not None:
                    self.system[name][0].append(seconds)
                    self.system[name][1].append(value)
        self.events += [Event(*row[1:]) for row in new["events"]]

    def _add_evaluations(self, evaluations: list[Evaluation]) -> None:
        self.evaluations += evaluations
        for evaluation in evaluations:
            epoch, seconds = self._time_of(evaluation.step)
            for name, value in evaluation.values.items():
                series = self._evaluated.setdefault(f"{evaluation.split}/{name}", Series())
                series.append(evaluation.step, epoch, seconds, value)

    def _time_of(self, step: int) -> tuple[float, float]:
        """Return epoch and seconds of the newest step up to this one that has a metric; zeros when there is none."""
        times = [
            (series.steps[i], series.epochs[i], series.seconds[i])
            for series in self._recorded.values()
            if (i := bisect_right(series.steps, step) - 1) >= 0
        ]
        return max(times, default=(0, 0.0, 0.0))[1:]

    def _set_task_accuracy(self, rows: list[tuple[Any, ...]]) -> None:
        if not self.tasks:  # lost with the database; the spool alone has none
            return
        for split, members in groupby(rows, key=itemgetter(1)):
            of_split, counts = list(members), np.zeros((2, len(self.tasks)), np.int64)
            for _, _, task, *numbers in of_split:
                counts[:, task] = numbers
            self.task_accuracy[split] = (of_split[0][0], counts[0], counts[1])


def _check(new: dict[str, list[Row]], task_evals: list[Row], k: int) -> None:
    """Make sure that rows are such as a run of ``k`` tasks records; of no task where those were lost.

    Raises:
        ValueError: they are not.
    """
    for table, rows in (*new.items(), ("task_evals", task_evals)):
        check_rows(table, rows)
    for seq, _, _, name, value in new["evals"]:
        if name == "n" and value is not None and not 0 <= value < 2**53:
            raise ValueError(f"evals.value of n out of range at seq {seq}")
    for table, cells in (("curriculum", k), ("confusion", k * k)):
        if k and any(not len(first) == len(second) == cells for *_, first, second in new[table]):
            raise ValueError(f"lists in {table} that are not of {k} tasks")
    if k and any(not (0 <= task < k and 0 <= correct <= n) for _, _, task, n, correct in task_evals):
        raise ValueError("counts in task_evals that cannot be")


def _signature(database: Path) -> tuple[int, ...]:
    """Return times and sizes of the file, its write-ahead log and the spool, which change with every append."""
    marks: list[int] = []
    for path in (str(database), f"{database}.wal", str(spool_of(database))):
        with suppress(OSError):
            stat = os.stat(path)
            marks += [stat.st_mtime_ns, stat.st_size]
    return tuple(marks)
