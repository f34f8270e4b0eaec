"""Measurements of the device itself: its rates, its memory, and windows of time at whose ends it is idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import psutil
import torch

from accl.bench.protocol import MeasuredWindow, Rates
from accl.bench.report import timed
from accl.training.device import Placement

# Dense bf16 operations per second by the vendor's data sheet, without sparsity, by torch's name of the device.
VENDOR_PEAK = {
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
}
# Long enough for clocks to settle; the best of the repetitions counts, for this is a bound.
MATMUL_SIDE = {"cuda": 8192, "cpu": 2048}
COPY_BYTES = {"cuda": 2**31, "cpu": 2**28}
REPETITIONS = {"cuda": 30, "cpu": 6}


class WindowTimer:
    """Timer of a window that begins at its construction, when the device has done what it was given before."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        synchronise(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._began = time.monotonic()

    def stop(self) -> Callable[..., MeasuredWindow]:
        """End the window when the device is done; returns what makes it from its work, and its compilations."""
        synchronise(self._device)
        ended = time.monotonic()
        if self._device.type == "cuda":
            # A captured graph's tensors are allocated when it is captured, not when it runs: only what the allocator
            # holds shows them.
            memory = torch.cuda.max_memory_reserved(self._device), torch.cuda.max_memory_allocated(self._device)
            return partial(MeasuredWindow, self._began, ended, *memory)
        return partial(MeasuredWindow, self._began, ended, int(psutil.Process().memory_info().rss), None)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU already has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_cached_memory(device: torch.device) -> None:
    """Give cached GPU memory back where the workers would not all fit otherwise."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if free < total / 2:
            torch.cuda.empty_cache()


def measure_rates(placement: Placement) -> Rates:
    """Measure the device in the precision that a run computes in."""
    device = placement.device
    dtype = placement.autocast or torch.float32
    side, size, repetitions = (table[device.type] for table in (MATMUL_SIDE, COPY_BYTES, REPETITIONS))
    product_s = _best(_product(side, dtype, device), repetitions, device)
    copy_s = _best(_copy(size, device), repetitions, device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        torch.cuda.empty_cache()
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    half = dtype == torch.bfloat16
    return Rates(
        device=name,
        precision="bf16" if half else "fp32",
        flops=2 * side**3 / product_s,
        bytes=2 * size / copy_s,
        vendor_flops=VENDOR_PEAK.get(name) if half else None,
    )


def _product(side: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    # Random, because a GPU computes faster, for less power, on matrices of zeros.
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    c = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=c)


def _copy(size: int, device: torch.device) -> Callable[[], object]:
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _best(work: Callable[[], object], repetitions: int, device: torch.device) -> float:
    """Least seconds of one call, after as many untimed ones."""

    def finish() -> None:
        work()
        synchronise(device)

    for _ in range(repetitions):
        finish()
    return min(timed(finish) for _ in range(repetitions))
