"""Load of the machine, for the ``system`` table."""

from __future__ import annotations

import psutil
import pynvml
import torch


class MachineLoad:
    """Reader of GPU and process load."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the clock
        self._handle = None
        try:
            pynvml.nvmlInit()
            # NVML counts all GPUs of the machine; torch counts those it may see.
            if torch.cuda.is_available():
                uuid = str(torch.cuda.get_device_properties(0).uuid)
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        except pynvml.NVMLError:
            self._handle = None

    def read(self) -> tuple[float | None, float | None, float | None, float, float]:
        """Return GPU %, GPU bytes in use, watts, CPU % of one core and resident bytes; None for what is unknown."""
        gpu: tuple[float | None, float | None, float | None] = (None, None, None)
        if self._handle is not None:
            try:
                gpu = (
                    float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu),
                    float(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used),
                    pynvml.nvmlDeviceGetPowerUsage(self._handle) / 1000,
                )
            except pynvml.NVMLError:
                gpu = (None, None, None)
        return (*gpu, self._process.cpu_percent(), float(self._process.memory_info().rss))
