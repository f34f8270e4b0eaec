"""How commands print: tables in five formats, and errors on stderr.

Formats for people (table, md, tex) show values through each column's ``show``; formats for programs (json, csv) hold
the raw values, never rounded text.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from accl.cli.layout import print_table
from accl.cli.table import Table
from accl.errors import AcclError


class Format(StrEnum):
    """Values of ``--format``."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    TEX = "tex"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print; csv and json hold raw values.")]


def emit(
    tables: Table | Sequence[Table],
    format: Format = Format.TABLE,
    console: Console | None = None,
    *,
    data: Any = None,
    notes: Sequence[str] = (),
) -> None:
    """Print tables on stdout.

    json is one list for one table, and an object of lists by `Table.key` for several.

    Args:
        console: stdout when None.
        data: printed as json instead of the tables' rows.
        notes: sentences below the tables; on stderr with csv, and absent from json (put them in ``data``).
    """
    tables = [tables] if isinstance(tables, Table) else list(tables)
    console = console or Console()
    if format is Format.TABLE:
        for index, table in enumerate(tables):
            if index:
                console.print()
            print_table(table, console)
        for note in notes:
            console.print(Text(f"\n{note}"))
        return
    if format is Format.JSON:
        if data is None:
            data = tables[0].rows if len(tables) == 1 else {table.key: table.rows for table in tables}
        parts = [json.dumps(plain(data), indent=2, ensure_ascii=False)]
    elif format is Format.CSV:
        parts = [*map(_csv, tables)]
    elif format is Format.MD:
        parts = [*map(_markdown, tables), *map(_escape_markdown, notes)]
    else:
        parts = [*map(_latex, tables), *(f"% {note}" for note in notes)]
    # Past rich, which would wrap, highlight and read [brackets] as markup.
    console.file.write("\n\n".join(parts) + "\n")
    console.file.flush()
    if format is Format.CSV:
        print("".join(f"{note}\n" for note in notes), file=sys.stderr, end="")  # noqa: T201


def print_error(error: AcclError, console: Console | None = None) -> None:
    """Print what happened in one line, and below it what to type next, on stderr."""
    console = console or Console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), error.what), soft_wrap=True)
    if error.hint:
        # soft_wrap: a command to copy must not be broken by a newline.
        console.print(Text(error.hint), soft_wrap=True)


def print_notes(notes: Sequence[str]) -> None:
    """Print sentences on what was typed, such as an old name that was translated, on stderr."""
    print("".join(f"note: {note}\n" for note in notes), file=sys.stderr, end="")  # noqa: T201


def plain(value: Any) -> Any:
    """Convert a value to what json can hold: dataclasses to objects, NaN and infinity to null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no json form")


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.keys)
    for row in table.rows:
        values = (plain(row.get(key)) for key in table.keys)
        writer.writerow(json.dumps(x, ensure_ascii=False) if isinstance(x, (list, dict)) else x for x in values)
    return buffer.getvalue().removesuffix("\n")


def _markdown(table: Table) -> str:
    rule = {"left": ":---", "right": "---:", "center": ":---:"}
    head, *rows = ([_escape_markdown(cell) for cell in cells] for cells in (table.titles, *table.cells))
    lines = [f"| {' | '.join(cells)} |" for cells in (head, [rule[column.justify] for column in table.columns], *rows)]
    return "\n".join([f"**{_escape_markdown(table.title)}**\n", *lines] if table.title else lines)


def _escape_markdown(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


_TEX_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater"}
_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {character: rf"\text{word}{{}}" for character, word in _TEX_WORDS.items()}
    | {"±": r"$\pm$", "–": "--", "\n": " "}
)


def _latex(table: Table) -> str:
    """Write a booktabs tabular, to be put inside a table environment."""
    head, *rows = (
        " & ".join(cell.translate(_TEX) for cell in cells) + r" \\" for cells in (table.titles, *table.cells)
    )
    begin = r"\begin{tabular}{" + "".join(column.justify[0] for column in table.columns) + "}"
    lines = [begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([f"% {table.title}", *lines] if table.title else lines)
