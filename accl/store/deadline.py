"""Deadlines for calls that may never return, such as reading from a network mount whose server is gone.

Python cannot interrupt a thread that waits in the kernel. Such a thread is left behind; it is a daemon, so that it
keeps no process from ending, which `ending` does without it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

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
        ``seconds``; the items after it are handled by a new thread. All that a thread answers comes at once.
    """
    done = 0
    while done < len(items):
        rest = items[done:]
        calls = _Calls[Result]()
        threading.Thread(target=_work, args=(function, rest, calls, seconds), daemon=True).start()
        _await(calls, rest, seconds)
        yield from zip(rest, calls.results, strict=False)
        done += len(calls.results)


class _Calls(Generic[Result]):
    """What the calls that one thread makes have come to.

    Attributes:
        results: of the items so far, in order.
        newest: time of the last of them.
        ended: set once all are there.
        left_behind: whether nobody waits for the rest any more.
    """

    def __init__(self) -> None:
        self.results: list[Result | BaseException] = []
        self.newest = time.monotonic()
        self.ended = threading.Event()
        self.left_behind = False


def _await(calls: _Calls[Result], items: Sequence[Hashable], seconds: float) -> None:
    """Wait until the calls have ended, or one takes too long: it is late, and the rest is left behind."""
    while not calls.ended.wait(calls.newest + seconds - time.monotonic()):  # woken once, not for each of a thousand
        with _lock:
            if time.monotonic() >= calls.newest + seconds and not calls.ended.is_set():
                calls.left_behind = True
                _unanswered.add(items[len(calls.results)])
                calls.results.append(_late(seconds))
                return


def _work(function: Callable[[Item], Result], items: Sequence[Item], calls: _Calls[Result], seconds: float) -> None:
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
            if calls.left_behind:
                _unanswered.discard(item)
                return
            calls.results.append(result)
            calls.newest = time.monotonic()
            if len(calls.results) == len(items):
                calls.ended.set()


def _late(seconds: float) -> BusyError:
    hint = "The machine is very busy, or its disk or network mount hangs."
    return BusyError(f"There was no answer within {seconds:g} s.", hint)


def _others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread is not threading.current_thread()]


@contextmanager
def ending() -> Iterator[None]:
    """End the process with the block, at once if a thread was left behind.

    The interpreter ends a daemon thread where it is, and within DuckDB that aborts the process.
    """
    try:
        yield
        sys.exit()
    except SystemExit as end:
        while waited_for := [thread for thread in _others() if not thread.daemon]:
            for thread in waited_for:
                thread.join()
        if not _others():  # only now: those that were waited for may have left more of them behind
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
