"""A forest plot: the difference of each arm to the reference with its interval, and every seed as a dot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from tui import theme
from tui.raster import Range
from tui.scale import padded, short, ticks
from tui.text import Piece, cell_len, centred, cut, cut_middle, fit, strip
from tui.widgets.strip import StripWidget

MEAN, SEED, ZERO = "◆", "•", "│"


@dataclass(frozen=True)
class Effect:
    """A difference in points with its 95 % interval.

    Attributes:
        seeds: difference of each pair of seeds, with its style.
        p: adjusted p.
    """

    name: str
    style: Style
    delta: float
    low: float
    high: float
    seeds: tuple[tuple[float, Style], ...]
    p: float

    @property
    def numbers(self) -> str:
        """The difference in numbers."""
        return f"{self.delta:+5.1f} {f'[{self.low:+.1f},{self.high:+.1f}]':>13} {p_text(self.p):>5}"


def p_text(p: float) -> str:
    """Format a p value in at most five characters."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 0.1 else f"{p:.2f}".removeprefix("0")


class Forest(StripWidget):
    """Effects below each other on one axis, the seeds in lines of their own where there is room.

    Attributes:
        effects: in the order shown.
        selected: name of the one that is always visible.
    """

    effects: Sequence[Effect] = ()
    title = ""
    message = ""
    selected = ""

    def show(self, title: str, effects: Sequence[Effect], message: str, selected: str) -> None:
        """Replace the effects; the message is shown while there are none."""
        new = (title, list(effects), message, selected)
        if new == (self.title, self.effects, self.message, self.selected):
            return
        count = len(self.effects)
        self.title, self.effects, self.message, self.selected = title, list(effects), message, selected
        self.redraw()
        if count != len(effects):
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 2 + max(1, len(self.effects) * 2)

    def draw(self, width: int, height: int) -> list[Strip]:
        title = strip([(cut(self.title, width), theme.TITLE)], width)
        if not self.effects:
            return [title, *centred(cut(self.message, width), width, height - 1, theme.DIM)]
        names = min(max(cell_len(effect.name) for effect in self.effects), max(6, width // 4))
        numbers = max(len(effect.numbers) for effect in self.effects)
        cells = width - names - numbers - 2
        if cells < 11:  # the plot in numbers is more than a plot of nothing
            numbers, cells = 0, max(1, width - names - 1)
        ends = [x for effect in self.effects for x in (effect.low, effect.high, 0.0, *(x for x, _ in effect.seeds))]
        x_range = padded((min(ends), max(ends)))
        tall = height >= 2 + 2 * len(self.effects) and any(len(effect.seeds) > 1 for effect in self.effects)
        rows = max(1, (height - 2) // (1 + tall))
        chosen = next((i for i, effect in enumerate(self.effects) if effect.name == self.selected), 0)
        top = max(0, min(chosen - rows // 2, len(self.effects) - rows))
        lines = [title]
        for effect in self.effects[top : top + rows]:
            bold = Style(bold=effect.name == self.selected)
            plot = _interval(effect, cells, x_range, seeds=not tall)
            pieces: list[Piece] = [(fit(cut_middle(effect.name, names), names) + " ", effect.style + bold), *plot]
            if numbers:
                sure = theme.BOLD if effect.low > 0 or effect.high < 0 else theme.DIM
                pieces.append((" " + effect.numbers, sure))
            lines.append(strip(pieces, width))
            if tall:
                lines.append(strip([(" " * (names + 1), theme.DIM), *_dots(effect, cells, x_range)], width))
        axis = _axis(cells, x_range)
        heads = f" {'Δ':>5} {'95 %':>13} {'p':>5}" if numbers else ""
        return [*lines, strip([(" " * (names + 1) + axis + heads, theme.VERY_DIM)], width)]


def _cell(x: float, cells: int, x_range: Range) -> int:
    return min(cells - 1, max(0, round((x - x_range[0]) / (x_range[1] - x_range[0]) * (cells - 1))))


def _blank(cells: int, x_range: Range) -> list[Piece]:
    line: list[Piece] = [(" ", theme.RULE)] * cells
    line[_cell(0.0, cells, x_range)] = (ZERO, theme.RULE)
    return line


def _interval(effect: Effect, cells: int, x_range: Range, seeds: bool) -> list[Piece]:
    line = _blank(cells, x_range)
    low, high = (_cell(x, cells, x_range) for x in (effect.low, effect.high))
    zero = _cell(0.0, cells, x_range)
    for cell in range(low, high + 1):
        line[cell] = ("┼" if cell == zero else "─", effect.style)
    line[low], line[high] = ("├", effect.style), ("┤", effect.style)
    if seeds:
        _put_seeds(line, effect, x_range)
    line[_cell(effect.delta, cells, x_range)] = (MEAN, effect.style + Style(bold=True))
    return line


def _dots(effect: Effect, cells: int, x_range: Range) -> list[Piece]:
    line = _blank(cells, x_range)
    _put_seeds(line, effect, x_range)
    return line


def _put_seeds(line: list[Piece], effect: Effect, x_range: Range) -> None:
    """Put a dot for each seed, and where several share a cell how many there are."""
    at: dict[int, list[Style]] = {}
    for x, style in effect.seeds:
        at.setdefault(_cell(x, len(line), x_range), []).append(style)
    for cell, styles in at.items():
        line[cell] = (SEED if len(styles) == 1 else str(min(9, len(styles))), styles[0])


def _axis(cells: int, x_range: Range) -> str:
    """Return the labels below the plot."""
    text = [" "] * cells
    values = ticks(x_range, max(2, cells // 9))
    step = values[1] - values[0] if len(values) > 1 else None
    for value in sorted(values, key=abs):
        label = short(value, step) if value <= 0 else f"+{short(value, step)}"
        start = min(max(0, _cell(value, cells, x_range) - len(label) // 2), cells - len(label))
        if start >= 0 and all(c == " " for c in text[max(0, start - 1) : start + len(label) + 1]):
            text[start : start + len(label)] = label
    return "".join(text)


def interval_bar(low: float, middle: float, high: float, before: float, cells: int) -> str:
    """Draw an interval of shares with its middle and the share of another, from 0 to 1."""
    line = list("·" + " " * (cells - 2) + "·")
    if not all(map(math.isfinite, (low, middle, high))):
        return "".join(line)
    first, last = (_cell(x, cells, (0.0, 1.0)) for x in (low, high))
    line[first : last + 1] = "─" * (last + 1 - first)
    line[first], line[last] = "├", "┤"
    line[_cell(before, cells, (0.0, 1.0))] = "○"
    line[_cell(middle, cells, (0.0, 1.0))] = "●"
    return "".join(line)
