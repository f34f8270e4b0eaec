"""How commands print: tables in five formats, sentences, and errors on stderr. Commands print through this file alone.

Formats for people (table, md, tex) show values through each column's ``show``; formats for programs (json, csv) hold
the raw values, never rounded text. Text that a terminal would act upon is replaced in all of them but json, which
escapes it and so loses nothing.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment, Segments
from rich.text import Text

from accl.cli.layout import print_table
from accl.cli.table import Table
from accl.errors import AcclError, ConfigError
from accl.streams import styled
from accl.text import printable, printable_json, printable_lines, shortened, spreadsheet_text, without_credentials

LEAST_WIDTH = 10  # columns; lines are wrapped no narrower


class Format(StrEnum):
    """Values of ``--format``."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    TEX = "tex"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print; csv and json hold raw values.")]


class SafeConsole(Console):
    """A console that shows text as it is: no markup, no emoji, and nothing that a terminal would act upon."""

    def __init__(self, err: bool = False, **settings: Any) -> None:
        """Print on stdout, or on stderr if ``err``; rich takes the other settings."""
        stream = {"file": styled(sys.stderr if err else sys.stdout)}
        super().__init__(markup=False, emoji=False, highlight=False, **(stream | settings))
        if self.width < LEAST_WIDTH:  # COLUMNS=0, or a terminal that does not know: nothing would be printed
            self.width = LEAST_WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render with the text of every segment printable; rich's own controls, such as of the cursor, pass."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))


def say(*lines: str, err: bool = False, style: str = "") -> None:
    """Print lines, each of them in one line of its own whatever is in it, on stdout, or on stderr if ``err``."""
    if style:
        SafeConsole(err).print(Text("\n".join(map(printable, lines)), style), soft_wrap=True)
        return
    stream = styled(sys.stderr if err else sys.stdout)
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    stream.flush()


def say_fields(lines: Iterable[str]) -> None:
    """Print lines on stdout for a shell, to which the tabs within them mean something."""
    stream = styled(sys.stdout)
    stream.write("".join("\t".join(map(printable, line.split("\t"))) + "\n" for line in lines))
    stream.flush()


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
    console = console or SafeConsole()
    notes = [printable(note) for note in notes]
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
        parts = [_json(data, indent=2, ascii=not console.encoding.startswith("utf"))]
    elif format is Format.CSV:
        parts = [*map(_csv, tables)]
    elif format is Format.MD:
        parts = [*map(_markdown, tables), *map(_markdown_line, notes)]
    else:
        parts = [*map(_latex, tables), *(f"% {note}" for note in notes)]
    # Past rich, which would wrap.
    console.file.write("\n\n".join(parts) + "\n")
    console.file.flush()
    if format is Format.CSV:
        say(*notes, err=True)


def print_frame(lines: Iterable[Iterable[Segment]]) -> None:
    """Print the lines of a screen: with colours on a terminal that has them, else as plain text."""
    console = SafeConsole()
    if console.no_color or not console.is_terminal:
        say(*("".join(segment.text for segment in line).rstrip() for line in lines))
        return
    for line in lines:
        console.print(Segments(line), soft_wrap=True)


def print_error(error: AcclError, console: Console | None = None) -> None:
    """Print what happened in one line, and below it what to type next, on stderr."""
    console = console or SafeConsole(err=True)
    console.print(Text.assemble(("error: ", "bold red"), shortened(error.what)), soft_wrap=True)
    if error.hint:
        # soft_wrap: a command to copy must not be broken by a newline.
        console.print(Text(error.hint), soft_wrap=True)


def print_notes(notes: Sequence[str]) -> None:
    """Print sentences on what was typed, such as an old name that was translated, on stderr, without credentials."""
    say(*(f"note: {without_credentials(note)}" for note in notes), err=True)


def ask(question: str) -> bool:
    """Ask on stderr, and return whether the line that is typed on stdin says yes.

    Raises:
        ConfigError: there is nobody to type one.
    """
    if not (answer := prompt(f"{question} [y/N] ")):
        say(err=True)
        raise ConfigError("Nobody is there to answer.", "To do it without being asked, add: --yes")
    return answer.strip().casefold() in ("y", "yes")


def raise_first(errors: Sequence[AcclError]) -> None:
    """Print all errors but the first as notes, and raise that; do nothing without any."""
    print_notes([str(error) for error in errors[1:]])
    if errors:
        raise errors[0]


def prompt(words: str) -> str:
    """Ask for a line on stderr, and return what is typed on stdin with the end of its line; empty at the end of it."""
    stream = styled(sys.stderr)
    stream.write(printable(words))
    stream.flush()
    return sys.stdin.readline()


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


def _json(value: Any, indent: int | None = None, ascii: bool = False) -> str:
    return printable_json(json.dumps(plain(value), indent=indent, ensure_ascii=ascii))


def _csv(table: Table) -> str:
    buffer, keys = io.StringIO(), table.keys
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_csv_cell, keys))
    for row in table.rows:
        writer.writerow(_csv_cell(plain(row.get(key))) for key in keys)
    return buffer.getvalue().removesuffix("\n")


def _csv_cell(value: Any) -> Any:
    """Return a cell; an apostrophe before text that a spreadsheet would take for a formula."""
    if isinstance(value, (list, dict)):
        return _json(value)
    if not isinstance(value, str):
        return value
    return spreadsheet_text(value)


def _markdown(table: Table) -> str:
    rule = {"left": ":---", "right": "---:", "center": ":---:"}
    head, *rows = ([_escape_markdown(cell) for cell in cells] for cells in (table.titles, *table.cells))
    lines = [f"| {' | '.join(cells)} |" for cells in (head, [rule[column.justify] for column in table.columns], *rows)]
    return "\n".join([f"**{_escape_markdown(table.title)}**\n", *lines] if table.title else lines)


# What Markdown, HTML and GitHub's own forms of links and formulas begin with. Underscores within a word mean nothing.
_MARKDOWN = re.compile(r"[\\`*\[|~$#]|(?<!\w)_|_(?!\w)|(?<=[a-z]):(?=//)|(?<=www)\.", re.I)
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _escape_markdown(cell: str) -> str:
    return " ".join(_MARKDOWN.sub(r"\\\g<0>", cell).translate(_HTML).split())


def _markdown_line(note: str) -> str:
    """Escape a line that stands by itself, also what would begin a list or underline a heading."""
    return re.sub(r"^(\d*)(?=[-+=.)])", r"\1\\", _escape_markdown(note))


_TEX_WORDS = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {character: rf"\text{word}{{}}" for character, word in _TEX_WORDS.items()}
    # In braces: at the start of a row they would be arguments of the command before.
    | {character: f"{{{character}}}" for character in "[]*"}
    | {"±": r"$\pm$", "–": "--"}
)


def _latex(table: Table) -> str:
    """Write a booktabs tabular, to be put inside a table environment."""
    head, *rows = (
        " & ".join(cell.translate(_TEX) for cell in cells) + r" \\" for cells in (table.titles, *table.cells)
    )
    begin = r"\begin{tabular}{" + "".join(column.justify[0] for column in table.columns) + "}"
    lines = [begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([f"% {table.title}", *lines] if table.title else lines)
