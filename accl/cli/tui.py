"""`accl tui`: the terminal app, its screens as text and pictures, and the app in a browser."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from accl.cli.completion import complete_arm
from accl.cli.options import RUNS, RunsOption, output_file, run_name
from accl.errors import ConfigError, RunError, TerminalError
from accl.store.rundir import RunDir

CANNOT_DRAW = ("dumb", "unknown")  # terminals that do not move their cursor
SIZE = (120, 36)  # columns and rows of a screen without a terminal
SMALLEST, LARGEST = (20, 5), (500, 200)


def tui(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=run_name,
            metavar="[RUN|EXPERIMENT]...",
            help="Open this run, or compare several, or those of an experiment.",
            show_default=False,
            autocompletion=complete_arm,
        ),
    ] = None,
    runs: RunsOption = RUNS,
    once: Annotated[bool, typer.Option("--once", help="Print a screen as text instead; needs no terminal.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            parser=output_file,
            metavar="FILE.svg",
            help="Write a screen as SVG instead; needs no terminal.",
        ),
    ] = None,
    press: Annotated[
        list[str] | None,
        typer.Option("--press", metavar="KEY", help="With --once, --picture: a key to press before; may be repeated."),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="CxR", help="With --once, --picture: columns x rows.")
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve the app to browsers of this machine instead.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="With --web: where it listens.")] = 8000,
    reset_view: Annotated[
        bool, typer.Option("--reset-view", help="Forget how the screens were left: panes, orders, filters, colours.")
    ] = False,
) -> None:
    """Watch, steer and compare runs in the terminal.

    Leaving the app never stops training. A RUN is an id, a part of it, a path, or `last`, and an
    experiment is all of its runs; where several are named, a recipe means the run that accl compare would take.

    Screens printed or drawn are complete: they wait for what is read and computed, not for a time.

    Examples:

      accl tui baseline full

      accl tui weights

      accl tui last --once --press 3 --size 100x30

      accl tui --picture confusion.svg --press enter --press 3

      accl tui --reset-view

      accl tui --web --port 8001
    """
    snapshot = once or picture is not None
    if not snapshot and (press or size):
        raise ConfigError("--press and --size are for screens without a terminal.", "Add --once, or --picture FILE.svg")
    if snapshot and web:
        raise ConfigError("--web shows the app itself, not one screen.", "Leave out --once and --picture.")
    opened = named_runs(runs, names or [])
    if snapshot:
        _snapshot(runs, opened, once, picture, press or [], _measure(size))
    elif web:
        from accl.cli.output import say
        from tui.web import serve

        serve(runs, opened, port, say)
    else:
        open_app(runs, opened, reset_view)


def open_app(root: Path, opened: Sequence[RunDir] = (), reset_view: bool = False) -> None:
    """Open the app in this terminal, over the list the runs that are ``opened``; as it was left, or as the first time.

    Raises:
        TerminalError: there is no terminal that can draw it.
    """
    hint = "Without one, type: accl runs, or accl tui --once"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TerminalError("The app needs a terminal, and this is none.", hint)
    if (kind := os.environ.get("TERM", "")) in CANNOT_DRAW:
        raise TerminalError(f"This terminal cannot draw the app: TERM={kind}.", hint)
    # What the app imports lives as long as it does, and searching it for garbage takes a fifth of the start. The app
    # goes on with the search once it is there.
    gc.disable()
    from tui.app import AcclApp
    from tui.theme import forced_palette
    from tui.viewstate import ViewState, view_file

    view = ViewState(view_file(root))
    if reset_view:
        view.reset()
    AcclApp(root, opened=opened, view=view, palette=forced_palette(os.environ)).run()


def named_runs(root: Path, names: Sequence[str]) -> list[RunDir]:
    """Return the runs that names mean, each once.

    A name means the run of `find_run`, or else all runs of an experiment; where one means neither, several mean those
    of `select_runs`.

    Raises:
        RunError, CompareError: a name means no run, or several.
    """
    try:
        return list(dict.fromkeys(run for name in names for run in _meant(root, name)))
    except RunError:
        if len(names) < 2:
            raise
        from accl.analysis.select import select_runs

        return list(dict.fromkeys(select_runs(root, names).runs))


def _meant(root: Path, name: str) -> list[RunDir]:
    from accl.store.experiment import read_experiments
    from accl.store.rundir import find_run, list_runs

    try:
        return [find_run(root, name)]
    except RunError:
        if members := read_experiments(list_runs(root)).get(name):
            return members
        raise


def _snapshot(
    root: Path,
    opened: Sequence[RunDir],
    once: bool,
    picture: Path | None,
    keys: Sequence[str],
    size: tuple[int, int],
) -> None:
    from accl.cli.output import print_frame
    from tui.snapshot import take_snapshot

    snapshot = take_snapshot(root, opened, size, keys)
    if picture is not None:
        snapshot.save(picture)
    if once:
        print_frame(snapshot.lines)


def _measure(size: str | None) -> tuple[int, int]:
    """Read ``--size``; `SIZE` without it.

    Raises:
        ConfigError: it is not columns x rows, or the app cannot have that size.
    """
    if size is None:
        return SIZE
    measure = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size)
    if not measure:
        raise ConfigError(f"--size {size} is not columns x rows.", "For example: --size 120x36")
    columns, rows = int(measure[1]), int(measure[2])
    if not (SMALLEST[0] <= columns <= LARGEST[0] and SMALLEST[1] <= rows <= LARGEST[1]):
        least, most = ("x".join(map(str, limit)) for limit in (SMALLEST, LARGEST))
        raise ConfigError(f"--size {size} is not from {least} to {most}.", "For example: --size 120x36")
    return columns, rows
