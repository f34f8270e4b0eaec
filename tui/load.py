"""Load of this machine, in the few words of a head line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import psutil

from accl.launch.gpus import GpuLoad, gpus, load

GB = 1e9
FEW = 2  # GPUs that have a text each

_last: tuple[float, float] | None = None  # of `_busy_and_all`

_gpus = cache(gpus)


def machine_load() -> tuple[str, ...]:
    """Return texts about the GPUs, and one about the processors since the last call; what is not told is left out."""
    global _last
    loads = [load(gpu) for gpu in _gpus()]
    parts = [f"GPU{each.gpu.index}{_amounts([each])}" for each in loads]
    if len(loads) > FEW:
        parts = [f"{len(loads)} GPUs{_amounts(loads)}"]
    before, _last = _last, _busy_and_all()
    if before and _last[1] > before[1]:
        share = (_last[0] - before[0]) / (_last[1] - before[1])
        parts.append(f"CPU {min(max(share, 0.0), 1.0):.0%}")
    return tuple(parts)


def _amounts(loads: Sequence[GpuLoad]) -> str:
    """Return the use of each GPU, and power and memory of all."""
    used = ["–" if each.used is None else f"{each.used:.0f}" for each in loads]
    watts = [each.watts for each in loads if each.watts is not None]
    memory = [(each.memory, each.gpu.memory_total or 0) for each in loads if each.memory is not None]
    held, total = (sum(column) for column in zip((0, 0), *memory, strict=True))
    return (
        (f" {' '.join(used)}%" if set(used) != {"–"} else "")
        + (f" {sum(watts):.0f}W" if watts else "")
        + (f" {held / GB:.0f}/{total / GB:.0f}GB" if memory else "")
    )


def _busy_and_all() -> tuple[float, float]:
    """Return seconds of all processors: psutil's own share of them is for calls from one thread."""
    times = psutil.cpu_times()._asdict()
    everything = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # which user has, too
    return everything - times["idle"] - times.get("iowait", 0.0), everything
