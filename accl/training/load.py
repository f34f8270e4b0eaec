"""Load of the machine, for the ``system`` table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pynvml
import torch

from accl.launch.gpus import told


class MachineLoad:
    """Reader of GPU and process load. What this machine does not tell is None, each figure by itself."""

    def __init__(self) -> None:
        self._process = _known(psutil.Process)
        self._handle = None
        with suppress(pynvml.NVMLError, RuntimeError):  # torch raises RuntimeError for a GPU that is lost
            pynvml.nvmlInit()
            self._handle = _device()
        self.read()  # the first reading of the processor only starts the clock

    def read(self) -> tuple[float | None, float | None, float | None, float | None, float | None]:
        """Return GPU %, GPU bytes in use, watts, CPU % of one core and resident bytes."""
        used = power = memory = None
        if self._handle is not None:
            used = told("nvmlDeviceGetUtilizationRates", self._handle)
            memory = told("nvmlDeviceGetMemoryInfo", self._handle)
            power = told("nvmlDeviceGetPowerUsage", self._handle)
        return (
            None if used is None else float(used.gpu),
            None if memory is None else float(memory.used),
            None if power is None else power / 1000,
            None if self._process is None else _known(self._process.cpu_percent),
            None if self._process is None else _known(lambda: float(self._process.memory_info().rss)),
        )


def _device() -> Any:
    """Return NVML's handle of the GPU that torch trains on: NVML counts all, torch those that it may see."""
    if not torch.cuda.is_available():
        return None
    uuid = str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
    # A part of a GPU (MIG) has an id of its own kind.
    handles = (told("nvmlDeviceGetHandleByUUID", f"{kind}-{uuid}") for kind in ("GPU", "MIG"))
    return next((handle for handle in handles if handle is not None), None)


def _known(ask: Callable[[], Any]) -> Any:
    """Return what psutil tells, or None where it may not or cannot know (no ``/proc``)."""
    try:
        return ask()
    except (OSError, psutil.Error):
        return None
