"""`accl report`: an experiment as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accl.cli.completion import complete_arm
from accl.cli.figure import arms_table
from accl.cli.options import (
    RUNS,
    SPLIT_HELP,
    OneProfileOption,
    ReferenceOption,
    RunsOption,
    Split,
    checked_suffix,
    output_file,
    run_name,
    writing,
)
from accl.cli.output import emit, print_notes, say

ReportSplitOption = Annotated[
    Split | None,
    typer.Option("--split", help=SPLIT_HELP, show_default="test, or validation where nothing was tested"),
]
OUTPUT = Path("report.html")
SUFFIXES = (".html", ".htm")


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=run_name,
            metavar="RUN",
            help="Experiments, recipes, run ids or paths. Without any: all finished runs.",
            autocompletion=complete_arm,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", parser=output_file, metavar="FILE.html", help="Where to write the page.")
    ] = OUTPUT,
    profile: OneProfileOption = None,
    reference: ReferenceOption = None,
    split: ReportSplitOption = None,
    runs: RunsOption = RUNS,
) -> None:
    """Write one HTML page: results, curves, confusion, tasks, claims.

    The page needs neither a network nor scripts, is light or dark as the
    reader's system is, and can be printed. Where all arms have the same
    seeds its numbers are those of accl compare. Runs whose profile,
    protocol or data differ stand in parts of their own.

    Examples:

      accl report

      accl report baseline contrastive full -o ablation.html

      accl report weights --reference baseline --split validation -o weights.html
    """
    path = checked_suffix(output, SUFFIXES)
    from accl.analysis.report.gather import gather
    from accl.analysis.report.page import page
    from accl.files import replace_file

    found = gather(runs, names or (), profile=profile, reference=reference, split=split.value if split else None)
    content = page(found).encode()
    with writing(path):
        replace_file(path, content)
    emit([arms_table(part.chosen) for part in found.parts])
    print_notes(list(dict.fromkeys(note for part in found.parts for note in (*part.chosen.notes, *part.problems))))
    say(f"Wrote {path} ({len(content) / 1e6:.1f} MB)")
