"""Where and in which precision a run computes, and what makes it repeatable."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.data.tokens import Batch
from accl.errors import DeviceError
from accl.kernels.triton.streams import on_common_stream, own_stream

# Torch's default generators belong to the process, and several runs may share that.
_RANDOMNESS = threading.RLock()
# Evaluations of the runs of a process take turns, and look so often whether theirs has come.
_EVALUATIONS = threading.Lock()
LOOK_S = 0.2


@dataclass(frozen=True)
class Placement:
    """Where a run computes.

    Attributes:
        autocast: type of the matrix products; None for fp32 throughout.
        warnings: how this differs from the configuration.
    """

    device: torch.device
    autocast: torch.dtype | None
    warnings: tuple[str, ...]

    def autocasting(self) -> torch.autocast:
        """Return a context that computes in the autocast type, or in fp32 throughout."""
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def describe(self) -> dict[str, str | int]:
        """Describe the device for the provenance."""
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            return {
                "type": "cuda",
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "precision": "bf16" if self.autocast else "fp32",
            }
        precision = "bf16" if self.autocast else "fp32"
        return {"type": self.device.type, "threads": torch.get_num_threads(), "precision": precision}


def place(device: str, precision: str) -> Placement:
    """Choose the device and precision.

    Raises:
        DeviceError: a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise DeviceError(
            "train.device=cuda, and torch sees no NVIDIA GPU.",
            "Use a machine with one, or --profile demo, or --set train.device=cpu.",
        )
    warnings = []
    chosen = torch.device("cuda" if has_gpu and device != "cpu" else "cpu")
    if device == "auto" and chosen.type == "cpu":
        warnings.append("train.device=auto: no NVIDIA GPU found, training on the CPU")
    autocast: torch.dtype | None = None
    if precision == "bf16":
        if chosen.type == "cuda" or computes_bf16():
            autocast = torch.bfloat16
        else:
            warnings.append("train.precision=bf16: this processor does not compute in bf16, so fp32 it is")
    return Placement(chosen, autocast, tuple(warnings))


def computes_bf16() -> bool:
    """Return whether the processor has instructions for products in bf16; emulating them is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def prewarm_cuda(device: str) -> None:
    """Initialise CUDA in a background thread, unless ``device`` is ``cpu``: it takes seconds, as imports do, and needs
    no Python meanwhile. Call `set_determinism` before."""
    if device != "cpu" and not torch.cuda.is_initialized():
        threading.Thread(target=_initialise_cuda, name="prewarm-cuda", daemon=True).start()


def _initialise_cuda() -> None:
    # An error here comes again at the first real use, and is reported there.
    with suppress(RuntimeError):
        if torch.cuda.is_available():
            square = torch.ones(64, 64, device="cuda")
            square @ square  # loads cuBLAS
            with suppress(ImportError):  # no Triton
                from accl.kernels.triton.compiling import prepare_compiler

                prepare_compiler()


def use_own_stream(device: str) -> None:
    """Put the CUDA work of this thread on a stream of its own from now on, unless ``device`` is ``cpu``.

    Runs that share a process neither wait for each other nor use the default stream, which waits for everybody.
    """
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_stream(own_stream(torch.device("cuda", torch.cuda.current_device())))


@contextmanager
def evaluating(device: torch.device, wait: Callable[[], Any]) -> Iterator[None]:
    """Return a context for an evaluation; on a GPU one of them takes place at a time, all on the common stream.

    Batches of evaluations are long and fill a GPU, so that runs of a process are as fast one after the other as side by
    side; the memory of a batch, which torch never gives back, is then held once for all of them.

    Args:
        wait: called again and again while another run evaluates; it may raise, which ends the waiting.
    """
    if device.type != "cuda":
        yield
        return
    while not _EVALUATIONS.acquire(timeout=LOOK_S):
        wait()
    try:
        with on_common_stream(device):
            yield
    finally:
        _EVALUATIONS.release()


@dataclass(frozen=True)
class Labels:
    """Task, right answer and text id of B questions, on the device; see `accl.data.tokens.Batch`."""

    task_B: Tensor
    answer_B: Tensor
    text_id_B: Tensor


@dataclass(frozen=True)
class DeviceBatch:
    """Encoder input and labels of a batch on the device; see `accl.data.tokens.Batch`."""

    chunks: list[tuple[Tensor, Tensor]]
    inverse_perm_N: Tensor
    labels: Labels


def to_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """Copy a batch, without waiting for the copies to arrive."""

    def send(array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return DeviceBatch(
        [(send(ids), send(mask)) for ids, mask in batch.chunks],
        send(batch.inverse_perm),
        Labels(send(batch.task), send(batch.answer), send(batch.text_id)),
    )


def set_determinism(seed: int, deterministic: bool) -> dict[str, str | int | bool]:
    """Seed torch and, if asked, allow deterministic GPU kernels only. Return the settings for the provenance.

    Call it before the first use of a GPU: cuBLAS reads its workspace setting once.
    """
    torch.manual_seed(seed)
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
    return {
        "seed": seed,
        "step_seed": "torch is seeded anew with (seed, step) before every step",
        "threads": torch.get_num_threads(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def step_seed(seed: int, step: int) -> int:
    """Return the seed of the random numbers of a step, so that dropout needs nothing in a checkpoint."""
    return (seed * 1_000_003 + step) % 2**63


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the device's default generator by (seed, step): for kernels that are launched one by one.

    Call it inside of `exclusive_randomness`, as all that draws from that generator.
    """
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(step_seed(seed, step))
    else:
        torch.default_generator.manual_seed(step_seed(seed, step))


def exclusive_randomness() -> AbstractContextManager[object]:
    """Return a context in which no other thread seeds torch's default generators or draws from them.

    Runs that share a process take turns with what is random, so that none of them depends on the others.
    """
    return _RANDOMNESS
