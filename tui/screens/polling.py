"""Base of the screens that follow run directories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from textual import events, on
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget

from accl.errors import AcclError
from tui import theme
from tui.services import Services
from tui.text import Piece
from tui.widgets.keybar import redraw_keys
from tui.widgets.text import Text

View = TypeVar("View")


class PollingScreen(Screen[None]):
    """A screen that is told by the watcher what is new, while it is on top; subclasses implement `follow`."""

    # Widgets draw what the focus changes in them: the whole screen, which Textual would paint, need not be.
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    _arrived = False

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.services = services

    @property
    def pending(self) -> str:
        """Words for that which the screen waits for; empty once it shows all that there is."""
        return "" if self._arrived else "its first look at the runs"

    @property
    def is_complete(self) -> bool:
        """Whether nothing is pending."""
        return not self.pending

    def follow(self) -> None:
        """Begin to watch what the screen shows, with the screen as the owner."""
        raise NotImplementedError

    def unfollow(self) -> None:
        """Watch nothing any more."""
        self.services.watcher.unwatch(self)

    def show_problem(self, problem: AcclError) -> None:
        """Show why nothing can be read, above what was read before."""
        kind: Piece = (f"? {problem.kind}", theme.ERROR)
        self.query_one(Text).show([kind, (f"  {problem}", theme.PLAIN)])

    def on_screen_resume(self) -> None:
        self.follow()

    def on_screen_suspend(self) -> None:
        # An update of a covered screen would make Textual repaint the whole screen on top.
        self.unfollow()

    @on(events.Resize)
    def _redraw_keys(self) -> None:
        """Show other keys once the screen has taken its size, which hides parts."""
        self.call_after_refresh(redraw_keys, self)

    def on_unmount(self) -> None:
        self.unfollow()

    @property
    def is_open(self) -> bool:
        """Whether the screen can be updated: it was not left, and the app is not closing."""
        return self.app.is_running and self in self.app.screen_stack

    def delivered(self, receive: Callable[[View], None]) -> Callable[[View], None]:
        """Return what the watcher may call with a view, in its thread, for the screen to receive it in its own."""

        def receive_if_open(view: View) -> None:
            if self.is_open:
                self._arrived = True
                receive(view)
                redraw_keys(self)

        def deliver(view: View) -> None:
            self.call_later(receive_if_open, view)

        return deliver
