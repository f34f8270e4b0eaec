"""The task weights as horizontal bars, with a mark where a uniform distribution would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.strip import Strip

from tui import theme
from tui.scale import percent
from tui.text import Piece, bar, fit, spark, strip
from tui.widgets.drawn import Listing

COLOUR_OF_GROUP = (theme.ACCENT, "#f2a93b", theme.GOOD, "#dd8fbd", theme.INFO, "#f2e863")


@dataclass(frozen=True)
class Bar:
    """``value``: the weight; ``drawn``: questions drawn so far; ``trend``: the weight at the last updates."""

    name: str
    group: str
    value: float
    drawn: int
    trend: tuple[float, ...] = ()


class Bars(Listing):
    """One bar a line, to be scrolled through."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.bars: list[Bar] = []
        self.mark = 0.0

    def show(self, bars: Sequence[Bar], mark: float) -> None:
        """``mark``: the value of a uniform distribution."""
        bars = list(bars)
        if bars != self.bars or mark != self.mark:
            self.bars, self.count, self.mark = bars, len(bars), mark
            self.redraw()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self.bars:
            text = "no task weights yet"
            blank = [Strip.blank(width)] * max(0, height // 2 - 1)
            return [*blank, strip([(text.center(width), theme.VERY_DIM)], width)]
        names = min(max(cell_len(b.name) for b in self.bars), max(6, width // 3), 36)
        counts = max(5, max(len(f"{b.drawn:,}") for b in self.bars))
        trend = 16 if width >= 110 and any(len(b.trend) > 1 for b in self.bars) else 0
        groups = max(cell_len(b.group) for b in self.bars) if width >= 130 else 0
        fixed = names + 1 + 7 + 1 + 6 + (counts + 1) + (trend + 1 if trend else 0) + (groups + 1 if groups else 0)
        room = width - fixed - 2
        bars = max(0, room)
        head: list[Piece] = [(fit("task", names), theme.VERY_DIM), (" ", theme.PLAIN)]
        if groups:
            head.append((fit("category", groups) + " ", theme.VERY_DIM))
        most = max(max(b.value for b in self.bars), self.mark) or 1.0
        at = min(bars - 1, int(self.mark / most * bars)) if bars else -1
        if bars:
            uniform = " ▾ uniform"
            head.append((fit(" " * max(0, at - 1) + uniform, bars) if at >= 1 else fit("▾ uniform", bars), theme.MARK))
        head.append((fit("weight", 8, right=True) + fit("ratio", 7, right=True), theme.VERY_DIM))
        head.append((fit("drawn", counts + 1, right=True), theme.VERY_DIM))
        if trend:
            head.append((" " + fit("trend", trend), theme.VERY_DIM))
        order = sorted({b.group for b in self.bars})
        lines = [strip(head, width)]
        for entry in self.window(height - self.head):
            item = self.bars[entry]
            here = entry == self.cursor
            ground = (theme.CURSOR if self.has_focus else theme.CURSOR_UNFOCUSED).bgcolor if here else None
            over = Style(bgcolor=ground)
            hue = Style(color=COLOUR_OF_GROUP[order.index(item.group) % len(COLOUR_OF_GROUP)])
            pieces: list[Piece] = [(fit(item.name, names), theme.BOLD if here else theme.PLAIN), (" ", theme.PLAIN)]
            if groups:
                pieces.append((fit(item.group, groups) + " ", hue))
            pieces += _with_mark(bar(item.value / most, bars), at, hue)
            pieces.append((fit(percent(item.value), 8, right=True), theme.PLAIN))
            ratio = f"×{item.value / self.mark:.2f}" if self.mark > 0 else ""
            pieces.append((fit(ratio, 7, right=True), theme.DIM))
            pieces.append((fit(f"{item.drawn:,}", counts + 1, right=True), theme.DIM))
            if trend:
                pieces.append((" " + fit(spark(list(item.trend), trend), trend), hue))
            lines.append(strip([(text, style + over) for text, style in pieces], width, over))
        return lines


def _with_mark(text: str, at: int, hue: Style) -> list[Piece]:
    """The bar with a thin line at the mark, on top of it or behind its end."""
    if not 0 <= at < len(text):
        return [(text, hue)]
    inside = text[at] == "█"
    sign: Piece = ("│", Style(color=theme.BACKGROUND, bgcolor=hue.color)) if inside else ("│", theme.MARK)
    if text[at] not in " █":  # the bar ends in this very cell: its end says more than the mark
        sign = (text[at], hue)
    return [(text[:at], hue), sign, (text[at + 1 :], hue)]
