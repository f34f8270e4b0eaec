"""Threads that share out what is computed on a CPU."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

One = TypeVar("One")
Other = TypeVar("Other")


class Team:
    """Threads of c/team.c, for what is computed without Python. One thread may ask at a time.

    With more than one, torch's own threads should be off (``torch.set_num_threads(1)``), or both kinds take the cores
    from each other.

    Args:
        size: how many threads, the one that asks among them; at least 1. kernels: from `accl.kernels.cpu.native.load`.

    Attributes:
        handle: what kernels that share out their work are given.

    Raises:
        RuntimeError: the system gives no more threads.
    """

    def __init__(self, size: int, kernels: ctypes.CDLL) -> None:
        assert size >= 1, size
        self.size = size
        self.handle: int | None = kernels.team_open(size)
        if self.handle is None:
            raise RuntimeError(f"the system gives no {size} threads")
        weakref.finalize(self, kernels.team_close, self.handle)


class Partner:
    """A thread beside this one, for two things in Python that do not wait for each other. Not an executor: its futures
    take as long as the smallest things that are shared out here."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answered: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._asked, self._answered), daemon=True).start()
        weakref.finalize(self, self._asked.put, None)

    def both(self, one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
        """The results of two things, the first of this thread. What is raised in one is raised here, after both have
        ended."""
        self._asked.put(other)
        try:
            found = one()
        finally:
            there, error = self._answered.get()
        if error is not None:
            raise error
        return found, there


def _serve(
    asked: SimpleQueue[Callable[[], Any] | None], answered: SimpleQueue[tuple[Any, BaseException | None]]
) -> None:
    torch.set_num_threads(1)
    while (work := asked.get()) is not None:
        try:
            answered.put((work(), None))
        except BaseException as error:
            answered.put((None, error))
        # What it worked on is not to live until the next one comes.
        del work
