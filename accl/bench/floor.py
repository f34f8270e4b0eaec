"""What no implementation on this device can beat: rates as measured, and the time a step's work takes at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from accl.bench.work import step_bytes
from accl.training.device import Placement

# Dense bf16 operations per second by the maker's data sheet, without sparsity, by what torch calls the device.
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


@dataclass(frozen=True)
class Rates:
    """What a device does at best.

    Attributes:
        device: its name.
        precision: of the matrix product.
        flops: operations per second of a large product of random matrices.
        bytes: read and written per second by a large copy within the device's memory.
        vendor_flops: the maker's peak for that precision; None when not known.
    """

    device: str
    precision: str
    flops: float
    bytes: float
    vendor_flops: float | None


def measure_rates(placement: Placement) -> Rates:
    """Measure the device in the precision that a run computes in."""
    device = placement.device
    kind = device.type
    dtype = placement.autocast or torch.float32
    side = MATMUL_SIDE[kind]
    # Random, because a GPU computes faster, for less power, on matrices of zeros.
    seconds = _best(_product(side, dtype, device), REPETITIONS[kind], device)
    copying = _best(_copy(COPY_BYTES[kind], device), REPETITIONS[kind], device)
    name = torch.cuda.get_device_name(device) if kind == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    if kind == "cuda":
        torch.cuda.empty_cache()
    return Rates(
        device=name,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        flops=2 * side**3 / seconds,
        bytes=2 * COPY_BYTES[kind] / copying,
        vendor_flops=VENDOR_PEAK.get(name) if dtype == torch.bfloat16 else None,
    )


def floor_ms(flops: float, parameters: int, rates: Rates) -> float:
    """Milliseconds of one step: its operations at the rate of products, then the optimizer's bytes at that of copies.

    The two are added: an optimizer step needs every gradient's norm first, so it cannot run beside the products.
    """
    return 1000 * (flops / rates.flops + step_bytes(parameters) / rates.bytes)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU already has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
    """The least seconds of one call, after as many untimed ones."""
    for _ in range(repetitions):
        work()
    best = float("inf")
    for _ in range(repetitions):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        best = min(best, time.perf_counter() - began)
    return best
