"""Load of this machine, in the few words of a head line."""

from __future__ import annotations

from functools import cache

import psutil

from accl.launch.gpus import gpus, load

GB = 1e9


_last: tuple[float, float] | None = None  # of `_busy_and_all`

_gpus = cache(gpus)


def machine_load() -> tuple[str, ...]:
    """Return a text for each GPU, and one for the processors since the last call; what is not told is left out."""
    global _last
    parts = []
    for gpu in _gpus():
        now = load(gpu)
        memory = "" if now.memory is None else f" {now.memory / GB:.0f}/{(gpu.memory_total or 0) / GB:.0f}GB"
        used = "" if now.used is None else f" {now.used:.0f}%"
        watts = "" if now.watts is None else f" {now.watts:.0f}W"
        parts.append(f"GPU{gpu.index}{used}{watts}{memory}")
    before, _last = _last, _busy_and_all()
    if before and _last[1] > before[1]:
        share = (_last[0] - before[0]) / (_last[1] - before[1])
        parts.append(f"CPU {min(max(share, 0.0), 1.0):.0%}")
    return tuple(parts)


def _busy_and_all() -> tuple[float, float]:
    """Return seconds of all processors: psutil's own share of them is for calls from one thread."""
    times = psutil.cpu_times()._asdict()
    everything = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # which user has, too
    return everything - times["idle"] - times.get("iowait", 0.0), everything
