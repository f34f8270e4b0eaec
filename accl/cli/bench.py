"""`accl bench`: measurements of accl on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Measure accl on this machine: its store, app, commands and training.",
)

_OUTPUT = typer.Option("--output", "-o", metavar="FILE.json", help="Write the report as JSON too.")
OutputOption = Annotated[Path | None, _OUTPUT]
RepeatOption = Annotated[int, typer.Option("--repeat", min=1, help="Samples of each figure.")]


@app.command()
def store(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a run's history.")] = 5000,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure what recording and following a run cost, and count lost rows.

    Recording is measured alone, and while another process reads the database all the time.

    Example:

      accl bench store --steps 1000 --output store.json
    """
    from accl.bench.store import measure

    _report(measure, output, format, "store", steps=steps)


@app.command()
def tui(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of each of the three runs shown.")] = 5000,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs in the list.")] = 100,
    repeat: RepeatOption = 10,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure how fast the app draws, without a terminal.

    Example:

      accl bench tui --runs 1000 --repeat 3
    """
    from accl.bench.commands import measure_app

    _report(measure_app, output, format, "tui", steps=steps, runs=runs, repeat=repeat)


@app.command()
def cli(
    runs: Annotated[int, typer.Option("--runs", min=3, help="Runs in the runs folder.")] = 100,
    repeat: RepeatOption = 10,
    output: OutputOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Measure commands from their start to their exit.

    Example:

      accl bench cli --runs 1000 --format md
    """
    from accl.bench.commands import measure_commands

    _report(measure_commands, output, format, "cli", runs=runs, repeat=repeat)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def train(context: typer.Context) -> None:
    """Measure training steps, in a process of its own.

    Every argument goes to that process. Its options are listed by:

      accl bench train -- --help

    Example:

      accl bench train baseline --profile demo --peer eager --steps 100
    """
    command = [sys.executable, "-m", "accl.bench.train", *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def table(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.json...", help="Reports written with --output.")],
) -> None:
    """Print reports as one Markdown table, with date, commit, device and versions.

    Example:

      accl bench table store.json cli.json
    """
    from accl.bench.report import Report
    from accl.cli.reports import origins, report_tables

    reports = [Report.read(file) for file in files]
    emit(report_tables(reports), Format.MD, notes=origins(reports))


def _report(
    measure: Callable[..., list[dict[str, Any]]], output: Path | None, format: Format, name: str, **settings: int
) -> None:
    """Measure in a temporary folder, write the report where asked, and print it."""
    from accl.bench.report import Report, origin
    from accl.cli.reports import figure_columns

    typer.echo("measuring …", err=True)
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        report = Report.create(name, settings, measure(Path(folder), **settings))
    if output is not None:
        report.write(output)
    emit(Table("", figure_columns(), report.rows, name=name), format, data=report, notes=[origin(report)])
