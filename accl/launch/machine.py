"""Processor cores and memory that this process may use: those of the machine, or of the container or job it is in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# A version 1 controller without a limit says 2**63 rounded down to pages.
_NO_LIMIT = 2**60


def cores() -> int:
    """Return the number of cores that this process may use: its affinity, or less where a container has a quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux; not permitted
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _cpu_quotas())]))


def memory() -> tuple[int, int] | None:
    """Return free and total memory in bytes, of the container where that is less; None where the system hides them."""
    import psutil

    try:
        machine = psutil.virtual_memory()
    except (OSError, psutil.Error):  # no /proc
        return None
    free, total = int(machine.available), int(machine.total)
    for limit, used in _memory_limits():
        total, free = min(total, limit), max(0, min(free, limit - used))
    return free, total


def _cpu_quotas() -> Iterator[float]:
    """Yield the cores' worth of time that each control group around this process may use."""
    for folder in _groups(""):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
    for folder in _groups("cpu"):
        quotas, periods = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quotas and periods:  # -1 is no limit
            yield quotas / periods


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Yield limit and use in bytes of each control group around this process."""
    for controller, limits, uses in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _groups(controller):
            limit = _number(folder / limits)
            if limit is not None and limit < _NO_LIMIT:
                yield limit, _number(folder / uses) or 0


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and all around it.

    Args:
        controller: of version 1; empty for version 2, which has one tree for all.
    """
    root = CGROUPS / controller
    inside = "/"
    with suppress(OSError):
        for line in (PROC / "self" / "cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if controller in controllers.split(","):
                inside = os.path.normpath(f"/{path}")
    here = root / inside.strip("/")
    # In a container the path may be that of its host, of which nothing but the root is mounted.
    yield from (folder for folder in (here, *here.parents) if folder == root or root in folder.parents)


def _words(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="replace").split()
    return []


def _number(path: Path) -> int | None:
    """Return the number that a file holds; None without one, or for one that is negative or no number."""
    word = "".join(_words(path))
    return int(word) if word.isdigit() else None
