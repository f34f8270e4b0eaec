"""Runs from Python: `runs` finds them, `load` takes one, and what they measured comes as pandas or polars frames.

::

    import accl

    accl.load("last").metrics("train/loss")
    accl.runs("state:finished").frame().sort_values("validation/accuracy")
    accl.runs("experiment:lr", frame="polars").evals()

What the command line can read, this reads too: runs that train, rows that wait in a spool, databases of earlier
versions. What cannot be read is an error of `accl.errors`: busy, damaged or absent.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from accl.dataframes import FrameT, Library
from accl.errors import AbsentError, AcclError
from accl.store.columns import RunReader
from accl.store.deadline import within
from accl.store.experiment import read_experiment
from accl.store.frames import EVALS, METRICS, PREDICTIONS, beside, eval_rows, metric_rows, prediction_rows
from accl.store.labels import Labels, read_labels
from accl.store.rundir import RunDir, Setup, find_run, run_folders
from accl.store.selection import matching_summaries
from accl.store.sql import run_sql
from accl.store.state import RunState, State, observe
from accl.store.summary import Summary, reading, summarize
from accl.store.tables import READ_S, RunLabel, RunTables, empty_tables, read_tables, run_label, runs_table

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from accl.config import Config

Result = TypeVar("Result")
Folder = str | os.PathLike[str]
Rows = Callable[[RunTables], "pyarrow.Table"]


class Run(Generic[FrameT]):
    """One run. What is asked for is read then, so that a run that trains has moved on each time.

    Frames are of the library that `load` or `runs` was asked for.
    """

    def __init__(self, run: RunDir, library: Library[FrameT]) -> None:
        self._run, self._library = run, library

    def __repr__(self) -> str:
        return f"<accl.Run {self.id}>"

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self._run.id

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._run.path

    @property
    def state(self) -> State:
        """State of the run, assessed now: a text such as ``finished``.

        Raises:
            BusyError, DamagedError, AbsentError: it cannot be read.
        """
        return self.status.state

    @property
    def status(self) -> RunState:
        """All that is known of how it goes: its state, step, newest figures (``latest``), times and reason.

        Raises:
            BusyError, DamagedError, AbsentError: it cannot be read.
        """
        return self._read(lambda: observe(self._run))

    @property
    def config(self) -> Config:
        """Its whole configuration, as in ``run.config.optim.lr``.

        Raises:
            BusyError, DamagedError, AbsentError: it cannot be read.
        """
        return self._read(self._run.load_config)

    @property
    def setup(self) -> Setup:
        """Its recipe, profile and seed, without validating the rest of the configuration.

        Raises:
            BusyError, DamagedError, AbsentError: they cannot be read.
        """
        return self._read(self._run.setup)

    @property
    def labels(self) -> Labels:
        """Name, tags and note that people gave it; empty where they cannot be read."""
        return self._read(lambda: read_labels(self._run))

    @property
    def experiment(self) -> str:
        """Name of the experiment that it belongs to; empty for none."""
        return self._read(lambda: read_experiment(self._run))

    def metrics(self, *names: str) -> FrameT:
        """Return logged values, one row each, in the order in which they were recorded.

        Columns are step (optimizer steps done), epoch, seconds (running time), name and value.

        Args:
            names: metrics, such as ``train/loss``; all of them when none is named.

        Raises:
            BusyError, DamagedError: the measurements cannot be read.
            AbsentError: nothing is recorded (yet), or no metric of these names.
        """
        rows = self._rows(METRICS, lambda read: metric_rows(read, names))
        if names and not len(rows):
            raise AbsentError(f"{self.id} has no metric named {' or '.join(names)}.", "All of them: run.metrics()")
        return self._library.frame(rows)

    def evals(self) -> FrameT:
        """Return the evaluations, oldest first, with a column for every metric that was measured.

        Columns are step, split, n (number of questions), and metrics such as accuracy and loss. The test has the step
        of the weights that it tested.

        Raises:
            BusyError, DamagedError, AbsentError: the measurements cannot be read.
        """
        return self._library.frame(self._rows(EVALS, eval_rows))

    def predictions(self, split: str = "test") -> FrameT:
        """Return the answers to the questions of a split, in the order of tasks and ids.

        Columns are question_id, task (index), task_name, subcategory, category, gold and predicted (option indices),
        correct, confidence (probability of the predicted option) and probabilities (of the C options).

        Args:
            split: ``test``, or ``validation`` for the answers of the best validation so far.

        Raises:
            BusyError, DamagedError: the measurements cannot be read.
            AbsentError: nothing is recorded (yet), or no answers of the split.
        """
        rows = self._rows(PREDICTIONS, lambda read: prediction_rows(read, split))
        if not len(rows):
            hint = f"accl test {self._run.typed}" if split == "test" else 'Splits are "test" and "validation".'
            raise AbsentError(f"{self.id} has no answers to {split} questions.", hint)
        return self._library.frame(rows)

    def confusion(self, kind: str = "similarity", step: int | None = None) -> FrameT:
        """Return a task confusion matrix, K x K; NaN where no pair was seen.

        A pandas frame has the tasks as index and columns; a polars frame, which has no index, has them in a first
        column named task.

        Args:
            kind: ``similarity``, which the curriculum tracks; of the test ``similarity/test`` or ``prototype/test``.
            step: of one of its matrices; the newest when None.

        Raises:
            BusyError, DamagedError: the measurements cannot be read.
            AbsentError: nothing is recorded (yet), or no such matrix.
        """
        reader = RunReader(self._run)
        measured = self._read(lambda: reader.read(("confusion",)))
        steps = measured.confusion_steps.get(kind, ())
        if not steps:
            kinds = ", ".join(measured.confusion_steps) or "none"
            raise AbsentError(f"{self.id} has no confusion matrix of the kind {kind}.", f"Its kinds are: {kinds}")
        found = measured.confusion[kind] if step is None else self._read(lambda: reader.confusion_at(kind, step))
        if found is None:
            newest = ", ".join(map(str, steps[-3:]))
            raise AbsentError(f"{self.id} has no {kind} matrix of step {step}.", f"The newest are of: {newest}")
        names = [task.name for task in measured.tasks] or [str(i) for i in range(len(found.matrix))]
        return self._library.matrix(names, found.matrix)

    def sql(self, query: str) -> FrameT:
        """Return the rows of a query over the tables of the run, as ``accl sql`` runs it.

        Raises:
            AcclError: DuckDB refuses it, or it takes too long.
            BusyError, DamagedError, AbsentError: the measurements cannot be read.
        """
        answer = run_sql(query, summarize([self._run]))
        for error in answer.unread.values():
            raise error
        for error in answer.partial.values():
            warnings.warn(str(error), stacklevel=2)
        return self._library.frame(answer.rows)

    def _rows(self, names: Sequence[str], make: Rows) -> pyarrow.Table:
        rows, left_out = _read_rows(self._run, names, make)
        if left_out:
            warnings.warn(str(left_out), stacklevel=3)
        return rows

    def _read(self, read: Callable[[], Result]) -> Result:
        with reading(self.path):
            return within(READ_S, read)


class Runs(Sequence[Run[FrameT]]):
    """Several runs, the newest first; a slice of them is `Runs` again.

    The frames of all of them begin with the columns run (the id), recipe and seed. Runs without measurements (yet) are
    not in them; one that cannot be read is left out with a warning, and is an error where no run can be read.
    """

    def __init__(self, members: Sequence[Run[FrameT]], library: Library[FrameT]) -> None:
        self._members, self._library = list(members), library

    def __repr__(self) -> str:
        return f"<accl.Runs {[run.id for run in self._members]}>"

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Run[FrameT]: ...
    @overload
    def __getitem__(self, index: slice) -> Runs[FrameT]: ...
    def __getitem__(self, index: int | slice) -> Run[FrameT] | Runs[FrameT]:
        """Return one run, or several as `Runs`."""
        chosen = self._members[index]
        return Runs(chosen, self._library) if isinstance(chosen, list) else chosen

    def frame(self) -> FrameT:
        """Return one row for each run, as it is now.

        Columns are what it is (run, name, experiment, tags, note, state, recipe, profile, seed, step, ..., times in
        UTC), the newest metrics of its state (``validation/accuracy``) and every value of its configuration
        (``optim.lr``). A run that cannot be read is a row whose ``problem`` says why.
        """
        return self._library.frame(runs_table(self._summaries()))

    def metrics(self, *names: str) -> FrameT:
        """Return logged values of all runs; see `Run.metrics`.

        Raises:
            BusyError, DamagedError: no run can be read.
        """
        return self._united(METRICS, lambda read: metric_rows(read, names))

    def evals(self) -> FrameT:
        """Return the evaluations of all runs; see `Run.evals`.

        Raises:
            BusyError, DamagedError: no run can be read.
        """
        return self._united(EVALS, eval_rows)

    def predictions(self, split: str = "test") -> FrameT:
        """Return the answers of all runs; see `Run.predictions`.

        Raises:
            BusyError, DamagedError: no run can be read.
        """
        return self._united(PREDICTIONS, lambda read: prediction_rows(read, split))

    def sql(self, query: str) -> FrameT:
        """Return the rows of a query over the tables of all runs, as ``accl sql`` runs it.

        Raises:
            AcclError: DuckDB refuses it, or it takes too long.
            BusyError, DamagedError: no run can be read.
        """
        answer = run_sql(query, self._summaries())
        self._settle(list(answer.unread.values()), list(answer.partial.values()))
        return self._library.frame(answer.rows)

    def _summaries(self) -> list[Summary]:
        return summarize(RunDir(run.path) for run in self._members)

    def _united(self, names: Sequence[str], make: Rows) -> FrameT:
        tables: list[tuple[RunLabel, pyarrow.Table]] = []
        unread: list[AcclError] = []
        partial: list[AcclError] = []
        for summary in self._summaries():
            try:
                rows, left_out = _read_rows(summary.run, names, make)
            except AcclError as error:
                unread.append(error)
                continue
            partial += [left_out] if left_out else []
            tables.append((run_label(summary), rows))
        self._settle(unread, partial)
        return self._library.frame(beside(tables or [(RunLabel(""), make(empty_tables(names)))]))

    def _settle(self, unread: Sequence[AcclError], partial: Sequence[AcclError]) -> None:
        """Raise the first error where no run could be read, unless nothing is recorded yet, and warn of the others."""
        broken = [error for error in unread if not isinstance(error, AbsentError)]
        if broken and len(unread) == len(self._members):
            raise broken[0]
        for error in (*broken, *partial):
            warnings.warn(str(error), stacklevel=4)


@overload
def load(run: Folder, root: Folder | None = None, frame: Literal["pandas"] = "pandas") -> Run[pandas.DataFrame]: ...
@overload
def load(run: Folder, root: Folder | None = None, *, frame: Literal["polars"]) -> Run[polars.DataFrame]: ...
def load(run: Folder, root: Folder | None = None, frame: str = "pandas") -> Run[Any]:
    """Return the one run that a name means.

    Args:
        run: its id or a part of it, its name, its path, or ``last`` for the newest, as on the command line.
        root: folder of the runs; the environment variable ``ACCL_RUNS`` or ``runs`` when None.
        frame: library of the frames that its methods return, ``pandas`` or ``polars``.

    Raises:
        RunError: none or several match.
        BusyError: the folder does not answer in time.
        AcclError: the library is not installed.
    """
    return Run(find_run(_folder(root), os.fspath(run)), Library(frame))


@overload
def runs(
    query: str = "", root: Folder | None = None, frame: Literal["pandas"] = "pandas"
) -> Runs[pandas.DataFrame]: ...
@overload
def runs(query: str = "", root: Folder | None = None, *, frame: Literal["polars"]) -> Runs[polars.DataFrame]: ...
def runs(query: str = "", root: Folder | None = None, frame: str = "pandas") -> Runs[Any]:
    """Return the runs that a query matches, the newest first; none where none does.

    Args:
        query: as for ``accl runs``, such as ``state:finished lr>1e-5``; all runs when it is empty.
        root: folder of the runs; the environment variable ``ACCL_RUNS`` or ``runs`` when None.
        frame: library of the frames that their methods return, ``pandas`` or ``polars``.

    Raises:
        QueryError: the query cannot be understood.
        RunError: the folder cannot be read.
        BusyError: it does not answer in time.
        AcclError: the library is not installed.
    """
    library = Library[Any](frame)
    matching = matching_summaries(run_folders(_folder(root)), query)
    matching.sort(key=lambda summary: summary.age_key, reverse=True)
    return Runs([Run(summary.run, library) for summary in matching], library)


def _read_rows(run: RunDir, names: Sequence[str], make: Rows) -> tuple[pyarrow.Table, AcclError | None]:
    """Return what is made of tables of a run, and what could not be read beside them."""
    with reading(run.database):
        read = read_tables(run, names)
        return make(read), read.left_out


def _folder(root: Folder | None) -> Path:
    return Path(os.environ.get("ACCL_RUNS", "runs") if root is None else root).expanduser()
