"""`accl doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from accl.cli.output import Column, Format, Row, Table, emit


def doctor(
    profile: Annotated[
        str | None,
        typer.Option("--profile", "-p", help="Only what this profile needs; else all that come with accl."),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.TABLE,
    runs: Annotated[Path, typer.Option("--runs", envvar="ACCL_RUNS", help="The folder of the runs.")] = Path("runs"),
) -> None:
    """Check that this machine has what training needs.

    Looks at versions, GPU, memory, disk, folders, terminal, the Hub, and the model and data of each profile.
    Ends with exit code 1 when no profile can train here.
    """
    from accl.config import available
    from accl.launch.checks import examine

    report = examine([profile] if profile else available("profiles"), runs)
    rows = [
        {"check": check.name, "result": check.level.value, "found": check.finding, "next": check.advice}
        for check in report.checks
    ]
    icons = {check.level.value: check.level.icon for check in report.checks}
    columns = [
        Column("check", wrap=True),
        Column("result", cell=lambda row: f"{icons[row['result']]} {row['result']}", style=_colour),
        Column("found", wrap=True),
        Column("next", "what to do", wrap=True),
    ]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 is one of the findings, not an obstacle
    emit(Table("", columns, rows, name="checks"), format)
    if not report.usable:
        raise typer.Exit(1)


def _colour(row: Row) -> str:
    return {"ok": "green", "warn": "yellow", "fail": "bold red"}[row["result"]]
