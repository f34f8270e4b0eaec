"""`accl test`: the test of runs that left it for later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accl.cli.chosen import usable
from accl.cli.model import interval, progress
from accl.cli.options import RUNS, ChosenArgument, RunsOption
from accl.cli.output import Format, FormatOption, emit, raise_first
from accl.cli.table import Column, Row, Table, percent
from accl.errors import AcclError, RunError

if TYPE_CHECKING:
    from accl.store.rundir import RunDir
    from accl.store.summary import Summary

TESTED_COLUMNS = [
    Column("run"),
    Column("n", "questions", justify="right"),
    Column("accuracy", "test", "%", "right", percent),
    Column("low", "95 % interval", justify="right", cell=interval),
    Column("floor", "", "%", "right", percent),
]


def run_test(chosen: ChosenArgument, format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    """Test finished runs whose test split is unread.

    A run of eval.test=false is chosen on validation alone, and its test split stays unread until this
    command. It tests the weights that validation chose and records what the end of training would have
    recorded, to the last digit; compare, show and the app then know it. A run that has been tested is not
    tested again.

    Every look at a test split makes the best of the runs look a little better than it is: the command
    counts them.

    Examples:

      accl test 7f3a

      accl test experiment:lr "cfg.lr=1e-4"
    """
    from accl.launch.model import apply_model
    from accl.store.merge import merge_spool
    from accl.store.selection import choose_runs
    from accl.store.tested import note_accuracy, read_tested

    able = [summary.run for summary in usable(choose_runs(runs, chosen), _untestable)]
    problems: list[AcclError] = []
    rows = []
    for run in able:
        merge_spool(run)
        try:
            before = read_tested(run)
            if before is None:
                with progress(run) as phase:
                    apply_model("test", run, phase)
            else:
                note_accuracy(run, before)
            rows.append(_tested_row(run, new=before is None))
        except AcclError as error:
            if len(able) == 1:
                raise
            problems.append(error)
    notes = _looks_notes(able, rows)
    emit(Table("", TESTED_COLUMNS, rows, name="tests"), format, notes=notes)
    raise_first(problems)


def _untestable(summary: Summary) -> AcclError | None:
    """Return why a run cannot be tested; None if it can."""
    from accl.store.state import State

    run, state = summary.run, summary.state
    if summary.problem is not None:
        return summary.problem
    if state is None or state.state is State.FINISHED:  # what cannot be read is told when it is tested
        return None
    hint = "Wait for it: accl runs" if state.state.active else f"Go on with: accl resume {run.typed}"
    return RunError(f"{run.id} is {state.state}, not finished.", hint)


def _tested_row(run: RunDir, new: bool) -> dict[str, Any]:
    from accl.analysis.stats import wilson
    from accl.store.columns import RunReader
    from accl.store.summary import numbers
    from accl.store.tested import read_tested

    tested, measured = read_tested(run), RunReader(run).read(("tasks",))
    assert tested is not None  # it has been tested just now
    low, high = wilson(tested.correct, tested.n)
    floors = numbers(measured.meta, ("floor/test/",)).values()
    return {
        "run": run.id,
        "tested_step": measured.tested_step,
        "n": tested.n,
        "correct": tested.correct,
        "accuracy": tested.accuracy,
        "low": low,
        "high": high,
        "floor": max(floors, default=None),
        "looks": tested.looks,
        "new": new,
    }


def _looks_notes(runs: Sequence[RunDir], rows: Sequence[Row]) -> list[str]:
    """Say which runs had been tested before, and how often the test split was looked at in the folder."""
    from accl.store.provenance import data_fingerprint, read_provenance
    from accl.store.tested import looks_in

    notes = []
    if before := [row["run"] for row in rows if not row["new"]]:
        notes.append(f"Tested before, and not again: {', '.join(before)}.")
    tested = [run for run in runs if any(row["run"] == run.id for row in rows)]
    for root, fingerprint in dict.fromkeys((run.path.parent, data_fingerprint(read_provenance(run))) for run in tested):
        notes.append(str(looks_in(root, fingerprint)))
    return notes
