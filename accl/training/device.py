"""Where and in which precision a run computes, and what makes it repeatable."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.data.tokens import Batch
from accl.errors import DeviceError


@dataclass(frozen=True)
class Placement:
    """A device, the autocast type used on it (None: fp32 throughout), and what was changed from the configuration."""

    device: torch.device
    autocast: torch.dtype | None
    notes: tuple[str, ...]

    def autocasting(self) -> torch.autocast:
        """A context that computes in the autocast type, or in fp32 throughout."""
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def describe(self) -> dict[str, str | int]:
        """For the provenance."""
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            return {
                "type": "cuda",
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "precision": "bf16" if self.autocast else "fp32",
            }
        return {"type": self.device.type, "threads": torch.get_num_threads(), "precision": "fp32"}


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
    notes = []
    chosen = torch.device("cuda" if has_gpu and device != "cpu" else "cpu")
    if device == "auto" and chosen.type == "cpu":
        notes.append("train.device=auto: no NVIDIA GPU found, training on the CPU")
    autocast: torch.dtype | None = None
    if precision == "bf16":
        if chosen.type == "cuda":
            autocast = torch.bfloat16
        else:
            notes.append("train.precision=bf16 applies to GPUs only: computing in fp32")
    return Placement(chosen, autocast, tuple(notes))


def open_early(device: str) -> None:
    """Begin to open the GPU, if it may be used, in the background: the driver takes seconds, and needs none of the
    interpreter, which has imports to do meanwhile. After `make_repeatable`."""
    if device != "cpu":
        threading.Thread(target=_open, name="opens the GPU", daemon=True).start()


def _open() -> None:
    # What goes wrong here goes wrong again where it matters, and is told there.
    with suppress(RuntimeError):
        if torch.cuda.is_available():
            square = torch.ones(64, 64, device="cuda")
            square @ square  # cuBLAS takes a moment of its own


@dataclass(frozen=True)
class Labels:
    """What the loss needs to know of B questions, on the device; see `accl.data.tokens.Batch`."""

    task_B: Tensor
    answer_B: Tensor
    text_id_B: Tensor


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device; see `accl.data.tokens.Batch`."""

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


def make_repeatable(seed: int, deterministic: bool) -> dict[str, str | int | bool]:
    """Seed torch and, if asked, allow deterministic GPU kernels only. Returns the knobs, for the provenance.

    Must come before the first use of a GPU: cuBLAS reads its workspace setting once.
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


def seed_step(seed: int, step: int, device: torch.device) -> int:
    """Make the randomness of a step (dropout) a function of (seed, step): nothing of it needs a checkpoint.

    Returns:
        the seed that the device's generator was given.
    """
    own = (seed * 1_000_003 + step) % 2**63
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(own)
    else:
        torch.default_generator.manual_seed(own)
    return own
