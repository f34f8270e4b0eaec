"""Load of this machine, in the few words of a head line."""

from __future__ import annotations

import psutil

from accl.launch.gpus import Gpu, gpus, load

GB = 1e9


class MachineLoad:
    """Reader of the load; the first reading only starts the clock of the processor."""

    def __init__(self) -> None:
        self._gpus: list[Gpu] | None = None

    def read(self) -> tuple[str, ...]:
        """Return a text for each GPU, and one for the processor; what the machine does not tell is left out."""
        first = self._gpus is None
        if self._gpus is None:
            self._gpus = gpus()
        parts = []
        for gpu in self._gpus:
            now = load(gpu)
            memory = "" if now.memory is None else f" {now.memory / GB:.0f}/{(gpu.memory_total or 0) / GB:.0f}GB"
            used = "" if now.used is None else f" {now.used:.0f}%"
            watts = "" if now.watts is None else f" {now.watts:.0f}W"
            parts.append(f"GPU{gpu.index}{used}{watts}{memory}")
        busy = psutil.cpu_percent()
        return (*parts, *([] if first else [f"CPU {busy:.0f}%"]))
