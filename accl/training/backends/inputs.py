"""The inputs of a captured step: one small tensor at a fixed address, filled without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from accl.data.packed import Packed
from accl.training.device import Labels

# Steps that the host may be ahead of the device; of a run whose process others share, whose steps keep the device busy.
# What waits for a run's steps, as recording and evaluating do, waits for as many of each other run between them.
NUM_STAGING_BUFFERS, NUM_SHARED_STAGING_BUFFERS = 8, 3


class StepInputs:
    """Segments, labels, seed and learning rates of a step, always at the same place on the device.

    Attributes:
        source, cu_seqlens, inverse_perm: as in `accl.data.packed.Packed`. labels: of the questions.
        seed: one int64. rates: three float64, see `accl.kernels.triton.adamw.AdamWParams`.
    """

    def __init__(
        self, questions: int, sequences: int, segments: int, device: torch.device, staging_buffers: int
    ) -> None:
        """Take the numbers of questions, sequences and segments of a step, and of steps that may be sent ahead."""
        self.device = device
        total = sequences * segments
        # What kernels read comes first: behind an odd number of questions its address would be no multiple of 16, for
        # which they are compiled anew. Numbers of segments are even.
        sizes = (1, 3, total, total + 1, sequences, questions, questions, questions)
        self._device_buffer = torch.zeros(sum(sizes), dtype=torch.long, device=device)
        parts = torch.split(self._device_buffer, list(sizes))
        self.seed, self.source, self.cu_seqlens, self.inverse_perm = parts[0], *parts[2:5]
        self.labels = Labels(*parts[5:])
        self.rates = parts[1].view(torch.float64)
        # Pinned, so that the copy is asynchronous; several, so that the next step can be written meanwhile.
        self._staging = [
            torch.empty_like(self._device_buffer, device="cpu", pin_memory=device.type == "cuda")
            for _ in range(staging_buffers)
        ]
        # Written through numpy: each of torch's operations lets go of Python's lock, for which other runs may wait.
        self._staged = [staging.numpy() for staging in self._staging]
        # Each is recorded again and again; whoever waits for it sleeps, and not at all before its first record.
        self._copied = [torch.cuda.Event(blocking=True) for _ in self._staging if device.type == "cuda"]
        self._next = 0

    def clear(self) -> None:
        """Describe a step without sequences, at rate 0."""
        self._device_buffer.zero_()

    def send(self, packed: Packed, seed: int, rates: Sequence[float]) -> None:
        """Fill the inputs for the next step; waits only if all staging buffers are still being copied."""
        slot, self._next = self._next, (self._next + 1) % len(self._staging)
        if self._copied:
            self._copied[slot].synchronize()
        staged = self._staged[slot]
        staged[0] = seed
        staged[1:4].view(np.float64)[:] = rates
        parts = (packed.source, packed.cu_seqlens, packed.inverse_perm, packed.task, packed.answer, packed.text_id)
        np.concatenate(parts, out=staged[4:])
        self._device_buffer.copy_(self._staging[slot], non_blocking=True)
        if self._copied:
            self._copied[slot].record()
