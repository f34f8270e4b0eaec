"""`accl tui`: the terminal app."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from accl.cli.options import RUNS, RunsOption
from accl.errors import ConfigError, TerminalError

CANNOT_DRAW = ("dumb", "unknown")  # terminals that do not move their cursor


def tui(
    runs: RunsOption = RUNS,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg", help="Write a screen as SVG instead; needs no terminal."),
    ] = None,
    press: Annotated[
        list[str] | None,
        typer.Option("--press", metavar="KEY", help="With --picture: a key to press before; may be repeated."),
    ] = None,
    reset_view: Annotated[
        bool, typer.Option("--reset-view", help="Forget how the screens were left: panes, orders, filters, colours.")
    ] = False,
    size: Annotated[str, typer.Option("--size", help="With --picture: columns x rows.")] = "120x36",
) -> None:
    """Watch, steer and compare runs in the terminal.

    Leaving the app never stops training.

    Examples:

      accl tui

      accl tui --picture confusion.svg --press enter --press 3
    """
    if picture is not None:
        measure = re.fullmatch(r"(\d+)x(\d+)", size)
        if not measure:
            raise ConfigError(f"--size {size} is not columns x rows.", "For example: --size 120x36")
        from tui.picture import take_picture

        take_picture(runs, picture, (int(measure[1]), int(measure[2])), press or [])
        return
    hint = "Without one, type: accl runs, or accl show RUN"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TerminalError("The app needs a terminal, and this is none.", hint)
    if (kind := os.environ.get("TERM", "")) in CANNOT_DRAW:
        raise TerminalError(f"This terminal cannot draw the app: TERM={kind}.", hint)
    from tui.app import AcclApp
    from tui.theme import forced_palette
    from tui.viewstate import ViewState, view_file

    view = ViewState(view_file(runs))
    if reset_view:
        view.reset()
    AcclApp(runs, view=view, palette=forced_palette(os.environ)).run()
