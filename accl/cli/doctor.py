"""`accl doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from accl.cli.completion import complete_profile
from accl.cli.options import RUNS, OverridesOption, RunsOption
from accl.cli.output import Format, FormatOption, emit
from accl.cli.table import Column, Table, fields

# The icons say what the colours say, for those who do not see them.
ICONS = {"ok": "✓", "warn": "!", "fail": "✗"}
COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="Only what this profile needs; else all that come with accl.",
            autocompletion=complete_profile,
        ),
    ] = None,
    overrides: OverridesOption = None,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Check that this machine has what training needs.

    The checks cover versions, GPU, memory, disk, folders, terminal, the Hub, and the model and data of each profile,
    with what --set puts in their place. The exit code is 1 when no profile can train here.

    Examples:

      accl doctor --profile paper

      accl doctor -p minilm --set data.path=mmlu --set model.name=all-MiniLM-L6-v2
    """
    from accl.config import available
    from accl.launch.checks import examine

    report = examine([profile] if profile else available("profiles"), runs, overrides or ())
    rows = [fields(check, check="name", result="level", found="finding", next="advice") for check in report.checks]
    columns = [
        Column("check", wrap=True),
        Column(
            "result",
            cell=lambda row: f"{ICONS[row['result']]} {row['result']}",
            style=lambda row: COLOURS[row["result"]],
        ),
        Column("found", wrap=True),
        Column("next", "what to do", wrap=True),
    ]
    emit(Table("", columns, rows, name="checks"), format)
    if not report.usable:
        raise typer.Exit(1)
