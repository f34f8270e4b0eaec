"""Threads for the kernels in C."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
