"""Base of a widget that is made of many small pieces of lines, of which few change at a time."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Region, Size
from textual.strip import Strip

from tui.text import joined
from tui.widgets.strip import StripWidget

Blocks = dict[tuple[int, int], Strip]


class BlockWidget(StripWidget):
    """A widget that sends the terminal the changed cells of each block, and nothing else.

    Subclasses implement `draw_blocks`, and hand out the very strip of before where nothing has changed.
    """

    _lines: Sequence[Strip] = ()
    _painted = Size(0, 0)
    _width = 0

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._blocks: Blocks = {}

    def draw_blocks(self, width: int, height: int) -> Blocks:
        """Return the content: pieces of lines with their background, by column and row of their first cell."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        if self._painted != self.size:
            self._painted = self.size
            self._lines = self.draw(*self.size)
        return self._lines[y] if y < len(self._lines) else Strip.blank(self.size.width, self.rich_style)

    def redraw(self, whole: bool = False) -> None:
        """Draw what changed, and send the terminal no more than that; where it is the whole picture, all of it."""
        if self._painted != self.size or not self.size:  # nothing has been drawn yet
            self.refresh()
            return
        before = self._blocks
        self._blocks = self.draw_blocks(*self.size)
        if whole or before.keys() != self._blocks.keys():
            self._lines = self._join(range(self.size.height))
            self.refresh()
            return
        dirty = []
        for (x, y), block in self._blocks.items():
            if (old := before[x, y]) is not block and (span := changed_cells(old, block)):
                dirty.append(Region(x + span[0], y, span[1] - span[0], 1))
        if dirty:
            rows = sorted({region.y for region in dirty if region.y < len(self._lines)})
            lines = dict(zip(rows, self._join(rows), strict=True))
            self._lines = [lines.get(row, line) for row, line in enumerate(self._lines)]
            self.refresh(*dirty)

    def draw(self, width: int, height: int) -> list[Strip]:
        self._blocks, self._width = self.draw_blocks(width, height), width
        return self._join(range(height))

    def _join(self, rows: Sequence[int]) -> list[Strip]:
        """Join the blocks of rows to lines."""
        lines: dict[int, list[tuple[int, Strip]]] = {row: [] for row in rows}
        for (x, y), block in sorted(self._blocks.items(), key=lambda entry: entry[0]):
            if y in lines:
                lines[y].append((x, block))
        blank = self.rich_style
        return [joined(line, self._width, blank) for line in lines.values()]


def changed_cells(old: Strip, new: Strip) -> tuple[int, int] | None:
    """Return the first and one past the last cell in which two lines differ, None if they are the same."""
    a = [(character, segment.style) for segment in old for character in segment.text]
    b = [(character, segment.style) for segment in new for character in segment.text]
    if len(a) != len(b) or len(a) != new.cell_length:  # wide characters: the cells cannot be counted this way
        return (0, max(old.cell_length, new.cell_length)) if a != b else None
    different = [i for i, (one, other) in enumerate(zip(a, b, strict=True)) if one != other]
    return (different[0], different[-1] + 1) if different else None
