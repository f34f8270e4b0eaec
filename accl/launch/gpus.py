"""NVIDIA GPUs of this machine, asked without importing torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One GPU. Memory in bytes."""

    index: int
    name: str
    memory_total: int


def gpus() -> list[Gpu]:
    """The GPUs that a process started now may use; empty without a driver, or with all of them hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        found.append(Gpu(index, name if isinstance(name, str) else name.decode(), int(memory.total)))
    return found
