"""Deadlines for calls that may never return, such as reading from a network mount whose server is gone.

Python cannot interrupt a thread that waits in the kernel. Such a thread is left behind; it is a daemon, so that it
keeps no process from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from accl.errors import BusyError

Item = TypeVar("Item")
Result = TypeVar("Result")

DEADLINE_S = 2.0


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """Call a function and return its result.

    Raises:
        BusyError: it did not return within ``seconds``.
        Exception: whatever the function raises.
    """
    ((_, result),) = each_within(seconds, lambda _: function(), [None])
    if isinstance(result, BaseException):
        raise result
    return result


def each_within(
    seconds: float, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Call a function with each item, in order, in one thread; a call that takes too long is left behind.

    Yields:
        each item with what the function returned or raised, or a `BusyError` where it did not return within
        ``seconds``; the items after it are handled by a new thread.
    """
    done = 0
    while done < len(items):
        results: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        left_behind = threading.Event()

        def work(rest: Sequence[Item], put: Callable[[Result | BaseException], None], end: threading.Event) -> None:
            for item in rest:
                if end.is_set():
                    return
                try:
                    put(function(item))
                except BaseException as error:
                    put(error)

        threading.Thread(target=work, args=(items[done:], results.put, left_behind), daemon=True).start()
        while done < len(items):
            try:
                result: Result | BaseException = results.get(timeout=seconds)
            except queue.Empty:
                left_behind.set()
                result = BusyError(f"There was no answer within {seconds:g} s.", "Is its disk or network mount alive?")
                yield items[done], result
                done += 1
                break
            yield items[done], result
            done += 1
