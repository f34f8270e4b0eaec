"""`accl queue`: what waits to be trained, and in which order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from accl.cli.completion import complete_run
from accl.cli.options import RUNS, JobsOption, NeededQueryArgument, PerGpuOption, QueryArgument, RunsOption, run_name
from accl.cli.output import Format, FormatOption, emit, print_notes, say
from accl.cli.table import MISSING, Column, Row, Table, fields
from accl.errors import ConfigError, RunError
from accl.launch import queue
from accl.store.rundir import RunDir, find_run, run_folders
from accl.store.selection import matching_summaries
from accl.store.state import State, share_a_process
from accl.store.summary import Summary, summarize
from accl.text import duration, shortened

LONG_S = 10.0  # within which the worker starts what there is a place for
HELP = """List what waits to be trained; move, pause, resume, cancel it.

Runs wait as folders of their own. A worker in the background starts them
in their order, as GPUs, or the processor, become free. It outlives the
terminal, ends when nothing waits any more, and is started again by the
next command that looks at the queue.

A run that fails within seconds pauses the others of its experiment.

Examples:

  accl queue

  accl queue add last --runs runs

  accl queue move s3 --to 1
"""
app = typer.Typer(invoke_without_command=True, add_completion=False, rich_markup_mode=None, help=HELP)
_RUNS = typer.Argument(
    parser=run_name,
    metavar="RUN...",
    help="Ids, parts of ids, or paths.",
    show_default=False,
    autocompletion=complete_run,
)
COLUMNS = [
    Column("place", "#", "", "right", lambda value: MISSING if value is None else str(value)),
    Column("id", "run"),
    Column("state", cell=lambda row: _state_words(row)),
    Column("experiment", wrap=True),
]
PROCESS = Column("pid", "process", "", "right", lambda pid: str(pid or MISSING))


@app.callback()
def _queue(context: typer.Context, format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    if context.invoked_subcommand is None:
        list_(format, runs)


@app.command(name="list")
def list_(format: FormatOption = Format.TABLE, runs: RunsOption = RUNS) -> None:
    """List the runs that train and those that wait, in the order in which they start.

    Where runs share a GPU and a process, it is shown beside them.

    Example:

      accl queue list --format json
    """
    try:
        queue.ensure_worker(runs)
    except RunError as error:  # in a folder that is not ours, or on a full disk; what waits can be seen all the same
        print_notes([str(error)])
    entries, now = queue.waiting(runs), time.time()
    places = {entry.run.id: number for number, entry in enumerate(entries, 1)}
    rows, training = [], []
    for summary in summarize(run_folders(runs)):
        state = summary.state
        if (state and state.state.trains) or summary.run.id in places:
            place = places.get(summary.run.id)
            rows.append(_row(summary, place, entries[place - 1] if place else None, now))
            training += [state] if state and not place else []
    rows.sort(key=lambda row: (row["place"] or 0, row["started"] or 0.0))
    if not rows and format is Format.TABLE:
        say(f"Nothing trains or waits in {runs}. Put a run into the queue:  accl queue add RUN")
        return
    columns = [*COLUMNS, PROCESS] if share_a_process(training) else COLUMNS
    emit(Table("", columns, rows, name="queue"), format)
    remarks = dict.fromkeys(_remark(row) for row in rows if row["problem"] or row["paused"])
    if remarks and format is Format.TABLE:
        say(*remarks, style="dim")
        if any(row["paused"] for row in rows):
            say("to go on with what is paused:  accl queue resume", style="dim")
    waits = [row["waits_seconds"] for row in rows if row["place"] and not (row["paused"] or row["problem"])]
    if len(waits) == len(rows) and max(waits, default=0.0) > LONG_S:
        print_notes([f"nothing trains; the worker tells what it found: {runs / queue.FOLDER / queue.LOG}"])


@app.command()
def add(
    names: Annotated[list[str], _RUNS],
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = 1,
    runs: RunsOption = RUNS,
) -> None:
    """Put runs at the end of the queue that were prepared and not started, or have stopped.

    Those that have stopped go on from their last checkpoint when their turn comes.

    Examples:

      accl queue add full-s1 full-s2

      accl queue add last --jobs 2

      accl queue add last --per-gpu 2
    """
    chosen = [find_run(runs, name) for name in names]
    queue.enqueue(runs, chosen, per_gpu=per_gpu, jobs=jobs)
    say(*(run.id for run in chosen))


@app.command()
def move(
    query: NeededQueryArgument,
    to: Annotated[int, typer.Option("--to", min=1, help="Place; 1 starts next.")] = 1,
    runs: RunsOption = RUNS,
) -> None:
    """Move waiting runs to another place of the queue; to its beginning if none is given.

    Examples:

      accl queue move full s3

      accl queue move experiment:weights --to 4
    """
    chosen = _matching(runs, query)
    queue.move(runs, chosen, to)
    _say_done("moved", chosen)


@app.command()
def pause(query: QueryArgument = None, runs: RunsOption = RUNS) -> None:
    """Keep waiting runs from being started; those that train already go on.

    Examples:

      accl queue pause

      accl queue pause experiment:weights
    """
    chosen = _matching(runs, query)
    queue.pause(runs, chosen)
    _say_done("paused", chosen)
    say("to go on with what is paused:  accl queue resume", err=True)


@app.command()
def resume(query: QueryArgument = None, runs: RunsOption = RUNS) -> None:
    """Let paused runs be started when their turn comes.

    Examples:

      accl queue resume

      accl queue resume experiment:weights
    """
    chosen = _matching(runs, query)
    queue.unpause(runs, chosen)
    _say_done("waiting", chosen)


@app.command()
def cancel(
    query: QueryArgument = None,
    all: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Take runs out of the queue; they count as stopped from then on, and their folders stay.

    Runs that train already go on; accl stop ends them.

    Examples:

      accl queue cancel contrastive s3

      accl queue cancel --all
    """
    if bool(query) == all:
        raise ConfigError("Which runs are to be cancelled?", "Give a QUERY, or --all alone; see: accl queue")
    chosen = _matching(runs, query)
    queue.cancel(runs, chosen)
    _say_done("cancelled", chosen)


