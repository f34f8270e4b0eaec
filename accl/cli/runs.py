"""`accl runs`: the runs as a table."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from accl.cli.options import RUNS, RunsOption
from accl.cli.output import Format, FormatOption, SafeConsole, emit, print_notes, say
from accl.cli.runrows import progress, run_row, state_words
from accl.cli.table import Column, Table, duration, number, percent
from accl.store.query import parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import run_folders
from accl.store.state import State
from accl.store.summary import SummaryReader, read_summaries
from accl.text import shortened

# Columns of the terminal from which a table of runs has room for all its columns beside the ids.
WIDE = 110
WIDE_ONLY = ("profile", "eta_seconds", "train/loss")
COLUMNS = [
    Column("id", "run"),
    Column("state", cell=state_words),
    Column("profile"),
    Column("step", justify="right", cell=progress),
    Column("eta_seconds", "ETA", "", "right", duration),
    Column("train/loss", "loss", "", "right", number(".3f")),
    Column("validation/accuracy", "val", "%", "right", percent),
    Column("test/accuracy", "test", "%", "right", percent),
]
QueryArgument = Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="Show only the runs that it matches.")]


def runs(query: QueryArgument = None, format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    """List the runs and what each is doing.

    The newest run comes first. States come from a look at the process: one that was killed shows as crashed.

    A QUERY shows only some: words that are a part of state, recipe,
    profile, seed or id, and comparisons, joined by blanks (and), OR, NOT
    and round brackets. Keys are state, recipe, profile, seed, id, name,
    tag, note, experiment, step, progress, age, loss, val, test and cfg.KEY
    of the configuration, of which the last part will do (lr); a colon means
    contains. Quote what the shell would take.

    Examples:

      accl runs full s42

      accl runs state:finished "cfg.optim.lr>=1e-4"

      accl runs "(val>30% OR age<2d)" NOT recipe:baseline,contrastive

      accl runs --format json
    """
    text, now = " ".join(query or ()), time.time()
    wanted = parse(text)
    summaries = read_summaries([SummaryReader(run) for run in run_folders(runs)], now)
    matching = [summary for summary in summaries if wanted.matches(RunSubject(summary, now))]
    rows = [run_row(summary) for summary in sorted(matching, key=lambda summary: summary.age_key, reverse=True)]
    if summaries and not rows:
        print_notes([f"no run of {len(summaries):,} in {runs} matches: {text}"])
    if not rows and format is Format.TABLE:
        if not summaries:
            say(f"No runs in {runs} yet. Start one:  accl train full --profile demo")
        return
    narrow = format is Format.TABLE and SafeConsole().width < WIDE
    columns = [column for column in COLUMNS if not (narrow and column.key in WIDE_ONLY)]
    emit(Table("", columns, rows, name="runs"), format)
    if format is Format.TABLE:
        for row in rows:
            if row["problem"] or (row["reason"] and row["state"] in (State.CRASHED, State.FAILED, State.STALLED)):
                say(shortened(f"{row['id']}: {row['reason']}"), style="dim")
