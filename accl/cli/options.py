"""Arguments and options that several commands share; `accl.cli.output` has that of the format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[str, typer.Argument(help="Id, a part of it, a path, or `last`.", show_default=False)]
RunsOption = Annotated[Path, typer.Option("--runs", envvar="ACCL_RUNS", help="The folder of the runs.")]
RUNS = Path("runs")  # the default of `RunsOption`
_OVERRIDES = typer.Option("--set", metavar="KEY=VALUE", help="Override one value; may be repeated.")
OverridesOption = Annotated[list[str] | None, _OVERRIDES]
_DETACH = typer.Option("--detach", "-d", help="Print the run's id and return; the run goes on by itself.")
DetachOption = Annotated[bool, _DETACH]
