"""Load of this machine, in the few words of a head line."""

from __future__ import annotations

import psutil

from accl.launch.gpus import Gpu, gpus, load

GB = 1e9


class MachineLoad:
    """Reader of the load; that of the processor is since the last reading, and so the first has none."""

    def __init__(self) -> None:
        self._gpus: list[Gpu] | None = None
        self._times: tuple[float, float] | None = None

    def read(self) -> tuple[str, ...]:
        """Return a text for each GPU, and one for the processor; what the machine does not tell is left out."""
        if self._gpus is None:
            self._gpus = gpus()
        parts = []
        for gpu in self._gpus:
            now = load(gpu)
            memory = "" if now.memory is None else f" {now.memory / GB:.0f}/{(gpu.memory_total or 0) / GB:.0f}GB"
            used = "" if now.used is None else f" {now.used:.0f}%"
            watts = "" if now.watts is None else f" {now.watts:.0f}W"
            parts.append(f"GPU{gpu.index}{used}{watts}{memory}")
        before, self._times = self._times, _busy_and_all()
        if before and self._times[1] > before[1]:
            share = (self._times[0] - before[0]) / (self._times[1] - before[1])
            parts.append(f"CPU {min(max(share, 0.0), 1.0):.0%}")
        return tuple(parts)


def _busy_and_all() -> tuple[float, float]:
    """Return seconds of all processors: psutil's own share of them is for calls from one thread."""
    times = psutil.cpu_times()._asdict()
    everything = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)  # which user has, too
    return everything - times["idle"] - times.get("iowait", 0.0), everything
