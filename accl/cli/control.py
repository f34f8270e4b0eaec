"""`accl stop` and `accl resume`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from accl.cli.options import RUNS, DetachOption, RunArgument, RunsOption
from accl.errors import RunError

KILL_GRACE_S = 10.0  # a killed process ends well within it


def stop(
    run: RunArgument,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to wait before it is killed.")] = 120.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill it now, without a checkpoint.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Stop a run after its current step, with a checkpoint.

    The command waits until the run has ended, and kills it when it has not after the grace period. A run
    that was prepared and never started counts as stopped from then on.

    Example:

      accl stop last --grace 60
    """
    from accl.cli.output import say
    from accl.launch import process
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
        raise RunError(f"{chosen.id} did not end.", f"Look at process {state.pid}.")
    say(f"{state.state.icon} {chosen.id} {state.state}{f': {state.reason}' if state.reason else ''}")


def resume(
    run: RunArgument,
    detach: DetachOption = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Go on although configuration, data or model are not what they were."),
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Go on with a stopped run from its last checkpoint.

    A run of which a trainer lives is refused, with exit code 11 and the process that trains it. A run
    without a checkpoint, or one that was prepared and never started, begins at its first step. Signals
    mean what they mean to accl train.

    A run whose configuration, questions or model have changed since it began is refused, with what has
    changed.

    Example:

      accl resume last --detach
    """
    from accl.cli.foreground import end_on_signals
    from accl.cli.output import say
    from accl.cli.progress import show_progress
    from accl.launch import process
    from accl.store.merge import merge_spool
    from accl.store.rundir import find_run
    from accl.store.state import read_state

    end_on_signals()
    chosen = find_run(runs, run)
    if count := merge_spool(chosen):  # a run that has finished gets no trainer that would do it
        say(f"{count:,} measurements of {chosen.id} that were pending are in its database now", err=True)
    start = partial(process.start, chosen, accept_changes)
    at = read_state(chosen).goes_on_from
    say(f"going on from step {at:,}" if at else "no checkpoint: beginning at the first step", err=True)
    if detach:
        start()
        say(chosen.id)
        return
    raise typer.Exit(show_progress(chosen, start))
