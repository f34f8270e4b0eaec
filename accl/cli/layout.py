"""How a table is laid out in a terminal: cells stay whole, and lines never wrap into each other."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from accl.cli.table import Column, Row, Table

if TYPE_CHECKING:
    from rich.console import Console

Grid = Sequence[Sequence[Text]]  # row by row, headers first

_WORDS = re.compile(r"\S+\s*")
_PARTS = re.compile(r"[^\s_]*_+\s*|\S+\s*")  # also of the names of settings, which arms are called by

GAP = 2  # blanks between columns
RULE = 40  # width of the line between records


def print_table(table: Table, console: Console) -> None:
    """Print the first layout that fits the terminal: upright, with stacked headers, on its side, record by record.

    A table that shall lie on its side does, unless not even one of its rows fits beside the headers.
    """
    columns, room = table.columns, console.width
    upright = [[Text(column.title) for column in columns]]
    upright += [[Text(c.render(row), c.style(row) if c.style else "") for c in columns] for row in table.rows]
    stacked, turned = _stack(upright), list(zip(*upright, strict=True))
    few = len(columns) < 3  # nothing is gained by records: let the cells break
    if table.sideways and (blocks := _blocks(turned, room)):
        for number, block in enumerate(blocks):
            if number:
                console.print()
            _draw("" if number else table.title, block, ["left", *["right"] * (len(block[0]) - 1)], console)
    elif (fitting := next((grid for grid in (upright, stacked) if _width(grid) <= room), None)) is not None:
        _draw(table.title, fitting, [column.justify for column in columns], console)
    elif few or _width(stacked, [column.wrap for column in columns]) <= room:
        _draw_wrapped(table, upright if few else stacked, console)
    elif len(table.rows) > 1 and _width(turned) <= room:
        _draw(table.title, turned, ["left", *["right"] * len(table.rows)], console)
    else:
        _draw_records(table.title, upright, console)


def least_width(column: Column, rows: Sequence[Row]) -> int:
    """Return the width of a column whose title is broken between words and whose cells stay whole."""
    return max(map(cell_len, [*column.title.split(), *(column.render(row) for row in rows)]), default=0)


def _blocks(turned: Grid, room: int) -> list[Grid]:
    """Split the columns beside the first into blocks that fit; none if one of them alone does not."""
    blocks: list[Grid] = []
    first, count = 1, len(turned[0])
    while first < count:
        block: Grid = []
        for end in range(first + 1, count + 1):
            wider = _stack([[row[0], *row[first:end]] for row in turned], _PARTS)
            if _width(wider) > room:
                break
            block = wider
        if not block:
            return []
        blocks.append(block)
        first += len(block[0]) - 1
    return blocks


def _draw(title: str, grid: Grid, justify: Sequence[str], console: Console) -> None:
    """Print a table that fits, every column as wide as its widest cell.

    rich's own table would measure and wrap each cell several times over, which takes long for a hundred runs.
    """
    widths = [_longest(column) for column in zip(*grid, strict=True)]
    drawn = Text()
    for part in textwrap.wrap(title, console.width):
        drawn.append(f"{part}\n", style="bold")
    for number, row in enumerate(grid):
        if number == 0 and _untitled(grid):
            continue
        for line in zip_longest(*(cell.plain.splitlines() or [""] for cell in row), fillvalue=""):
            for index, (content, cell, width, side) in enumerate(zip(line, row, widths, justify, strict=True)):
                blank = width - cell_len(content)
                left = {"left": 0, "right": blank, "center": blank // 2}[side]
                drawn.append(" " * (left + (GAP if index else 0)))
                drawn.append(content, style=cell.style if number else "bold")
                if index < len(row) - 1:
                    drawn.append(" " * (blank - left))
            drawn.append("\n")
        if number == 0:
            drawn.append(_rule(sum(widths) + GAP * (len(widths) - 1), console) + "\n")
    console.print(drawn, soft_wrap=True, end="")


def _draw_wrapped(table: Table, grid: Grid, console: Console) -> None:
    """Print a table whose columns break between words where they may; one or two columns all may."""
    import rich.box
    from rich.table import Table as RichTable

    title = Text(table.title, style="bold") if table.title else None
    drawn = RichTable(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    drawn.padding = (0, GAP - 1, 0, 0)  # the box adds a blank between columns
    drawn.show_header = not _untitled(grid)
    for column, header in zip(table.columns, grid[0], strict=True):
        whole = not column.wrap and len(table.columns) > 2
        drawn.add_column(header, justify=column.justify, no_wrap=whole, overflow="fold")
    for row in grid[1:]:
        drawn.add_row(*row)
    console.print(drawn)


def _untitled(grid: Grid) -> bool:
    """Return whether no column has a title, as in a list of properties: its header would be an empty line."""
    return not any(header.plain.strip() for header in grid[0])


def _draw_records(title: str, grid: Grid, console: Console) -> None:
    """Print a block of lines for each row, one line for each column."""
    from rich.table import Table as RichTable

    console.print(Text(title, style="bold"))
    for index, row in enumerate(grid[1:]):
        record = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        record.add_column(style="dim", overflow="fold")
        record.add_column(overflow="fold", ratio=1)
        for pair in zip(grid[0], row, strict=True):
            record.add_row(*pair)
        if index:
            console.print(Text(_rule(min(console.width, RULE), console), style="dim"))
        console.print(record)


def _rule(width: int, console: Console) -> str:
    return ("-" if console.options.ascii_only else "─") * width


def _stack(grid: Grid, parts: re.Pattern[str] = _WORDS) -> Grid:
    """Break headers between parts, no narrower than fits above their cells, and let them end in the same line."""
    headers = []
    for title, *cells in zip(*grid, strict=True):
        found = parts.findall(title.plain)
        width = max(map(cell_len, [*map(str.rstrip, found), *(cell.plain for cell in cells)]), default=1)
        lines = [""]
        for part in found:
            if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part
        headers.append([line.rstrip() for line in lines])
    height = max(map(len, headers))
    return [[Text("\n" * (height - len(lines)) + "\n".join(lines)) for lines in headers], *grid[1:]]


def _width(grid: Grid, wrap: Sequence[bool] = ()) -> int:
    """Return the width that the grid needs; cells of columns that may ``wrap`` count by their words."""
    columns = zip_longest(wrap, zip(*grid, strict=True))
    widths = [max(_longest([header]), _longest(cells, words)) for words, (header, *cells) in columns]
    return sum(widths) + GAP * (len(widths) - 1)


def _longest(cells: Iterable[Text], words: bool = False) -> int:
    """Return the width of the longest line, or word, in terminal cells."""
    parts = (part for cell in cells for part in (cell.plain.split() if words else cell.plain.splitlines()))
    return max(map(cell_len, parts), default=0)
