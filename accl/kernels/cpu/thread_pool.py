"""Threads for work on a CPU, in C and in Python."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

One = TypeVar("One")
Other = TypeVar("Other")


class ThreadPool:
    """Threads of c/thread_pool.c, for kernels. Calls of kernels with the same pool must not overlap.

    Args:
        size: number of threads, the calling one among them; at least 1.
        kernels: from `accl.kernels.cpu.native.load`.

    Attributes:
        handle: address of the pool, for kernels.

    Raises:
        RuntimeError: the system gives no more threads.
    """

    def __init__(self, size: int, kernels: ctypes.CDLL) -> None:
        assert size >= 1, size
        self.size = size
        self.handle: int | None = kernels.thread_pool_open(size)
        if self.handle is None:
            raise RuntimeError(f"the system gives no {size} threads")
        weakref.finalize(self, kernels.thread_pool_close, self.handle)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread inside: its own would compete with those of a `ThreadPool` for the cores.

    Setting the number of threads takes less than a microsecond.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class BackgroundThread:
    """One more Python thread, for two callables at a time.

    A `ThreadPoolExecutor` would do, but its futures take as long as the shortest callables that run here.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._calls, self._results), daemon=True).start()
        weakref.finalize(self, self._calls.put, None)

    def run_concurrently(self, one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
        """Run ``one`` in the calling thread and ``other`` in the background, and return both results.

        Torch takes one thread for each. An exception of either is raised after both have ended.
        """
        with one_torch_thread():
            self._calls.put(other)
            try:
                first = one()
            finally:
                second, error = self._results.get()
        if error is not None:
            raise error
        return first, second


def _serve(
    calls: SimpleQueue[Callable[[], Any] | None], results: SimpleQueue[tuple[Any, BaseException | None]]
) -> None:
    while (call := calls.get()) is not None:
        # For this thread alone: `run_concurrently` restores what new threads start with.
        torch.set_num_threads(1)
        try:
            results.put((call(), None))
        except BaseException as error:
            results.put((None, error))
        # Else what the call refers to would live until the next call.
        del call
