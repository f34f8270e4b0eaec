"""How commands print: one table description, five formats, and errors on stderr.

Rows hold raw values. What is read by people (table, md, tex) shows them through each column's ``show``;
what is read by programs (json, csv) gets the raw values, never rounded text.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from accl.cli.layout import print_table
from accl.errors import AcclError

Justify = Literal["left", "right", "center"]
Row = Mapping[str, Any]


class Format(StrEnum):
    """What ``--format`` takes."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    TEX = "tex"


# Ways to show one value --------------------------------------------------------------------------


def text(value: Any) -> str:
    """Any value in a few characters; nothing for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and not isinstance(value, Enum):
        return f"{value:,}"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def percent(value: float | None) -> str:
    """A fraction as per cent, without the sign: the unit belongs in the header."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, always signed."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:+.2f}"


def p_value(value: float | None) -> str:
    """A p value with two digits that mean something."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds as ``0.8 s``, ``42 s``, ``3 min 07 s`` or ``2 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(seconds: float | None) -> str:
    """Seconds since the epoch as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else "–"


# Tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column that people see.

    Args:
        key: of the row's value.
        header: what stands above; the key when empty.
        unit: put behind the header, as in ``accuracy (%)``.
        justify: numbers belong on the right.
        show: the value as people read it.
        cell: the same from the whole row, for cells made of several values; wins over ``show``.
        style: a rich style from the whole row. Never the only carrier of a meaning.
        wrap: cells may break between words where the terminal is narrow; all others stay whole.
    """

    key: str
    header: str = ""
    unit: str = ""
    justify: Justify = "left"
    show: Callable[[Any], str] = text
    cell: Callable[[Row], str] | None = None
    style: Callable[[Row], str] | None = None
    wrap: bool = False

    @property
    def title(self) -> str:
        name = self.header or self.key.replace("_", " ")
        return f"{name} ({self.unit})" if self.unit else name

    def render(self, row: Row) -> str:
        return self.cell(row) if self.cell else self.show(row.get(self.key))


@dataclass(frozen=True)
class Table:
    """Rows of raw values under columns. Keys without a column appear in json and csv only.

    Args:
        title: above the table.
        columns: what people see, in order; the first names the row.
        rows: raw values by key.
        name: key of this table in json where there are several; made from the title when empty.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row] = field(default_factory=list)
    name: str = ""

    @property
    def key(self) -> str:
        return self.name or "_".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    @property
    def keys(self) -> list[str]:
        """Every key of every row, in order of appearance; the columns' keys when there are no rows."""
        found = dict.fromkeys(key for row in self.rows for key in row)
        return list(found) or [column.key for column in self.columns]


def emit(
    tables: Table | Sequence[Table],
    format: Format = Format.TABLE,
    console: Console | None = None,
    *,
    data: Any = None,
    notes: Sequence[str] = (),
) -> None:
    """Print tables on stdout.

    A table too wide for the terminal gets stacked headers, else is turned on its side, else is printed record by
    record: lines never wrap into each other. json is one list for one table, and an object of lists by `Table.key` for
    several. csv puts an empty line between tables.

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
            console.print()
            console.print(Text(note))
        return
    if format is Format.JSON:
        if data is None:
            several = {table.key: table.rows for table in tables}
            data = tables[0].rows if len(tables) == 1 else several
        _write(console, json.dumps(plain(data), indent=2, ensure_ascii=False) + "\n")
    elif format is Format.CSV:
        _write(console, "\n".join(_csv(table) for table in tables))
        for note in notes:
            print(note, file=sys.stderr)  # noqa: T201
    elif format is Format.MD:
        parts = [_markdown(table) for table in tables] + [f"{_escape_markdown(note)}\n" for note in notes]
        _write(console, "\n".join(parts))
    else:
        parts = [_latex(table) for table in tables] + [f"% {note}\n" for note in notes]
        _write(console, "\n".join(parts))


def print_error(error: AcclError, console: Console | None = None) -> None:
    """What happened in one line, and below it what to type next, on stderr."""
    console = console or Console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), error.what), soft_wrap=True)
    if error.hint:
        # soft_wrap: a command to copy must not be broken by a newline.
        console.print(Text(error.hint), soft_wrap=True)


def print_notes(notes: Sequence[str]) -> None:
    """Print sentences on what was typed, such as an old name that was translated, on stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)  # noqa: T201


def plain(value: Any) -> Any:
    """A value as json can hold it: dataclasses as objects, times and numbers raw, NaN and infinity as null."""
    if isinstance(value, Enum):
        return value.value
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


# Inside ------------------------------------------------------------------------------------------


def _write(console: Console, content: str) -> None:
    """Past rich, which would wrap, highlight and read [brackets] as markup."""
    console.file.write(content)
    console.file.flush()


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.keys)
    for row in table.rows:
        values = [plain(row.get(key)) for key in table.keys]
        writer.writerow(
            json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value for value in values
        )
    return buffer.getvalue()


def _escape_markdown(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _markdown(table: Table) -> str:
    rule = {"left": ":---", "right": "---:", "center": ":---:"}
    lines = [f"**{_escape_markdown(table.title)}**\n"] if table.title else []
    lines.append("| " + " | ".join(_escape_markdown(column.title) for column in table.columns) + " |")
    lines.append("| " + " | ".join(rule[column.justify] for column in table.columns) + " |")
    lines += [
        "| " + " | ".join(_escape_markdown(column.render(row)) for column in table.columns) + " |" for row in table.rows
    ]
    return "\n".join(lines) + "\n"


_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "–": "--",
        "\n": " ",
    }
)


def _latex(table: Table) -> str:
    """A booktabs tabular, to be put inside a table environment."""
    lines = [f"% {table.title}"] if table.title else []
    lines.append(r"\begin{tabular}{" + "".join(column.justify[0] for column in table.columns) + "}")
    lines.append(r"\toprule")
    lines.append(" & ".join(column.title.translate(_TEX) for column in table.columns) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(column.render(row).translate(_TEX) for column in table.columns) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"
