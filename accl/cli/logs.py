"""`accl logs`: the console log of a run as text."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from accl.cli.options import RUNS, RunArgument, RunsOption
from accl.cli.output import print_notes, say
from accl.errors import AbsentError, RunError
from accl.store.deadline import DEADLINE_S, within
from accl.store.files import open_run_file
from accl.store.rundir import find_run
from accl.store.state import observe
from accl.text import printable_lines

FOLLOW_EVERY_S = 0.3
LOG_BYTES = 4 * 2**20  # at most, from the end of a console log


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last N lines.")] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Print the console log of a run.

    Example:

      accl logs last --lines 20 --follow
    """
    chosen = find_run(runs, run)
    try:
        descriptor = within(DEADLINE_S, lambda: open_run_file(chosen.console))
    except FileNotFoundError as error:
        raise AbsentError(f"{chosen.id} has no console.log.", f"See: accl show {chosen.typed}") from error
    with open(descriptor, "rb") as file:
        if (size := os.fstat(descriptor).st_size) > LOG_BYTES:
            file.seek(size - LOG_BYTES)
            print_notes([f"only the last {LOG_BYTES // 2**20} MiB of {chosen.console}"])
        *printed, rest = file.read(LOG_BYTES).decode(errors="replace").split("\n")
        say(*map(printable_lines, printed if lines is None else printed[max(0, len(printed) + bool(rest) - lines) :]))
        unknown: RunError | None = None  # why nothing tells whether the run goes on
        while follow:
            # Look first and read second, so that nothing printed before the end is missed.
            try:
                active = observe(chosen).state.active
            except RunError as error:
                active, unknown = False, error
            *printed, rest = (rest + file.read(LOG_BYTES).decode(errors="replace")).split("\n")
            say(*map(printable_lines, printed))
            if not active:
                break
            time.sleep(FOLLOW_EVERY_S)
        if rest and lines != 0:
            say(printable_lines(rest))
        if unknown is not None:
            raise unknown
