"""Text of exact widths, durations, and bars made of block characters.

Everything that the app draws passes through `strip`, and everything that it measures through `cell_len`: here text
from runs is made printable, and nowhere else are lines made of text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import rich.cells
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from accl.text import printable
from tui import theme

Piece = tuple[str, Style]
BLOCKS = " ▏▎▍▌▋▊▉█"
SPARKS = "▁▂▃▄▅▆▇█"
BLANK_AND_SPARKS = " " + SPARKS


def cell_len(text: str) -> int:
    """Return the number of cells that the text takes on the screen, once it is printable."""
    if text.isascii() and text.isprintable():  # which is faster, and true of nearly all text
        return len(text)
    return rich.cells.cell_len(printable(text))


def cut(text: str, width: int) -> str:
    """Truncate the text to at most ``width`` cells, with an ellipsis if anything is missing."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    return rich.cells.set_cell_size(text, width - 1) + "…" if width > 1 else "…"


def cut_middle(text: str, width: int) -> str:
    """Shorten the text to at most ``width`` cells, keeping its end: names of arms differ in their last keys."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    head = rich.cells.set_cell_size(text, max(0, width - 1) // 3)
    room, start = width - 1 - cell_len(head), len(text)
    while start and cell_len(text[start - 1 :]) <= room:
        start -= 1
    return f"{head}…{text[start:]}" if width > 1 else cut(text, width)


def chopped(text: str, width: int) -> list[str]:
    """Return the text in pieces of at most ``width`` cells; one piece, if it is empty."""
    return rich.cells.chop_cells(printable(text), max(2, width)) or [""]


def fit(text: str, width: int, right: bool = False) -> str:
    """Truncate or pad the text to exactly ``width`` cells."""
    text = cut(text, width)
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank


def wrapped(text: str, width: int) -> list[str]:
    """Break the text into lines of at most ``width`` cells (two at least), at blanks where there are any."""
    width, lines, free = max(2, width), [""], max(2, width)
    for word in printable(text).split():
        for part in rich.cells.chop_cells(word, width):
            cells = rich.cells.cell_len(part)
            if lines[-1] and cells < free:
                lines[-1] += f" {part}"
                free -= cells + 1
            else:
                lines[len(lines) - (not lines[-1]) :] = [part]
                free = width - cells
    return lines


def strip(pieces: list[Piece], width: int, background: Style | None = None) -> Strip:
    """Make a line of exactly ``width`` cells from styled pieces."""
    line = Strip([Segment(printable(text), theme.painted(style)) for text, style in pieces if text])
    return line.adjust_cell_length(max(0, width), background and theme.painted(background))


def glyph_strip(pieces: list[Piece], width: int) -> Strip:
    """Make a line of glyphs of one cell each, none from a run, that are ``width`` cells together: in less time."""
    return Strip([Segment(text, theme.painted(style)) for text, style in pieces], width)


@lru_cache(65536)
def block(text: str, style: Style) -> Segment:
    """Make a piece of a line that comes again and again; its colours have no names, so no palette changes them."""
    return Segment(printable(text), style)


def beside(line: Strip, blocks: Iterable[Segment], width: int) -> Strip:
    """Return a line of ``width`` cells that goes on with blocks."""
    return Strip([*line, *blocks]).adjust_cell_length(width)


def with_cell(line: Strip, column: int, glyph: str, style: Style) -> Strip:
    """Return a line with another glyph in one cell."""
    before, _, after = line.divide([column, column + 1, line.cell_length])
    return Strip([*before, Segment(printable(glyph), theme.painted(style)), *after], line.cell_length)


def joined(blocks: Sequence[tuple[int, Strip]], width: int, blank: Style) -> Strip:
    """Join pieces of a line, by their first cell, to a line of ``width`` cells."""
    segments: list[Segment] = []
    at = 0
    for x, block in blocks:
        if x > at:
            segments.append(Segment(" " * (x - at), blank))
        segments += block
        at = x + block.cell_length
    return Strip(segments, at).adjust_cell_length(width, blank)


def centred(message: str, width: int, height: int, style: Style) -> list[Strip]:
    """Make the lines that show a message in the middle of an otherwise empty area."""
    return [*[Strip.blank(width)] * max(0, height // 2 - 1), strip([(printable(message).center(width), style)], width)]


def age(seconds: float) -> str:
    """Format seconds in the largest unit alone: ``42 s``, ``3 m``, ``5 h``, ``2 d``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def bar(share: float, width: int) -> str:
    """Draw a horizontal bar of ``width`` cells, filled to ``share`` in eighths of a cell."""
    if not math.isfinite(share):
        return " " * width
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(width)[:width]


def sparkline(values: list[float], width: int, bounds: tuple[float, float] | None = None) -> str:
    """Draw the newest ``width`` values as a sparkline, between bounds or else between the extremes of what is drawn."""
    known = [v for v in values[-width:] if math.isfinite(v)] if width > 0 else []
    if not known:
        return ""
    low, high = bounds or (min(known), max(known))
    span = high - low
    return "".join(SPARKS[round(min(max((v - low) / span, 0.0), 1.0) * 7) if span > 0 else 3] for v in known)
