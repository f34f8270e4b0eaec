"""NVIDIA GPUs of this machine, listed without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes."""

    index: int
    name: str
    memory_total: int


def gpus() -> list[Gpu]:
    """Return the GPUs of this machine; empty without a driver, or when CUDA_VISIBLE_DEVICES hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    memory = [int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles]
    return [Gpu(index, pynvml.nvmlDeviceGetName(handle), memory[index]) for index, handle in enumerate(handles)]
