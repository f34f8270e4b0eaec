"""Widgets that are drawn as whole lines, and kept until something changes."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.keys import bindings


class Drawn(Widget):
    """Subclasses say in `draw` what their lines are; `redraw` after a change."""

    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: list[Strip] = []
        self._drawn: Size | None = None

    def draw(self, width: int, height: int) -> list[Strip]:
        """The content for that many cells."""
        raise NotImplementedError

    def redraw(self) -> None:
        self._drawn = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        size = self.size
        if self._drawn != size:
            ground = self.rich_style  # without it, the terminal's own colours would show through
            lines = self.draw(size.width, size.height)[: size.height]
            lines += [Strip.blank(size.width)] * (size.height - len(lines))
            self._strips, self._drawn = [line.apply_style(ground) for line in lines], size
        return self._strips[y] if y < len(self._strips) else Strip.blank(size.width, self.rich_style)

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    @property
    def shown(self) -> list[str]:
        """What is on the screen, as text."""
        return [self.render_line(y).text for y in range(self.size.height)]


class Listing(Drawn, can_focus=True):
    """Something with lines to move through: a cursor, and an offset that keeps it in view.

    Subclasses set `count`, the number of entries, and call `window` while drawing.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings("lists")

    class Moved(Message):
        """The cursor is somewhere else now."""

        def __init__(self, listing: Listing) -> None:
            super().__init__()
            self.listing = listing

        @property
        def control(self) -> Listing:
            return self.listing

    head = 1  # lines above the first entry

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.cursor = 0
        self.top = 0
        self.count = 0

    def window(self, rows: int) -> range:
        """The entries to be drawn in ``rows`` lines."""
        rows = max(1, rows)
        self.cursor = max(0, min(self.cursor, self.count - 1))
        self.top = max(0, min(self.top, self.cursor, self.count - rows))
        self.top = max(self.top, self.cursor - rows + 1)
        return range(self.top, min(self.count, self.top + rows))

    def move_to(self, cursor: int) -> None:
        cursor = max(0, min(cursor, self.count - 1))
        if cursor != self.cursor:
            self.cursor = cursor
            self.redraw()
            self.post_message(self.Moved(self))

    @property
    def page(self) -> int:
        return max(1, self.size.height - self.head - 1)

    def action_up(self) -> None:
        self.move_to(self.cursor - 1)

    def action_down(self) -> None:
        self.move_to(self.cursor + 1)

    def action_page_up(self) -> None:
        self.move_to(self.cursor - self.page)

    def action_page_down(self) -> None:
        self.move_to(self.cursor + self.page)

    def action_first(self) -> None:
        self.move_to(0)

    def action_last(self) -> None:
        self.move_to(self.count - 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.move_to(self.cursor + 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.move_to(self.cursor - 3)

    def on_click(self, event: events.Click) -> None:
        entry = self.top + event.y - self.head
        if event.y >= self.head and entry < self.count:
            self.move_to(entry)
