"""Progress and options of the commands that need the model of a run: `accl test`, `evaluate`, `ask`, `export`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from accl.cli.output import SafeConsole
from accl.cli.table import Row, percent, span

if TYPE_CHECKING:
    from accl.store.rundir import RunDir


_NUMBERS = re.compile(r"[\d,]+")


class Checkpoint(StrEnum):
    """Values of ``--checkpoint``."""

    BEST = "best"
    LAST = "last"


CheckpointOption = Annotated[
    Checkpoint, typer.Option("--checkpoint", help="Weights that validation chose, or the last ones.")
]


@contextmanager
def progress(run: RunDir) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done with the model of a run: in one line that vanishes, or line by line."""
    console = SafeConsole(err=True)
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status(Text(f"{run.id} …")) as status:  # a Text: rich reads markup in what is only a string
            yield lambda words: status.update(Text(f"{run.id}: {words} …"))
        return
    printed = ""

    def say(words: str) -> None:
        nonlocal printed
        if (kind := _NUMBERS.sub("", words)) != printed:  # a phase that counts is told once
            printed = kind
            console.print(f"{run.id}: {words} …", soft_wrap=True)

    yield say


def interval(row: Row) -> str:
    """Write the interval of a share, in per cent."""
    return span(row["low"], row["high"], percent)
