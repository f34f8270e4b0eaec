"""How a table is laid out in a terminal: cells stay whole, and lines never wrap into each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from accl.cli.table import Justify, Table

if TYPE_CHECKING:
    from rich.console import Console

Strings = Sequence[str]
Grid = Sequence[Strings]  # cells, or their styles, row by row

GAP = 2  # blanks between columns
RULE = 40  # width of the line between records


def print_table(table: Table, console: Console) -> None:
    """Print the first layout that fits the terminal: upright, with stacked headers, on its side, record by record."""
    columns, titles, cells = table.columns, table.titles, table.cells
    styles = [[column.style(row) if column.style else "" for column in columns] for row in table.rows]
    stacked = [_stack(title, [row[index] for row in cells]) for index, title in enumerate(titles)]
    for headers in (titles, stacked):
        if _width(headers, cells) <= console.width:
            _draw(table.title, headers, cells, styles, [column.justify for column in columns], console)
            return
    # With one or two columns nothing is gained by records: let their cells break.
    few = len(columns) < 3
    if few or _width(stacked, cells, [column.wrap for column in columns]) <= console.width:
        _draw_wrapped(table, titles if few else stacked, cells, styles, console)
        return
    names = [titles[0], *(row[0] for row in cells)]
    _, *turned = map(list, zip(titles, *cells, strict=True))
    if len(cells) > 1 and _width(names, turned) <= console.width:
        turned_styles = [["", *(row[index] for row in styles)] for index in range(1, len(columns))]
        right: list[Justify] = ["right"] * len(cells)
        _draw(table.title, names, turned, turned_styles, ["left", *right], console)
        return
    _draw_records(table.title, titles, cells, styles, console)


def _draw(
    title: str, headers: Strings, cells: Grid, styles: Grid, justify: Sequence[Justify], console: Console
) -> None:
    """Print a table that fits, every column as wide as its widest cell.

    rich's own table would measure and wrap each cell several times over, which is noticeable in a list of a hundred
    runs.
    """
    widths = [_longest(column) for column in zip(headers, *cells, strict=True)]
    drawn = Text()
    for part in textwrap.wrap(title, console.width):
        drawn.append(f"{part}\n", style="bold")
    for number, (row, row_styles) in enumerate(zip([headers, *cells], [["bold"] * len(widths), *styles], strict=True)):
        parts = [cell.splitlines() for cell in row]
        height = max([1, *map(len, parts)])
        for line in range(height):
            for index, lines in enumerate(parts):
                at = line - (height - len(lines) if number == 0 else 0)  # headers stand on the rule
                content = lines[at] if 0 <= at < len(lines) else ""
                blank = widths[index] - cell_len(content)
                left = {"left": 0, "right": blank, "center": blank // 2}[justify[index]]
                drawn.append(" " * (left + (GAP if index else 0)))
                drawn.append(content, style=row_styles[index])
                if index < len(parts) - 1:
                    drawn.append(" " * (blank - left))
            drawn.append("\n")
        if number == 0:
            drawn.append("─" * (sum(widths) + GAP * (len(widths) - 1)) + "\n")
    console.print(drawn, soft_wrap=True, end="")


def _draw_wrapped(table: Table, headers: Strings, cells: Grid, styles: Grid, console: Console) -> None:
    """Print a table whose columns break between words where they may; one or two columns all may."""
    import rich.box
    from rich.table import Table as RichTable

    grid = RichTable(
        title=Text(table.title, style="bold") if table.title else None,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0),  # the box adds a blank between columns
        pad_edge=False,
        show_edge=False,
    )
    for column, header in zip(table.columns, headers, strict=True):
        whole = not column.wrap and len(table.columns) > 2
        grid.add_column(Text(header), justify=column.justify, no_wrap=whole, overflow="fold", vertical="top")
    for row, row_styles in zip(cells, styles, strict=True):
        grid.add_row(*map(Text, row, row_styles))
    console.print(grid)


def _draw_records(title: str, titles: Strings, cells: Grid, styles: Grid, console: Console) -> None:
    """Print a block of lines for each row, one line for each column."""
    from rich.table import Table as RichTable

    console.print(Text(title, style="bold"))
    for index, (row, row_styles) in enumerate(zip(cells, styles, strict=True)):
        record = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        record.add_column(style="dim", overflow="fold")
        record.add_column(overflow="fold", ratio=1)
        for name, cell, style in zip(titles, row, row_styles, strict=True):
            record.add_row(Text(name), Text(cell, style=style))
        if index:
            console.print(Text("─" * min(console.width, RULE), style="dim"))
        console.print(record)


def _stack(title: str, column: Strings) -> str:
    """A header broken between words, no narrower than it must be to fit above its cells."""
    width = max([cell_len(part) for part in (*title.split(), *column)], default=1)
    return "\n".join(textwrap.wrap(title, width, break_long_words=False, break_on_hyphens=False))


def _width(headers: Strings, cells: Grid, wrap: Sequence[bool] = ()) -> int:
    """Width of the narrowest terminal that shows the grid; cells of columns that may wrap count by their words."""
    widths = [
        max(
            _longest([header]),
            *(_longest(row[index].split() if wrap and wrap[index] else [row[index]]) for row in cells),
            0,
        )
        for index, header in enumerate(headers)
    ]
    return sum(widths) + GAP * (len(widths) - 1)


def _longest(contents: Strings) -> int:
    """Width of the longest line, in terminal cells."""
    return max((cell_len(line) for content in contents for line in content.splitlines()), default=0)
