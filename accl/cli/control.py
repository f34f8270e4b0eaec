"""`accl stop` and `accl resume`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from accl.cli.options import RUNS, ChosenArgument, DetachOption, JobsOption, PerGpuOption, RunsOption
from accl.errors import AcclError, BusyError, ConfigError, RunError
from accl.store.rundir import RunDir

if TYPE_CHECKING:
    from accl.store.state import RunState
    from accl.store.summary import Summary

KILL_GRACE_S = 10.0  # a killed process ends well within it


def stop(
    chosen: ChosenArgument,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to wait before it is killed.")] = 120.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill it now, without a checkpoint.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Stop runs after their current steps, with checkpoints.

    The command waits until they have ended, and kills those that have not after the grace period. A run
    that waits, or was prepared and never started, counts as stopped from then on. Others that share a
    process with a run go on. Of the runs that a query finds, those that train or wait are stopped.

    Examples:

      accl stop last --grace 60

      accl stop full-s1 --kill

      accl stop experiment:lr
    """
    from accl.cli.chosen import Verb, chosen_for
    from accl.cli.output import raise_first, say
    from accl.store.state import State

    verb = Verb("asked to stop", "trains or waits", lambda state: state.active, lambda state: not state.active)
    several = chosen_for(verb, runs, chosen)
    # Those that wait first: otherwise one of them would take the place of one that trains, and be started.
    several.sort(key=lambda summary: summary.state is None or summary.state.state is not State.QUEUED)
    failed: list[AcclError] = []
    left = _wait_for_ends(_ask_to_stop(several, kill, failed), 0.0, failed)
    if doing := [] if kill else [_doing(each.state) for each in left if each.state]:
        what = f"{doing[0]} and a checkpoint" if len(doing) == 1 else f"the steps of {len(doing)} runs and checkpoints"
        say(f"waiting at most {grace:g} s for the end of {what}; --kill does not wait", err=True)
    left = _wait_for_ends(left, KILL_GRACE_S if kill else grace, failed)
    left = _wait_for_ends(_ask_to_stop(left, True, failed), KILL_GRACE_S, failed)
    failed += [_not_ended(summary.run) for summary in left]
    raise_first(failed)


def _ask_to_stop(several: Sequence[Summary], kill: bool, failed: list[AcclError]) -> list[Summary]:
    """Ask runs to stop, or kill them, and return those that are about to end; the errors of others are noted."""
    from accl.launch import process
    from accl.store.summary import summarize

    asked = []
    for summary in several:
        try:
            process.stop(summary.run, kill)
        except AcclError as error:
            (now,) = summarize([summary.run])
            if not (_is_active(summary) and now.state and not _is_active(now)):  # it has not ended by itself meanwhile
                failed.append(error)
                continue
        asked.append(summary)
    return asked


def _wait_for_ends(several: Sequence[Summary], seconds: float, failed: list[AcclError]) -> list[Summary]:
    """Say of each run how it ended, as soon as it has, and return those that have not within some seconds."""
    from accl.cli.output import say
    from accl.launch.process import POLL_EVERY_S
    from accl.store.summary import SummaryReader, read_summaries

    deadline, left = time.monotonic() + seconds, list(several)
    readers = {summary.run: SummaryReader(summary.run) for summary in several}
    while True:
        is_last = time.monotonic() >= deadline
        read = read_summaries([readers[summary.run] for summary in left], time.time())
        # One that does not answer at the moment, on a slow disk, is waited for.
        left = [
            each for each in read if _is_active(each) or (each.state is None and isinstance(each.problem, BusyError))
        ]
        for run, state, problem in [(each.run, each.state, each.problem) for each in read if each not in left]:
            if state is not None:
                say(f"{state.state.icon} {run.id} {state.state}{f': {state.reason}' if state.reason else ''}")
            elif problem is not None:
                failed.append(problem)
        if is_last or not left:
            return left
        time.sleep(POLL_EVERY_S)


def _is_active(summary: Summary) -> bool:
    return summary.state is not None and summary.state.state.active


def _doing(state: RunState) -> str:
    return state.phase if state.phase not in ("", "training") else f"step {state.step + 1:,}"


def _not_ended(run: RunDir) -> RunError:
    from accl.launch import process
    from accl.store.lock import holder
    from accl.store.state import read_state

    pid = held.pid if (held := holder(run)) else read_state(run).pid
    shared = f" It trains other runs too; this ends all of them: kill -KILL {pid}"
    look = f"Look at process {pid}.{shared if process.shares_process(pid) else ''}"
    return RunError(f"{run.id} did not end.", look)


def resume(
    chosen: ChosenArgument,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = 1,
    detach: DetachOption = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Go on although configuration, data or model are not what they were."),
    ] = False,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Allow the program of its alerts.command, which was typed elsewhere.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Go on with stopped runs from their last checkpoints.

    A run of which a trainer lives is refused, with exit code 11 and the process that trains it. A run
    without a checkpoint, or one that was prepared and never started, begins at its first step. Signals
    mean what they mean to accl train.

    Several runs go into the queue, which starts them as GPUs, or the processor, become free, and the command
    waits for all of them, as accl wait does; so does one run with --jobs or --per-gpu. Runs that shared a
    process share one again with --per-gpu. Of the runs that a query finds, those that were stopped, failed
    or crashed go on.

    A run whose configuration, questions or model have changed since it began is refused, with what has
    changed.

    Examples:

      accl resume last --detach

      accl resume 7f3a --accept-changes

      accl resume last --alerts

      accl resume experiment:lr state:stopped,crashed

      accl resume experiment:lr --per-gpu 2 --jobs 4 --detach
    """
    from accl.cli.chosen import Verb, chosen_for
    from accl.cli.foreground import end_on_signals
    from accl.cli.output import say
    from accl.cli.progress import show_progress
    from accl.cli.waiting import wait_for
    from accl.launch import process
    from accl.launch.queue import enqueue
    from accl.store.merge import merge_spool
    from accl.store.state import State, read_state

    end_on_signals()
    verb = Verb(
        "resumed", "can go on", lambda state: state.ended_early, lambda state: state.trains or state is State.FINISHED
    )
    several = [summary.run for summary in chosen_for(verb, runs, chosen)]
    if alerts:
        _allow_alerts(several)
    if len(several) > 1 or jobs is not None or per_gpu > 1:
        if accept_changes:  # of which nobody could see which of which run
            what = "--accept-changes is for one run, and not for one of the queue."
            raise ConfigError(what, "Accept those of each by itself: accl resume RUN --accept-changes")
        enqueue(runs, several, per_gpu=per_gpu, jobs=jobs)
        if detach:
            say(*(run.id for run in several))
            return
        raise typer.Exit(wait_for(runs, several))
    run = several[0]
    if count := merge_spool(run):  # a run that has finished gets no trainer that would do it
        say(f"{count:,} measurements of {run.id} that were pending are in its database now", err=True)
    start = partial(process.start, run, accept_changes)
    at = read_state(run).goes_on_from
    say(f"going on from step {at:,}" if at else "no checkpoint: beginning at the first step", err=True)
    if detach:
        start()
        say(run.id)
        return
    raise typer.Exit(show_progress(run, start))


def _allow_alerts(several: Sequence[RunDir]) -> None:
    """Allow the programs that runs name, and say which.

    Raises:
        RunError: a configuration cannot be read, or what is allowed cannot be remembered.
    """
    from accl.cli.output import print_notes
    from accl.store.trusted import allow

    for command in dict.fromkeys(run.load_config().alerts.command for run in several):
        if command is not None:
            allow(command)
            print_notes([f"from now on alerts may run: {command}"])
