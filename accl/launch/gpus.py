"""NVIDIA GPUs of this machine, listed without importing torch, as CUDA would list them."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

_SM_CLOCK = 1  # NVML_CLOCK_SM


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: NVML's own, which ``CUDA_VISIBLE_DEVICES`` does not change.
        memory_total: bytes; None where the driver does not tell.
        uuid: empty where the driver does not tell.
    """

    index: int
    name: str
    memory_total: int | None
    uuid: str = ""


def gpus() -> list[Gpu]:
    """Return the GPUs that CUDA shows to a process of this environment, in its order; empty without a driver."""
    return visible(installed(), os.environ.get("CUDA_VISIBLE_DEVICES"))


@dataclass(frozen=True)
class GpuLoad:
    """How busy a GPU is: its use in per cent, watts, and bytes in use; None where the driver does not tell."""

    gpu: Gpu
    used: float | None
    watts: float | None
    memory: int | None


def load(gpu: Gpu) -> GpuLoad:
    """Return how busy a GPU of `gpus` is."""
    handle = told("nvmlDeviceGetHandleByIndex", gpu.index)
    used, power = told("nvmlDeviceGetUtilizationRates", handle), told("nvmlDeviceGetPowerUsage", handle)
    memory = told("nvmlDeviceGetMemoryInfo", handle)
    return GpuLoad(
        gpu,
        None if used is None else float(used.gpu),
        None if power is None else power / 1000,
        None if memory is None else int(memory.used),
    )


def installed() -> list[Gpu]:
    """Return all GPUs of this machine in CUDA's order, whether hidden or not; empty without a driver.

    A GPU that does not answer at all is left out, as CUDA does.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    listed: list[tuple[float, Gpu]] = []
    for index in range(told("nvmlDeviceGetCount") or 0):
        handle = told("nvmlDeviceGetHandleByIndex", index)
        if handle is None:
            continue
        memory = told("nvmlDeviceGetMemoryInfo", handle)
        gpu = Gpu(
            index,
            _text(told("nvmlDeviceGetName", handle)) or "NVIDIA GPU",
            None if memory is None else int(memory.total),
            _text(told("nvmlDeviceGetUUID", handle)),
        )
        listed.append((_speed(handle), gpu))
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":  # the order of NVML; CUDA's own is by speed
        listed.sort(key=lambda entry: -entry[0])
    return [gpu for _, gpu in listed]


def visible(present: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """Return the GPUs that a value of ``CUDA_VISIBLE_DEVICES`` leaves, in its order; None leaves all.

    The value is read as CUDA's driver reads it, which was compared with driver 580. The first entry decides whether all
    are numbers or all are beginnings of UUIDs. The first entry that names no GPU, or more than one, ends the list. A
    GPU that is named twice hides them all.
    """
    if chosen is None:
        return list(present)
    found: list[Gpu] = []
    find = _by_uuid if chosen.startswith("GPU-") else _mig_parent if chosen.startswith("MIG-") else _by_number
    for entry in chosen.split(","):
        gpu = find(present, entry)
        if gpu is None:
            break
        if gpu in found:
            return []
        found.append(gpu)
        if find is _mig_parent:  # CUDA shows one MIG device to a process
            break
    return found


def absence() -> str:
    """Say why `gpus` is empty."""
    hidden = len(installed())
    if not hidden:
        return "no NVIDIA GPU"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"no NVIDIA GPU in sight: CUDA_VISIBLE_DEVICES={chosen} hides {'it' if hidden == 1 else f'all {hidden}'}"


def torch_cuda() -> str | None:
    """Return the CUDA version that torch is built for, read from its version file: importing torch is slow."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    match = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", file.read_text(encoding="utf-8"), re.M) if file.is_file() else None
    return match[1] if match else None


def told(question: str, *arguments: Any) -> Any:
    """Return what a function of NVML returns; None where driver, GPU or this user's rights fall short.

    Each figure is asked for by itself, so that one that is not supported takes no other with it.
    """
    try:
        return getattr(pynvml, question)(*arguments)
    except (pynvml.NVMLError, AttributeError):  # AttributeError: an older package
        return None


def _by_number(present: Sequence[Gpu], entry: str) -> Gpu | None:
    match = re.match(r"\s*([+-]?[0-9]+)", entry)
    if match is None:
        return None
    # C's strtoul, of whose result 32 bits are kept.
    number = min(int(match[1]), 2**64 - 1) % 2**32
    return present[number] if number < len(present) else None


def _by_uuid(present: Sequence[Gpu], entry: str) -> Gpu | None:
    match = re.match(r"GPU-[0-9a-fA-F-]*", entry)
    named = [gpu for gpu in present if match and gpu.uuid.lower().startswith(match[0].lower())]
    return named[0] if len(named) == 1 else None


def _mig_parent(present: Sequence[Gpu], entry: str) -> Gpu | None:
    """Return the part of a GPU that a MIG UUID names, under the number of the whole GPU."""
    handle = told("nvmlDeviceGetHandleByUUID", entry.strip())
    parent = handle and told("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
    index = parent and told("nvmlDeviceGetIndex", parent)
    whole = next((gpu for gpu in present if gpu.index == index), None)
    if whole is None:
        return None
    memory = told("nvmlDeviceGetMemoryInfo", handle)
    return Gpu(
        whole.index,
        _text(told("nvmlDeviceGetName", handle)) or whole.name,
        None if memory is None else int(memory.total),
        entry.strip(),
    )


def _speed(handle: Any) -> float:
    """Return cores times clock, by which CUDA orders unlike GPUs; equal for like ones."""
    cores = told("nvmlDeviceGetNumGpuCores", handle) or 0
    return float(cores) * (told("nvmlDeviceGetMaxClockInfo", handle, _SM_CLOCK) or 0)


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