def _matching(root: Path, query: list[str] | None) -> list[RunDir]:
    """Return the waiting runs that a query matches, in their order.

    Raises:
        QueryError: it is none.
        RunError: nothing waits that it matches.
    """
    text = " ".join(query or ())
    readable = [entry.run for entry in queue.waiting(root) if entry.waiting]
    matching = [summary.run for summary in matching_summaries(readable, text)]
    if not matching:
        what = f"Nothing that waits in {root} matches: {text}" if text and readable else f"Nothing waits in {root}."
        raise RunError(what, "See: accl queue")
    return matching


def _say_done(word: str, runs: list[RunDir]) -> None:
    say(*(f"{word} {run.id}" for run in runs))


def _row(summary: Summary, place: int | None, entry: queue.Entry | None, now: float) -> dict[str, Any]:
    """Describe a run in one row of raw values, None where they are not known."""
    waiting = entry.waiting if entry else None
    problem = (entry.problem if entry else None) or summary.problem
    return {
        "place": place,
        "id": summary.run.id,
        **fields(summary.state, "state"),
        "experiment": summary.experiment or None,
        "paused": (waiting.paused or None) if waiting else None,
        "waits_seconds": max(0.0, now - waiting.since) if waiting else None,
        **fields(waiting, "per_gpu", "jobs"),
        **fields(summary.setup, "recipe", "profile", "seed"),
        **fields(summary.state, "step", "total_steps", "phase", eta_seconds="left_seconds"),
        **fields(None if entry else summary.state, "host", "pid", "visible_gpus"),
        "started": summary.state and (summary.state.started or None),
        "problem": problem and {"kind": problem.kind, "message": str(problem)},
    }


def _state_words(row: Row) -> str:
    if row["problem"]:
        return f"? {row['problem']['kind']}"
    if row["paused"]:
        return "‖ paused"
    state = State(row["state"])
    if state is State.QUEUED:
        return f"{state.icon} waits {duration(row['waits_seconds'])}"
    busy = row["phase"] if row["phase"] not in ("", "training") else state.value
    return f"{state.icon} {row['step']:,}/{row['total_steps']:,}" if row["total_steps"] else f"{state.icon} {busy}"


def _remark(row: Row) -> str:
    """Say why a run is not started."""
    if row["problem"]:
        return shortened(f"{row['id']}: {row['problem']['message']}")
    return shortened(f"paused: {row['paused']}")
