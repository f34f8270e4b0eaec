"""Deadlines for calls that may never return, such as reading from a network mount whose server is gone.

Python cannot interrupt a thread that waits in the kernel. Such a thread is left behind; it is a daemon, so that it
keeps no process from ending, which `ending` does without it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from accl.errors import BusyError

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")

DEADLINE_S = 2.0

_lock = threading.Lock()
_unanswered: set[Hashable] = set()  # items whose call was left behind and has not returned yet


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """Call a function and return its result.

    Raises:
        BusyError: it did not return within ``seconds``.
        Exception: whatever the function raises.
    """
    ((_, result),) = each_within(seconds, lambda _: function(), [object()])
    if isinstance(result, BaseException):
        raise result
    return result


def each_within(
    seconds: float, function: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Call a function with each item, in order, in one thread; a call that takes too long is left behind.

    An item costs its time, and a thread, once: while a call of any function with it is left behind, the next call
    with it is not made and counts as late at once.

    Yields:
        each item with what the function returned or raised, or a `BusyError` where it did not return within
        ``seconds``; the items after it are handled by a new thread.
    """
    done = 0
    while done < len(items):
        results: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        left_behind = threading.Event()
        arguments = (function, items[done:], results.put, left_behind, seconds)
        threading.Thread(target=_work, args=arguments, daemon=True).start()
        while done < len(items):
            try:
                result: Result | BaseException = results.get(timeout=seconds)
            except queue.Empty:
                with _lock:
                    if not results.empty():  # it returned just now
                        continue
                    _unanswered.add(items[done])
                    left_behind.set()
                yield items[done], _late(seconds)
                done += 1
                break
            yield items[done], result
            done += 1


def _work(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    put: Callable[[Result | BaseException], None],
    left_behind: threading.Event,
    seconds: float,
) -> None:
    for item in items:
        result: Result | BaseException
        if item in _unanswered:
            result = _late(seconds)
        else:
            try:
                result = function(item)
            except BaseException as error:
                result = error
        with _lock:
            if left_behind.is_set():
                _unanswered.discard(item)
                return
            put(result)


def _late(seconds: float) -> BusyError:
    return BusyError(f"There was no answer within {seconds:g} s.", "Is its disk or network mount alive?")


@contextmanager
def ending() -> Iterator[None]:
    """End the process with the block, at once if a thread was left behind.

    The interpreter ends a daemon thread where it is, and within DuckDB that aborts the process.
    """
    try:
        yield
    except SystemExit as end:
        others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
        for thread in others:
            if not thread.daemon:
                thread.join()
        if not any(thread.is_alive() for thread in others):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
