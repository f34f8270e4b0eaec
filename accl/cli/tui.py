"""`accl tui`: the terminal app."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from accl.errors import TerminalError


def tui(
    runs: Annotated[
        Path, typer.Option("--runs", envvar="ACCL_RUNS", help="Folder of the runs.", show_envvar=True)
    ] = Path("runs"),
) -> None:
    """Watch, steer and compare runs in the terminal.

    Leaving it never stops training.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "") == "dumb":
        raise TerminalError(
            "The app needs a terminal, and this is none.", "Without one, type: accl runs, or accl show RUN"
        )
    from tui.app import AcclApp

    AcclApp(runs).run()
