"""Task weights as horizontal bars, with a mark at the weight of the uniform distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.scale import percent
from tui.text import Piece, bar, cell_len, centred, fit, sparkline, strip
from tui.widgets.listing import Listing

GROUP_COLOURS = (theme.ACCENT, *theme.SERIES[:6])


@dataclass(frozen=True)
class Bar:
    """Weight of a task, the number of questions drawn from it, and its last weights, oldest first."""

    name: str
    group: str
    value: float
    drawn: int
    trend: tuple[float, ...] = ()


class Bars(Listing):
    """A scrollable list of bars; ``uniform`` is the value to mark."""

    bars: Sequence[Bar] = ()
    uniform = 0.0

    def show(self, bars: Sequence[Bar], uniform: float) -> None:
        """Replace the bars and the marked value."""
        if list(bars) != self.bars or uniform != self.uniform:
            self.bars, self.count, self.uniform = list(bars), len(bars), uniform
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.bars:
            return centred("no task weights yet", width, height, theme.VERY_DIM)
        # Widths of the columns; 0 leaves a column out.
        names = min(max(cell_len(b.name) for b in self.bars), max(6, width // 3), 36)
        counts = max(5, max(len(f"{b.drawn:,}") for b in self.bars)) + 1
        trend = 16 if width >= 110 and any(len(b.trend) > 1 for b in self.bars) else 0
        # One scale for all sparks, so that tasks can be compared.
        highest = max((value for b in self.bars for value in b.trend if math.isfinite(value)), default=0.0)
        groups = max(cell_len(b.group) for b in self.bars) if width >= 130 else 0
        cells = max(0, width - names - counts - 17 - (trend + 1 if trend else 0) - (groups + 1 if groups else 0))
        largest = max(max(b.value for b in self.bars), self.uniform) or 1.0
        mark = min(cells - 1, int(self.uniform / largest * cells)) if cells else -1
        head: list[Piece] = [(fit("task", names), theme.VERY_DIM), (" ", theme.PLAIN)]
        if groups:
            head.append((fit("category", groups) + " ", theme.VERY_DIM))
        if cells:
            head.append((fit(" " * max(0, mark - 1) + (" " if mark >= 1 else "") + "▾ uniform", cells), theme.MARK))
        numbers = fit("weight", 8, right=True) + fit("ratio", 7, right=True) + fit("drawn", counts, right=True)
        head.append(
            (numbers + (" " + fit(f"trend, to {percent(highest, 0.01)}", trend) if trend else ""), theme.VERY_DIM)
        )
        group_order = sorted({b.group for b in self.bars})

        def pieces(entry: int) -> list[Piece]:
            item = self.bars[entry]
            colour = Style(color=GROUP_COLOURS[group_order.index(item.group) % len(GROUP_COLOURS)])
            ratio = f"×{item.value / self.uniform:.2f}" if self.uniform > 0 else ""
            return [
                (fit(item.name, names) + " ", theme.BOLD if entry == self.cursor else theme.PLAIN),
                (fit(item.group, groups) + " " if groups else "", colour),
                *_with_mark(bar(item.value / largest, cells), mark, colour),
                (fit(percent(item.value), 8, right=True), theme.PLAIN),
                (fit(ratio, 7, right=True) + fit(f"{item.drawn:,}", counts, right=True), theme.DIM),
                (" " + fit(sparkline(list(item.trend), trend, (0.0, highest)), trend) if trend else "", colour),
            ]

        return [strip(head, width), *self.draw_entries(width, height, pieces)]


def _with_mark(text: str, column: int, colour: Style) -> list[Piece]:
    """Draw a thin vertical line over the bar, or over the space after its end."""
    if not 0 <= column < len(text):
        return [(text, colour)]
    inside = text[column] == "█"
    mark: Piece = ("│", Style(color=theme.BACKGROUND, bgcolor=colour.color)) if inside else ("│", theme.MARK)
    if text[column] not in " █":  # the exact end of the bar matters more than the mark
        mark = (text[column], colour)
    return [(text[:column], colour), mark, (text[column + 1 :], colour)]
