"""Calls in threads that never keep the app from being left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_daemon_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own, and return its result.

    Unlike with `asyncio.to_thread`, nothing waits at exit for a call that does not return, such as one that reads from
    a network mount whose server is gone.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(setter: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # else nobody waits any more
            setter(outcome)

    def work() -> None:
        setter: Callable[[Any], None] = future.set_result
        try:
            outcome: Any = function()
        except Exception as error:
            setter, outcome = future.set_exception, error
        with suppress(RuntimeError):  # the app was left, and its loop is closed
            loop.call_soon_threadsafe(settle, setter, outcome)

    threading.Thread(target=work, daemon=True).start()
    return await future
