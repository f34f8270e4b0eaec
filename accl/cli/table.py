"""Tables as data: rows of raw values, the columns that people see, and how a single value reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from accl.text import printable, shortened

Justify = Literal["left", "right", "center"]
Row = Mapping[str, Any]

MISSING = "–"


def text(value: Any) -> str:
    """Write any value in a few characters."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(".6g")(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def number(spec: str, scale: float = 1) -> Callable[[float | None], str]:
    """Return a function that formats ``scale`` times a number by ``spec``, and None and NaN as a dash."""
    return lambda value: MISSING if value is None or math.isnan(value) else format(scale * value, spec)


# The unit of these belongs in the header.
percent = number(".2f", 100)  # a fraction as per cent
points = number("+.2f", 100)  # a difference of fractions in percentage points, always signed
score = number(".4f")  # a score that is no share, such as a calibration error


def p_value(value: float | None) -> str:
    """Write a p value with as many digits as mean something."""
    return "< 0.001" if value is not None and value < 0.001 else number(".3f")(value)


def span(low: float | None, high: float | None, show: Callable[[float | None], str] = points) -> str:
    """Write the ends of an interval as ``+0.30 to +2.10``."""
    return MISSING if low is None else f"{show(low)} to {show(high)}"


def size(count: float | None) -> str:
    """Write bytes as ``7 kB``, ``12.5 MB`` or ``4.4 GB``, in powers of ten."""
    if count is None:
        return MISSING
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 999.5 and unit != "TB":
        count, unit = count / 1000, next(units)
    return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"


def moment(seconds: float | None) -> str:
    """Write seconds since the epoch as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else MISSING


def fields(item: object | None, *names: str, **renamed: str) -> dict[str, Any]:
    """Return attributes of ``item`` by key (``renamed``) as raw values of a row, all None without an item."""
    attributes = {name: name for name in names} | renamed
    return {key: None if item is None else getattr(item, name) for key, name in attributes.items()}


@dataclass(frozen=True)
class Column:
    """A column that people see.

    Args:
        key: key of the value in a row.
        header: title of the column; the key when empty. A unit is appended, as in ``accuracy (%)``.
        show: formats the value.
        cell: formats a cell from the whole row, for cells made of several values; wins over ``show``.
        style: rich style from the whole row. Never the only carrier of a meaning.
        wrap: whether cells may break between words where the terminal is narrow; all others stay whole.
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
        return printable(f"{name} ({self.unit})" if self.unit else name)

    def render(self, row: Row) -> str:
        """Return the cell of a row, in one line, printable and no longer than anybody reads."""
        return printable(shortened(self.cell(row) if self.cell else self.show(row.get(self.key))))


@dataclass(frozen=True)
class Table:
    """Rows of raw values by key, under columns. Keys without a column appear in json and csv only.

    Titles and cells are printable, rows hold whatever they were given.

    ``name`` is the key of this table in json where there are several; made from the title when empty. A table that is
    ``sideways`` has its rows side by side in a terminal, as many as fit, with the headers on the left.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row] = field(default_factory=list)
    name: str = ""
    sideways: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))

    @property
    def key(self) -> str:
        return self.name or "_".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    @property
    def keys(self) -> list[str]:
        """Every key of every row, in order of appearance; the columns' keys when there are no rows."""
        keys = dict.fromkeys(key for row in self.rows for key in row)
        return list(keys) or [column.key for column in self.columns]

    @property
    def titles(self) -> list[str]:
        return [column.title for column in self.columns]

    @property
    def cells(self) -> list[list[str]]:
        """The cells that people see, row by row."""
        return [[column.render(row) for column in self.columns] for row in self.rows]
