"""Threads that share out what is computed on a CPU."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Team:
    """A thread for each core, the one that asks among them. One may ask at a time.

    With more than one, torch's own threads should be off (``torch.set_num_threads(1)``), or both kinds take the cores
    from each other. Not an executor: its futures take as long as the smallest things that are shared out here.

    Args:
        size: how many threads, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(size - 1)]
        self._done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        for jobs in self._jobs:
            threading.Thread(target=_serve, args=(jobs, self._done), daemon=True).start()
            weakref.finalize(self, jobs.put, None)

    def share_out(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``work`` of every item, at most as many as threads, without graph or autocast: the first in this thread, each
        other in one of its own. What is raised in one is raised here, after all have ended."""
        assert 1 <= len(items) <= self.size, (len(items), self.size)
        for number, item in enumerate(items[1:], start=1):
            self._jobs[number - 1].put((number, work, item))
        found: list[Any] = [None] * len(items)
        errors: list[BaseException] = []
        try:
            found[0] = _alone(work, items[0])
        except BaseException as error:
            errors.append(error)
        for _ in items[1:]:
            number, found[number], error_there = self._done.get()
            errors += [] if error_there is None else [error_there]
        if errors:
            raise errors[0]
        return found

    def ranges(self, total: int, multiple: int = 1) -> list[tuple[int, int]]:
        """Begin and end of a part of ``total`` for each thread, cut at multiples; none is empty."""
        bounds = [round(total * i / self.size / multiple) * multiple for i in range(self.size)] + [total]
        return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _serve(jobs: SimpleQueue[Any], done: SimpleQueue[tuple[int, Any, BaseException | None]]) -> None:
    torch.set_num_threads(1)
    while (job := jobs.get()) is not None:
        number, work, item = job
        try:
            done.put((number, _alone(work, item), None))
        except BaseException as error:
            done.put((number, None, error))
        # What it worked on is not to live until the next job comes.
        del job, work, item


def _alone(work: Callable[[Item], Result], item: Item) -> Result:
    # A new thread does not have these from the one that asks.
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return work(item)
