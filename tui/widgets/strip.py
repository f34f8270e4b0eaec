"""Base of the Line API widgets: whole lines, drawn once and kept until something changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING

from rich.style import Style
from textual import events
from textual.filter import ANSIToTruecolor, LineFilter
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from tui.text import cell_len

if TYPE_CHECKING:
    from rich.segment import Segment

WHEEL_LINES = 3
UNBOUNDED = 1_000_000_000  # a move this far ends at the first or last line
Cell = tuple[str, Style | None]
MOVE_CELLS = 8  # moving the terminal's cursor takes about as many bytes as so many cells


class StripWidget(Widget):
    """A widget made of strips. Subclasses implement `draw` and call `redraw` after a change.

    What is drawn anew is compared with what is shown, and only the cells that differ are written to the terminal.

    Attributes:
        has_background: whether `draw` gives every cell a background; without, it gets that of the widget.
    """

    ALLOW_SELECT = False
    has_background = False

    _plain: Sequence[Strip] = ()
    _strips: Sequence[Strip] = ()
    _drawn_size: Size | None = None
    _is_stale = False
    _is_other = False

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the content: lines of ``width`` cells, of which the first ``height`` are shown."""
        raise NotImplementedError

    def redraw(self, whole: bool = False) -> None:
        """Draw anew once the messages at hand are handled, however often it is called until then.

        Args:
            whole: most cells will differ, so that it takes less time to write all than to find them.
        """
        self._is_other |= whole
        if not self._is_stale:
            self._is_stale = True
            self.call_next(self._repaint)

    def _repaint(self) -> None:
        """Draw what is stale, and refresh the cells that differ."""
        if not self._is_stale:
            return
        if self._is_other or self._drawn_size != self.size or not self.is_on_screen:
            self._drawn_size = None  # nothing to compare with, or nobody to see it: drawn when it is painted
            self.refresh()
            return
        before = self._strips
        self._draw(self.size)
        if regions := changed_regions(before, self._strips):
            self.refresh(*regions)

    def _draw(self, size: Size) -> None:
        lines = self.draw(size.width, size.height)[: size.height]
        lines += [Strip.blank(size.width)] * (size.height - len(lines))
        # Lines that are the same stay the same objects, for which Textual has kept what they become.
        self._plain = [old if old == line else line for old, line in zip_longest(self._plain[: len(lines)], lines)]
        self._strips, self._drawn_size, self._is_stale, self._is_other = self._plain, size, False, False
        if not self.has_background:  # the terminal's own would show through
            background = self.rich_style
            self._strips = [line.apply_style(background) for line in self._plain]

    def get_line_filters(self) -> list[LineFilter]:
        """Leave out the translation of the terminal's own colours: palettes with any leave them to the terminal."""
        return [each for each in super().get_line_filters() if not isinstance(each, ANSIToTruecolor)]

    def render_line(self, y: int) -> Strip:
        # Stale lines of the same size are still painted: they fit those around them, and `_repaint` comes.
        if self._drawn_size != self.size:
            self._draw(self.size)
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    @property
    def text_lines(self) -> list[str]:
        """Lines on the screen, without their styles."""
        self._repaint()
        return [self.render_line(y).text for y in range(self.size.height)]


def changed_regions(before: Sequence[Strip], now: Sequence[Strip]) -> list[Region]:
    """Return the spans of cells in which two pictures of the same size differ."""
    regions: list[Region] = []
    for y, (old, new) in enumerate(zip(before, now, strict=True)):
        if old is not new:
            x, *parts = _different_part(list(old), list(new))
            regions += [Region(x + start, y, end - start, 1) for start, end in _changed_spans(*map(_cells, parts))]
    return regions


def _different_part(old: list[Segment], new: list[Segment]) -> tuple[int, list[Segment], list[Segment]]:
    """Return two lines without the segments at both ends that are the same, and the cells of those at the left."""
    left = _common(old, new)
    right = _common(old[left:][::-1], new[left:][::-1])
    return (
        sum(segment.cell_length for segment in new[:left]),
        old[left : len(old) - right],
        new[left : len(new) - right],
    )


def _common(old: Iterable[Segment], new: Iterable[Segment]) -> int:
    """Return how many segments are the same from the beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _cells(line: Iterable[Segment]) -> list[Cell]:
    """Return what each cell shows; the second cell of a wide character is told from its first."""
    cells: list[Cell] = []
    for text, style, _ in line:
        if text.isascii():
            cells += [(character, style) for character in text]
        else:
            for character in text:
                width = cell_len(character)
                # A character of no width belongs to the cell before it.
                if width == 0 and cells:
                    cells[-1] = (cells[-1][0] + character, style)
                cells += [(character * (i + 1), style) for i in range(width)]
    return cells


def _changed_spans(old: list[Cell], new: list[Cell]) -> list[tuple[int, int]]:
    """Return the (start, end) of the cells that differ; spans that moving the cursor would not save are joined."""
    spans: list[tuple[int, int]] = []
    for x in (x for x, (a, b) in enumerate(zip_longest(old, new)) if a != b):
        if spans and x - spans[-1][1] <= MOVE_CELLS and not _is_motley(new[spans[-1][1] : x]):
            spans[-1] = (spans[-1][0], x + 1)
        else:
            spans.append((x, x + 1))
    return spans


def _is_motley(cells: list[Cell]) -> bool:
    """Return whether cells differ in style, which takes more bytes than moving the cursor over them."""
    return any(style != cells[0][1] for _, style in cells)


class Navigable:
    """Mixin: the actions of the navigation keys and of the mouse wheel, all by `action_move`."""

    @property
    def page_height(self) -> int:
        """Lines that a page key moves."""
        raise NotImplementedError

    def action_move(self, lines: int) -> None:
        """Move down by ``lines``, or up if negative, at most to the end."""
        raise NotImplementedError

    def action_page(self, pages: int) -> None:
        self.action_move(pages * self.page_height)

    def action_edge(self, direction: int) -> None:
        """Move to the first line (-1) or the last (1)."""
        self.action_move(direction * UNBOUNDED)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.action_move(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.action_move(-WHEEL_LINES)
