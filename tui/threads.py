"""Calls in threads that never keep the app from being left."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

Result = TypeVar("Result")

EXIT_GRACE_S = 3.0
_threads: WeakSet[threading.Thread] = WeakSet()


async def in_daemon_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own, and return its result.

    Unlike with `asyncio.to_thread`, an exit waits no longer than `EXIT_GRACE_S` for a call that does not return, such
    as one that reads from a network mount whose server is gone.
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

    thread = threading.Thread(target=work, daemon=True)
    _threads.add(thread)
    thread.start()
    return await future


@atexit.register
def _let_calls_return() -> None:
    """Wait a little for calls under way: one that the end of the interpreter meets within DuckDB aborts the process."""
    end = time.monotonic() + EXIT_GRACE_S
    for thread in list(_threads):
        thread.join(max(0.0, end - time.monotonic()))
