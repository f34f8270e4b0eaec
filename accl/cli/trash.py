"""`accl rm`, `accl restore` and `accl purge`: the trash of a runs folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from accl.cli.chosen import usable
from accl.cli.completion import complete_trashed
from accl.cli.options import RUNS, ChosenArgument, RunsOption, YesOption, run_name
from accl.cli.output import Format, FormatOption, ask, emit, raise_first, say
from accl.cli.runrows import run_row, state_words
from accl.cli.table import Column, Row, Table, moment, size
from accl.errors import BusyError, RunError
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.rundir import LAST
from accl.store.selection import choose_among, choose_runs
from accl.store.summary import Summary, summarize
from accl.store.trash import (
    Trashed,
    end_purges,
    last_removal,
    purge_run,
    remove_runs,
    restore_run,
    trashed_runs,
    tree_size,
)
from accl.text import counted

COLUMNS = [
    Column("id", "run"),
    Column("name"),
    Column("state", cell=state_words),
    Column("size", "", "", "right", size),
]
REMOVED = Column("removed", show=moment)
_TRASHED = "Removed runs, each as its id or a part of it or name; `last` for all of the last removal; or a query."
TrashedArgument = Annotated[
    list[str] | None,
    typer.Argument(parser=run_name, metavar="RUN...|QUERY", help=_TRASHED, autocompletion=complete_trashed),
]


def rm(chosen: ChosenArgument, yes: YesOption = False, runs: RunsOption = RUNS) -> None:
    """Move runs to the trash, after showing which and asking.

    A run that is being trained is refused if it was named, and left out if a query found it; one that waits
    is cancelled. The trash is .trash in the folder of the runs: accl restore brings runs back as they
    were, and accl purge frees the room.

    Examples:

      accl rm 7f3a

      accl rm state:failed "age>7d"

      accl rm experiment:lr --yes
    """
    able = usable(choose_runs(runs, chosen), _unremovable)
    rows = [_row(summary) for summary in able]
    emit(_table(rows, COLUMNS))
    if not (yes or ask(f"Move {_what(rows)} to the trash?")):
        say("Nothing was removed.")
        raise typer.Exit(1)
    answers = remove_runs([summary.run for summary in able])
    moved = [answer for answer in answers if isinstance(answer, Trashed)]
    failed = [answer for answer in answers if isinstance(answer, RunError)]
    if moved:
        say(f"{counted(len(moved), 'run')} moved to {moved[0].run.path.parent}")
        say("Bring them back:  accl restore last     Free the room:  accl purge", style="dim")
    raise_first(failed)


def _unremovable(summary: Summary) -> BusyError | None:
    """Return why a run may not be removed, as far as is known before it is locked; None if it may."""
    run, state = summary.run, summary.state
    if isinstance(summary.problem, BusyError):
        return BusyError(f"{run.id} is left alone: {summary.problem.what}", summary.problem.hint)
    if state and state.state.trains:
        return BusyError(f"{run.id} is {state.state}.", f"Stop it first: accl stop {run.typed}")
    return None


def restore(chosen: TrashedArgument = None, format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    """List the runs in the trash, or bring some of them back.

    Without a RUN it lists what lies there. A run comes back under the id that it had, as it was; one that
    waited to be started is stopped, and goes on with accl resume.

    Examples:

      accl restore

      accl restore last

      accl restore 7f3a 93bc
    """
    entries = trashed_runs(runs)
    if not chosen:
        if entries or format is not Format.TABLE:
            emit(_table(_trashed_rows(entries), [*COLUMNS, REMOVED]), format)
        else:
            say(f"The trash of {runs} is empty.")
        return
    failed: list[RunError] = []
    newest = {entry.home: entry for entry in _chosen_of(entries, chosen, runs)}  # of those with one id
    for entry in newest.values():
        try:
            say(f"{restore_run(entry).id} is back.")
        except RunError as error:
            failed.append(error)
    raise_first(failed)


def purge(chosen: TrashedArgument = None, yes: YesOption = False, runs: RunsOption = RUNS) -> None:
    """Delete what lies in the trash for ever, after asking.

    Examples:

      accl purge

      accl purge "age>30d" --yes
    """
    end_purges(runs)
    entries = trashed_runs(runs)
    if not entries:
        say(f"The trash of {runs} is empty.")
        return
    entries = _chosen_of(entries, chosen, runs) if chosen else entries
    rows = _trashed_rows(entries)
    emit(_table(rows, [*COLUMNS, REMOVED]))
    if not (yes or ask(f"Delete {_what(rows)} for ever?")):
        say("Nothing was deleted.")
        raise typer.Exit(1)
    failed: list[RunError] = []
    for entry in entries:
        try:
            purge_run(entry)
        except RunError as error:
            failed.append(error)
    say(f"{counted(len(entries) - len(failed), 'run')} deleted.")
    raise_first(failed)


def _chosen_of(entries: Sequence[Trashed], words: Sequence[str], root: Path) -> list[Trashed]:
    """Return the entries of a trash that words mean.

    Raises:
        QueryError, RunError: as `choose_runs`.
    """
    if not entries:
        raise RunError(f"The trash of {root} is empty.", "Runs get there by: accl rm RUN")
    if list(words) == [LAST]:
        return last_removal(entries)
    by_run = {entry.run: entry for entry in entries}
    choice = choose_among(list(by_run), words, f"the trash of {root}", "accl restore")
    return [by_run[run] for run in choice.runs if run in by_run]


def _trashed_rows(entries: Sequence[Trashed]) -> list[dict[str, Any]]:
    summaries = summarize(entry.run for entry in entries)
    return [_row(summary) | {"removed": entry.removed} for summary, entry in zip(summaries, entries, strict=True)]


def _row(summary: Summary) -> dict[str, Any]:
    ((_, measured),) = each_within(DEADLINE_S, lambda run: tree_size(run.path), [summary.run])
    return run_row(summary) | {"size": measured if isinstance(measured, int) else None}


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    named = any(row["name"] for row in rows)
    return Table("", [column for column in columns if named or column.key != "name"], rows, name="runs")


def _what(rows: Sequence[Row]) -> str:
    return f"{counted(len(rows), 'run')} of {size(sum(row['size'] or 0 for row in rows))}"
