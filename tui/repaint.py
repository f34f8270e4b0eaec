"""Updates of the terminal in few bytes.

Textual has no public place for this. Its own updates write each span from the left edge of its widget, and a style
for every piece even where neighbours look alike.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.strip import Strip


class ChangedCells(ChopsUpdate):
    """An update of the changed spans alone."""

    def render_segments(self, console: Console) -> str:
        """Return the escape sequences and the text."""
        written: list[str] = []
        for y, first, last in self.spans:
            for (start, line), end in zip(self.chops[y].items(), self.chop_ends[y], strict=False):
                if line is not None and start < last and end > first:
                    left, right = max(start, first), min(end, last)
                    cells = line.crop(left - start, right - start).simplify()
                    written += [_move_to(left, y), cells.render(console)]
        return "".join(written)


class WholeLines(LayoutUpdate):
    """An update of all lines of a region."""

    def render_segments(self, console: Console) -> str:
        """Return the escape sequences and the text."""
        return "".join(
            _move_to(self.region.x, y) + Strip.join(line).simplify().render(console)
            for y, line in enumerate(self.strips, self.region.y)
        )


def _move_to(x: int, y: int) -> str:
    """Return the sequence (CUP of ECMA-48) that puts the terminal's cursor on a cell, counted from 0."""
    return f"\x1b[{y + 1};{x + 1}H"


def shortened(update: Any) -> Any:
    """Return an update that shows what Textual's own does, in fewer bytes."""
    if isinstance(update, ChopsUpdate):
        return ChangedCells(update.chops, update.spans, update.chop_ends)
    if isinstance(update, LayoutUpdate):
        return WholeLines(update.strips, update.region)
    return update
