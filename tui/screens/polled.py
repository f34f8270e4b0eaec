"""A screen that looks again about once a second, in a thread, while it is the one on top."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from tui.app import AcclApp

Found = TypeVar("Found")


class Polled(Screen[None], Generic[Found]):
    """Subclasses say in `look` (called in a thread) what there is, and in `take` how it is shown."""

    _looking = False

    @property
    def accl(self) -> AcclApp:
        return cast("AcclApp", self.app)

    def look(self) -> Found:
        raise NotImplementedError

    def take(self, found: Found) -> None:
        raise NotImplementedError

    def on_mount(self) -> None:
        self._timer = self.set_interval(self.accl.interval, self.poll)
        self.poll()

    def on_screen_resume(self) -> None:
        self._timer.resume()
        self.poll()

    def on_screen_suspend(self) -> None:
        # A screen below that stirs makes Textual draw the whole screen above it again.
        self._timer.pause()

    @property
    def open(self) -> bool:
        """False once the screen was left or the app is closing, while a look may still be under way."""
        return self.app.is_running and self in self.app.screen_stack

    def poll(self) -> None:
        if not self._looking and self.app.screen is self:
            self._looking = True
            self.run_worker(self._poll(), group="poll")

    async def _poll(self) -> None:
        try:
            found = await asyncio.to_thread(self.look)
        finally:
            self._looking = False
        if self.open:
            self.take(found)
