"""Updates of the terminal in few bytes.

Textual has no public place for this. Its own updates write each span from the left edge of its widget, and for every
piece the whole of its style, where this writes what differs from the piece before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.strip import Strip

if TYPE_CHECKING:
    from rich.segment import Segment

    Written = tuple[int, int, Iterable[Segment]]  # column and row of the first cell, and what follows from there

PLAIN = Style()


class ChangedCells(ChopsUpdate):
    """An update of the changed spans alone."""

    def render_segments(self, console: Console) -> str:
        """Return the escape sequences and the text."""
        return _sequences(self._written(), console)

    def _written(self) -> Iterator[Written]:
        for y, first, last in self.spans:
            for (start, line), end in zip(self.chops[y].items(), self.chop_ends[y], strict=False):
                if line is not None and start < last and end > first:
                    left, right = max(start, first), min(end, last)
                    yield left, y, line.crop(left - start, right - start)


class WholeLines(LayoutUpdate):
    """An update of all lines of a region."""

    def render_segments(self, console: Console) -> str:
        """Return the escape sequences and the text."""
        lines = enumerate(self.strips, self.region.y)
        return _sequences(((self.region.x, y, Strip.join(line)) for y, line in lines), console)


def _sequences(written: Iterable[Written], console: Console) -> str:
    """Return what makes the terminal show the pieces, whatever its style was, and leaves it without one."""
    system = console._color_system or ColorSystem.TRUECOLOR
    parts, style = ["\x1b[m"], PLAIN
    for x, y, line in written:
        parts.append(f"\x1b[{y + 1};{x + 1}H")  # CUP of ECMA-48, which counts from 1
        for text, wanted, _ in line:
            if wanted is not style:
                change, style = _change(style, wanted or PLAIN, text.isspace(), system)
                parts.append(change)
            parts.append(text)
    return "".join([*parts, "\x1b[m"])


@lru_cache(65536)
def _change(before: Style, after: Style, is_blank: bool, system: ColorSystem) -> tuple[str, Style]:
    """Return the sequence (SGR of ECMA-48) that leads from a style to another, or to one in which blanks look alike."""
    old, new = _codes(before, system), _codes(after, system)
    if is_blank and {old[0], new[0]} <= {"", "1"} and (new[2] or not old[2]):
        after, new = before + Style(bgcolor=after.bgcolor), (*old[:2], new[2])
    if old[0] != new[0] or any(was and not code for was, code in zip(old, new, strict=True)):
        codes = ["0", *filter(None, new)]
    else:
        codes = [code for was, code in zip(old, new, strict=True) if code != was]
    return f"\x1b[{';'.join(codes)}m" if codes else "", after


def _codes(style: Style, system: ColorSystem) -> tuple[str, str, str]:
    """Return the codes of the attributes, the colour and the background, empty where there is none."""
    parts = style.without_color, Style(color=style.color), Style(bgcolor=style.bgcolor)
    attributes, colour, background = (Strip.render_ansi(part, system) for part in parts)
    return attributes, colour, background


def shortened(update: Any) -> Any:
    """Return an update that shows what Textual's own does, in fewer bytes."""
    if isinstance(update, ChopsUpdate):
        return ChangedCells(update.chops, update.spans, update.chop_ends)
    if isinstance(update, LayoutUpdate):
        return WholeLines(update.strips, update.region)
    return update
