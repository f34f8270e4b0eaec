"""`accl prune`: room taken by checkpoints that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from accl.cli.options import RUNS, ChosenOrAllArgument, RunsOption, YesOption
from accl.cli.output import ask, emit, print_notes, raise_first, say
from accl.cli.table import Column, Table, size
from accl.errors import BusyError, RunError
from accl.store.deadline import each_within
from accl.store.prune import Prunable, find_prunable, prune_run
from accl.store.rundir import RunDir
from accl.store.selection import choose_runs
from accl.text import counted

LOOK_S = 10.0  # for the checkpoints of one run
COLUMNS = [Column("id", "run"), Column("removes", wrap=True), Column("size", "", "", "right", size)]


def prune(
    chosen: ChosenOrAllArgument = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: YesOption = False,
    runs: RunsOption = RUNS,
) -> None:
    """Delete checkpoints and optimizer states that nothing needs.

    It shows what, with sizes, before it asks. Of a finished run the weights that validation chose and the
    last ones stay, so that it can be evaluated and exported. Of a run that ended otherwise what accl resume
    needs stays: the newest whole checkpoint, and the weights that validation had chosen. Active runs are left
    alone.

    Examples:

      accl prune --dry-run

      accl prune state:finished "age>7d" --yes
    """
    choice = choose_runs(runs, chosen or ())
    found, failed = _found(choice.runs)
    if failed and not choice.by_query:
        raise failed[0]
    active = sum(isinstance(error, BusyError) for error in failed)
    damaged = [error for error in failed if not isinstance(error, BusyError)]
    if active:
        print_notes([f"{counted(active, 'run')} left alone: active, or busy"])
    print_notes([str(error) for error in damaged])
    found = [each for each in found if each.size]
    if not found:
        say("Every checkpoint is needed: nothing to delete.")
        return
    rows = [{"id": each.run.id, "removes": each.words, "size": each.size} for each in found]
    emit(Table("", COLUMNS, rows, name="runs"))
    what = f"{size(sum(each.size for each in found))} of {counted(len(found), 'run')}"
    if dry_run:
        say(f"It would free {what}.")
        return
    if not (yes or ask(f"Delete {what} for ever?")):
        say("Nothing was deleted.")
        raise typer.Exit(1)
    freed, failed = 0, []
    for each in found:
        try:
            freed += prune_run(each.run).size
        except RunError as error:
            failed.append(error)
    say(f"{size(freed)} of {counted(len(found) - len(failed), 'run')} deleted.")
    raise_first(failed)


def _found(runs: Sequence[RunDir]) -> tuple[list[Prunable], list[RunError]]:
    """Return what can go of each run, and why nothing can be told of the others."""
    found: list[Prunable] = []
    failed: list[RunError] = []
    for _, answer in each_within(LOOK_S, find_prunable, runs):
        if isinstance(answer, Prunable):
            found.append(answer)
        elif isinstance(answer, RunError):
            failed.append(answer)
        else:
            raise answer
    return found, failed
