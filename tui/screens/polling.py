"""Base of the screens that read run directories periodically."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from textual.screen import Screen

from accl.errors import AcclError
from accl.store.summary import as_problem
from tui import theme
from tui.services import Services
from tui.text import Piece
from tui.threads import in_daemon_thread
from tui.widgets.text import Text

View = TypeVar("View")


class PollingScreen(Screen[None], Generic[View]):
    """A screen that calls ``fetch`` in a thread, once per interval while it is on top.

    There is one call at a time; subclasses implement `update_view`.
    """

    _fetching = False

    def __init__(self, services: Services, fetch: Callable[[], View]) -> None:
        super().__init__()
        self.services = services
        self.fetch = fetch

    def update_view(self, view: View) -> None:
        """Show what `fetch` returned."""
        raise NotImplementedError

    def show_problem(self, problem: AcclError) -> None:
        """Show why `fetch` failed, above what it returned before."""
        kind: Piece = (f"? {problem.kind}", theme.ERROR)
        self.query_one(Text).show([kind, (f"  {problem}", theme.PLAIN)])

    def on_mount(self) -> None:
        self._timer = self.set_interval(self.services.interval, self.poll)
        self.poll()

    def on_screen_resume(self) -> None:
        self._timer.resume()
        self.poll()

    def on_screen_suspend(self) -> None:
        # An update of a covered screen would make Textual repaint the whole screen on top.
        self._timer.pause()

    @property
    def is_open(self) -> bool:
        """Whether the screen can be updated: it was not left, and the app is not closing."""
        return self.app.is_running and self in self.app.screen_stack

    def poll(self) -> None:
        """Fetch and update once, unless a fetch is under way or another screen is on top."""
        if not self._fetching and self.app.screen is self:
            self._fetching = True
            self.run_worker(self._poll(), group="poll")

    async def _poll(self) -> None:
        try:
            view = await in_daemon_thread(self.fetch)
        except Exception as error:
            if self.is_open:
                self.show_problem(as_problem(error, "What the screen shows"))
            return
        finally:
            self._fetching = False
        if self.is_open:
            self.update_view(view)
