"""What is written to the terminal when some cells of the screen have changed."""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class ChangedCells(ChopsUpdate):
    """An update that writes the changed spans alone: Textual's own begins each at the left edge of its widget."""

    def render_segments(self, console: Console) -> str:
        """Return the escape sequences and the text."""
        written: list[str] = []
        for y, first, last in self.spans:
            for (start, line), end in zip(self.chops[y].items(), self.chop_ends[y], strict=False):
                if line is not None and start < last and end > first:
                    left, right = max(start, first), min(end, last)
                    cells = line.crop(left - start, right - start).simplify()
                    written += [Control.move_to(left, y).segment.text, cells.render(console)]
        return "".join(written)
