"""Places to train at: which GPU, or whether the processor, takes the next run of the queue."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accl.launch.gpus import Gpu, GpuLoad, installed, torch_cuda, visible
from accl.launch.machine import cores
from accl.store.state import VISIBLE_GPUS, RunState

# A run needs more than torch counts: the CUDA context and the kernels that were loaded into it.
CONTEXT_BYTES = 2**30
# A GPU counts as empty although its driver and an idle process hold some of it.
USABLE = 0.9
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Demand:
    """Need of a run that waits.

    Attributes:
        gpu: whether it trains on a GPU.
        held: bytes that torch held at most for a run like it; None if there was none.
        per_gpu, jobs: as in `accl.store.waiting.Waiting`.
    """

    gpu: bool
    held: float | None = None
    per_gpu: int = 1
    jobs: int | None = None


@dataclass(frozen=True)
class Occupant:
    """A run that trains on this machine.

    Attributes:
        gpu: `name_of` the GPU that it trains on; None on the processor.
        held: bytes that torch will hold for it and that no driver counts yet; 0 once it computes.
    """

    gpu: str | None = None
    held: float | None = 0.0


@dataclass(frozen=True)
class Place:
    """A place, in words, and the environment variables that hold a trainer to it."""

    words: str
    gpu: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def find_place(demand: Demand, occupants: Sequence[Occupant], loads: Sequence[GpuLoad]) -> Place | None:
    """Return the best place for a run: the GPU with the fewest runs, and of those the one with the most free memory.

    A run of unknown need takes its share of a whole GPU, which must be free.

    Args:
        occupants: all runs of its folder that train on this machine.
        loads: the GPUs that may be used.

    Returns:
        None while there is no place.
    """
    if demand.jobs is not None and len(occupants) >= demand.jobs:
        return None
    if not demand.gpu:
        if demand.jobs is None and any(occupant.gpu is None for occupant in occupants):
            return None
        return Place("the processor", variables=_shared_cores(demand.jobs or 1))
    fitting = []
    for load in loads:
        beside = [occupant for occupant in occupants if occupant.gpu == name_of(load.gpu)]
        if len(beside) >= demand.per_gpu:
            continue
        total, used = load.gpu.memory_total, load.memory
        if total is None or used is None:  # of a driver that does not tell, an empty GPU is one without runs of ours
            if not beside:
                fitting.append((0, 0.0, load.gpu))
            continue
        share = USABLE * total / demand.per_gpu
        free = total - used - sum(_need(occupant.held, share) for occupant in beside)
        if free >= _need(demand.held, share):
            fitting.append((len(beside), -free, load.gpu))
    if not fitting:
        return None
    gpu = min(fitting, key=lambda each: each[:2])[2]
    # A number means what NVML means by it only in the order of the bus.
    variables = {VISIBLE_GPUS: name_of(gpu), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return Place(f"GPU {gpu.index}", name_of(gpu), variables)


def describe(demand: Demand, loads: Sequence[GpuLoad]) -> str:
    """Return what a run needs and what the GPUs have, in words, for a run that finds no place."""
    totals = [load.gpu.memory_total for load in loads if load.gpu.memory_total is not None]
    need = _need(demand.held, USABLE * max(totals, default=0) / demand.per_gpu)
    like = (
        "like the last run of its size" if demand.held is not None else "its share, since none of its size has finished"
    )
    free = [
        f"GPU {load.gpu.index} has {(load.gpu.memory_total - load.memory) / 2**30:.1f} GiB free"
        for load in loads
        if load.gpu.memory_total is not None and load.memory is not None
    ]
    return f"it needs {need / 2**30:.1f} GiB ({like}); {', '.join(free)}"


def _need(held: float | None, share: float) -> float:
    """Return the bytes that a run takes of a GPU: its share if that is not known, and nothing more if it is there."""
    if held is None:
        return share
    return held + CONTEXT_BYTES if held else 0.0


def _shared_cores(jobs: int) -> dict[str, str]:
    """Return the variables by which runs side by side share the cores, unless the user has settled that."""
    return {} if jobs == 1 or THREADS in os.environ else {THREADS: str(max(1, cores() // jobs))}


def name_of(gpu: Gpu) -> str:
    """Return what ``CUDA_VISIBLE_DEVICES`` calls a GPU."""
    return gpu.uuid or str(gpu.index)


def trains_on_gpu(device: object, visible: Sequence[Gpu]) -> bool:
    """Return whether a run with this ``train.device`` trains on a GPU.

    Where there is none, a run that asks for one says so itself once it is started.
    """
    return device != "cpu" and bool(visible) and torch_cuda() is not None


def gpu_of(state: RunState) -> str | None:
    """Return the name of the GPU that a trainer of this machine uses: the first that CUDA shows to it; None for none.

    Its environment is not looked at: while a process is being started, that is empty, or that of another program.
    """
    found = visible(installed(), state.visible_gpus)
    return name_of(found[0]) if found else None
