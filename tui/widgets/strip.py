"""Base of the Line API widgets: whole lines, drawn once and kept until something changes."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

WHEEL_LINES = 3
UNBOUNDED = 1_000_000_000  # a move this far ends at the first or last line


class StripWidget(Widget):
    """A widget made of strips. Subclasses implement `draw` and call `redraw` after a change."""

    ALLOW_SELECT = False

    _strips: Sequence[Strip] = ()
    _drawn_size: Size | None = None

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the content: lines of ``width`` cells, of which the first ``height`` are shown."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw anew at the next refresh."""
        self._drawn_size = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        size = self.size
        if self._drawn_size != size:
            background = self.rich_style  # without it, the terminal's own colours would show through
            lines = self.draw(size.width, size.height)[: size.height]
            lines += [Strip.blank(size.width)] * (size.height - len(lines))
            self._strips, self._drawn_size = [line.apply_style(background) for line in lines], size
        return self._strips[y] if y < len(self._strips) else Strip.blank(size.width, self.rich_style)

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    @property
    def text_lines(self) -> list[str]:
        """Lines on the screen, without their styles."""
        return [self.render_line(y).text for y in range(self.size.height)]


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
