"""`accl stop` and `accl resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accl.errors import RunError

RunsOption = Annotated[Path, typer.Option("--runs", envvar="ACCL_RUNS", help="The folder of the runs.")]
RunArgument = Annotated[str, typer.Argument(help="Id, a part of it, a path, or `last`.", show_default=False)]


def stop(
    run: RunArgument,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to wait before it is killed.")] = 120.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill it now, without a checkpoint.")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Stop a run after its current step, with a checkpoint.

    Waits until it has ended; one that has not after the grace period is killed.
    """
    from accl.launch import process
    from accl.store.rundir import find_run

    found = find_run(runs, run)
    if kill:
        process.kill(found)
    else:
        process.stop(found)
    state = process.wait_until_ended(found, 10.0 if kill else grace)
    if state.state.active:
        process.kill(found)
        state = process.wait_until_ended(found, 10.0)
    if state.state.active:
        raise RunError(f"{found.id} did not end.", f"Look at process {state.pid}.")
    typer.echo(f"{state.state.icon} {found.id} {state.state}{f': {state.reason}' if state.reason else ''}")


def resume(
    run: RunArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the run's id and return.")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Go on with a stopped run from its last checkpoint."""
    from accl.cli.progress import watch
    from accl.launch import process
    from accl.store.rundir import find_run

    found = find_run(runs, run)
    started = process.resume(found)
    if detach:
        typer.echo(found.id)
        return
    raise typer.Exit(watch(found, started))
