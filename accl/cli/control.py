"""`accl stop` and `accl resume`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from accl.cli.options import RUNS, ChosenArgument, DetachOption, JobsOption, PerGpuOption, RunArgument, RunsOption
from accl.errors import BusyError, ConfigError, RunError
from accl.store.rundir import RunDir

KILL_GRACE_S = 10.0  # a killed process ends well within it


def stop(
    run: RunArgument,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to wait before it is killed.")] = 120.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill it now, without a checkpoint.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Stop a run after its current step, with a checkpoint.

    The command waits until the run has ended, and kills it when it has not after the grace period. A run
    that was prepared and never started counts as stopped from then on. Others that share its process go on.

    Examples:

      accl stop last --grace 60

      accl stop full-s1 --kill
    """
    from accl.cli.output import say
    from accl.launch import process
    from accl.store.lock import holder
    from accl.store.rundir import find_run
    from accl.store.state import observe

    chosen = find_run(runs, run)
    process.stop(chosen, kill)
    state = observe(chosen)
    if state.state.active and not kill:
        doing = state.phase if state.phase not in ("", "training") else f"step {state.step + 1:,}"
        say(f"waiting at most {grace:g} s for the end of {doing} and a checkpoint; --kill does not wait", err=True)
    state = process.wait_until_ended(chosen, KILL_GRACE_S if kill else grace)
    if state.state.active:
        process.stop(chosen, kill=True)
        state = process.wait_until_ended(chosen, KILL_GRACE_S)
    if state.state.active:
        pid = held.pid if (held := holder(chosen)) else state.pid
        shared = f" It trains other runs too; this ends all of them: kill -KILL {pid}"
        look = f"Look at process {pid}.{shared if process.shares_process(pid) else ''}"
        raise RunError(f"{chosen.id} did not end.", look)
    say(f"{state.state.icon} {chosen.id} {state.state}{f': {state.reason}' if state.reason else ''}")


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
    from accl.cli.foreground import end_on_signals
    from accl.cli.output import say
    from accl.cli.progress import show_progress
    from accl.cli.waiting import wait_for
    from accl.launch import process
    from accl.launch.queue import enqueue
    from accl.store.merge import merge_spool
    from accl.store.state import read_state

    end_on_signals()
    several = _resumable(runs, chosen)
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


def _resumable(root: Path, words: Sequence[str]) -> list[RunDir]:
    """Return the runs to go on with: those that are named, or of those that a query finds the ones that ended early.

    Raises:
        QueryError, RunError: as `accl.store.selection.choose_runs`, or none of them can go on.
    """
    from accl.cli.output import print_notes
    from accl.store.selection import choose_runs
    from accl.store.state import State

    choice = choose_runs(root, words)
    if not choice.by_query:
        for run, state in [(each.run, each.state) for each in choice.summaries if len(choice.summaries) > 1]:
            if state and (state.state is State.FINISHED or state.state.trains):
                what = f"{run.id} is {state.state}, and so none of the {len(choice.summaries)} runs is resumed."
                raise (BusyError if state.state.active else RunError)(what, "Leave it out.")
        return choice.runs
    able = [each.run for each in choice.summaries if each.state and each.state.state.ended_early]
    others = [each for each in choice.summaries if each.run not in able]
    left_out = Counter(each.state.state.value if each.state else "unreadable" for each in others)
    said = ", ".join(f"{count} {word}" for word, count in left_out.items())
    if not able:
        raise RunError(f"None of the runs that match can go on: {said}.", "See: accl runs")
    if left_out:
        print_notes([f"left out: {said}"])
    return able


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
