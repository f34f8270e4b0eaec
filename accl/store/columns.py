"""The measurements of one run as columns, kept up to date while it trains; what nobody needs is not read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from accl.errors import AbsentError, BusyError, DamagedError, RunError
from accl.store.bins import Metrics, named, read_curves, shift_of
from accl.store.curve import Curve
from accl.store.database import Session
from accl.store.measurements import (
    READERS,
    Changes,
    Measurements,
    evaluated_curves,
    of_tests,
    place_tests,
    read_confusions,
    read_task_accuracy,
)
from accl.store.reader import (
    TASKS,
    Confusion,
    Evaluation,
    attached,
    checking,
    group_evaluations,
    read_evals,
    read_tasks,
)
from accl.store.rundir import RunDir
from accl.store.schema import check_rows
from accl.store.spool import spool_of

# Tables read for each need.
NEEDS = {
    "curves": ("metrics", "evals"),
    "curriculum": ("curriculum",),
    "confusion": ("confusion",),
    "tasks": ("evals", "task_evals"),
    "events": ("events",),
    "system": ("system",),
}
ALL = frozenset(NEEDS)


@dataclass
class _Position:
    """How far a generation of the database was read.

    Attributes:
        cursors: last ``seq`` by table.
        signatures: of the files when a table was read, by table.
        evaluations: as recorded.
        drawn: metrics and evaluations that the curves are made of.
    """

    generation: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    cursors: dict[str, int] = field(default_factory=dict)
    signatures: dict[str, tuple[int, ...]] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    drawn: tuple[Metrics, tuple[Evaluation, ...]] | None = None


class RunReader:
    """Measurements of one run, kept up to date while it trains.

    While the database cannot be read `last` stays as it is, and `stale_seconds` says how old it is.

    Attributes:
        last: what was read.
        left_out: what could not be read of what lies beside the database; None when nothing is left out.
        problem: why the last `refresh` could not read: busy or absent; None when it could.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.last = Measurements()
        self.problem: BusyError | AbsentError | None = None
        self.left_out: DamagedError | None = None
        self._position = _Position()
        self._last_good = time.monotonic()

    @property
    def stale_seconds(self) -> float:
        """Age of the content in seconds while the database cannot be read; 0 after a successful read."""
        return time.monotonic() - self._last_good if isinstance(self.problem, BusyError) else 0.0

    def read(self, needs: Iterable[str] = ALL) -> Measurements:
        """Return the measurements after a `refresh`.

        Raises:
            RunError: as `refresh`, and where the database is busy or absent.
        """
        self.refresh(needs)
        if self.problem is not None:
            raise self.problem
        return self.last

    def refresh(self, needs: Iterable[str] = ALL) -> bool:
        """Fetch what is new of what is needed, names of `NEEDS`, and return whether there was anything.

        A database that is locked or does not exist yet raises nothing: `problem` says it.

        Raises:
            DamagedError: the file is damaged.
            RunError: the file has a later schema.
        """
        wanted = {table for need in needs for table in NEEDS.get(need, ())}
        signature = signature_of(self.run.database)
        if self.problem is None and all(self._position.signatures.get(table) == signature for table in wanted):
            return False
        try:
            with checking(self.run.database), attached(self.run.database) as session:
                position, last = self._read(session, wanted)
        except (BusyError, AbsentError) as error:
            self.problem = error
            return False
        position.signatures |= dict.fromkeys(wanted, signature)
        self.problem, self._last_good, self._position = None, time.monotonic(), position
        self.left_out = None
        if session.left_out:
            what = f"{' and '.join(session.left_out)} in {self.run.path} cannot be read whole."
            self.left_out = DamagedError(what, "Some measurements may be missing; what could be read is shown.")
        if last is self.last:
            return False
        self.last = replace(last, version=self.last.version + 1)
        return True

    def confusion_at(self, kind: str, step: int) -> Confusion | None:
        """Read the matrix of a kind at a step of ``confusion_steps``; None if it is no longer there.

        Raises:
            RunError: as `attached`.
        """
        return next(iter(self.confusions(kind, [step])), None)

    def confusions(self, kind: str, steps: Sequence[int]) -> list[Confusion]:
        """Read the matrices of a kind at steps, ascending; those that are no longer there are left out.

        Raises:
            RunError: as `attached`.
        """
        with checking(self.run.database), attached(self.run.database) as session:
            return read_confusions(session, kind, steps, len(self.last.tasks))

    def zoomed(self, names: Sequence[str], low: int, high: int) -> dict[str, Curve]:
        """Read the curves of metrics between two steps, both included, in bins as small as fit; evaluations have none.

        Raises:
            RunError: as `attached`.
        """
        condition = f"{named(names)} AND step BETWEEN ? AND ?"
        with attached(self.run.database) as session:
            return read_curves(session, shift_of(high - low), self._batch_size, condition, *names, low, high)

    def values_at(self, step: int) -> dict[str, float]:
        """Read the exact values recorded at a step, by metric as in ``curves``.

        Raises:
            RunError: as `attached`.
        """
        values = {
            f"{evaluation.split}/{name}": value
            for evaluation in self.last.evaluations
            if evaluation.step == step
            for name, value in evaluation.values.items()
        }
        with attached(self.run.database) as session:
            rows = session("SELECT name, value FROM run.metrics WHERE step = ? ORDER BY seq", step)
        return values | {name: float("nan") if value is None else value for name, value in rows}

    @cached_property
    def _batch_size(self) -> float:
        with suppress(RunError):
            return self.run.setup().batch_size or float("nan")
        return float("nan")

    def _read(self, session: Session, wanted: set[str]) -> tuple[_Position, Measurements]:
        """Read what is new of tables; nothing changes if it raises."""
        meta = session.meta
        before, last = self._position, self.last
        # Resumed from an earlier step: rows read of later steps no longer hold.
        if (generation := meta.get("generation", "")) != before.generation:
            before, last = _Position(generation), Measurements(version=last.version)
        position = replace(before, cursors=before.cursors.copy(), signatures=before.signatures.copy())
        tasks = last.tasks or tuple(read_tasks(session(TASKS)))
        if (meta, tasks) != (last.meta, last.tasks):
            last = replace(last, meta=meta, tasks=tasks)
        changes: Changes = {}
        for table in wanted & READERS.keys():
            position.cursors[table], changed = READERS[table](session, before.cursors.get(table, -1), last)
            changes |= changed
        if "task_evals" in wanted:
            changes |= read_task_accuracy(session, last)
        if "evals" in wanted:
            changes |= self._read_evals(session, position, last)
        if "metrics" in wanted:
            position.metrics = before.metrics.grown(session, self._batch_size)
            evaluations = changes.get("evaluations", last.evaluations)
            position.drawn = position.metrics, evaluations
            if before.drawn is None or any(a is not b for a, b in zip(before.drawn, position.drawn, strict=True)):
                curves, newest = evaluated_curves(evaluations, position.metrics.curves, self._batch_size)
                changes["curves"] = curves | position.metrics.curves | of_tests(curves)
                changes["newest"] = newest | position.metrics.newest
        return position, replace(last, **changes) if changes else last

    def _read_evals(self, session: Session, position: _Position, last: Measurements) -> Changes:
        rows = read_evals(session, last.meta["schema_version"], position.cursors.get("evals", -1))
        check_rows("evals", rows)
        for seq, _, _, name, value in rows:
            if name == "n" and value is not None and not 0 <= value < 2**53:
                raise ValueError(f"evals.value of n out of range at seq {seq}")
        if rows:
            position.cursors["evals"] = rows[-1][0]
            position.evaluations = (*position.evaluations, *group_evaluations(rows))
        evaluations = place_tests(position.evaluations, last.tested_step)
        return {} if repr(evaluations) == repr(last.evaluations) else {"evaluations": evaluations}


def signature_of(database: Path) -> tuple[int, ...]:
    """Return times and sizes of the file, its write-ahead log and the spool, which change with every append."""
    marks: list[int] = []
    for path in (str(database), f"{database}.wal", str(spool_of(database))):
        with suppress(OSError):
            stat = os.stat(path)
            marks += [stat.st_mtime_ns, stat.st_size]
    return tuple(marks)
