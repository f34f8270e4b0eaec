"""Runs of the queue that are started in one process, because they share a GPU.

Processes take turns on a GPU, and each loads its libraries anew; the runs of one process do neither
(`accl.training.together`), but their threads take turns at Python's lock. So it is some of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from accl.launch.places import Place
from accl.store.config_values import config_value
from accl.store.rundir import RunDir
from accl.store.waiting import Waiting

# Runs of one process, at most.
MOST_TOGETHER = 5


@dataclass(frozen=True)
class Seat:
    """A run that may be started beside others, and the place that was found for it.

    Attributes:
        likeness: what runs of one process have in common, from `likeness`.
    """

    run: RunDir
    waiting: Waiting
    place: Place
    likeness: Hashable


def likeness(waiting: Waiting, config: str) -> Hashable | None:
    """Return what a run on a GPU must have in common with others to share a process with them.

    That is whatever a process has once: its working folder, its command and its GPU. Recipes, encoders and seeds may
    differ.

    Args:
        config: text of its ``config.yaml``.

    Returns:
        None if it has to have a process of its own: it shares its GPU with nobody, or its steps are launched kernel by
        kernel, which threads of one process would do one after the other.
    """
    by_kernel = (
        config_value(config, "train.backend") == "reference",
        config_value(config, "train.deterministic") == "true",
    )
    if waiting.per_gpu == 1 or any(by_kernel):  # deterministic kernels are for the reference only
        return None
    return (waiting.folder, waiting.command, waiting.per_gpu, waiting.jobs, config_value(config, "train.device"))


def batches(seats: Iterable[Seat]) -> list[list[Seat]]:
    """Return the seats of each process that is to be started; each has them in their order, and about as many."""
    found: dict[Hashable, list[Seat]] = {}
    for seat in seats:
        found.setdefault((seat.place.gpu, seat.likeness), []).append(seat)
    return [batch for alike in found.values() for batch in _split(alike)]


def _split(seats: list[Seat]) -> list[list[Seat]]:
    processes = -(-len(seats) // MOST_TOGETHER)
    return [seats[first::processes] for first in range(processes)]


def starting(seats: Iterable[Seat], beside: Mapping[str | None, int], more: bool) -> list[list[Seat]]:
    """Return the seats of each process that is to be started now; see `worth_starting`.

    Args:
        beside: runs that train on each GPU. more: whether others wait for which there is no place yet.
    """
    seats = list(seats)
    free = Counter(seat.place.gpu for seat in seats)

    def is_due(batch: list[Seat]) -> bool:
        gpu, per_gpu = batch[0].place.gpu, batch[0].waiting.per_gpu
        return worth_starting(free[gpu], beside.get(gpu, 0), per_gpu, more)

    return list(filter(is_due, batches(seats)))


def worth_starting(count: int, beside: int, per_gpu: int, more: bool) -> bool:
    """Return whether so many places of a GPU are filled now, or rather more of them later.

    Runs that began together end at about the same time. Whoever took the place of the first of them would have a
    process of its own, and so would the next: places are filled again once half of them are free.

    Args:
        beside: runs that train on the same GPU. more: whether others wait for which there is no place yet.
    """
    return beside == 0 or not more or 2 * count >= per_gpu
