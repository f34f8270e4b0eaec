"""What a captured step reads anew every time: one small tensor, filled without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from accl.data.packed import Packed
from accl.training.device import Labels

# Steps that the host may be ahead of the device.
AHEAD = 8


class Inputs:
    """Segments, labels, seed and learning rates of a step, always at the same place on the device.

    Attributes:
        source, cu_seqlens, inverse_perm: as in `accl.data.packed.Packed`. labels: of the questions.
        seed: one int64. rates: four float64, see `accl.kernels.triton.adamw.Rule`.
    """

    def __init__(self, questions: int, sequences: int, segments: int, device: torch.device) -> None:
        self.device = device
        pieces = sequences * segments
        sizes = (pieces, pieces + 1, sequences, questions, questions, questions, 1, 4)
        self._there = torch.zeros(sum(sizes), dtype=torch.long, device=device)
        parts = torch.split(self._there, list(sizes))
        self.source, self.cu_seqlens, self.inverse_perm, self.seed = parts[0], parts[1], parts[2], parts[6]
        self.labels = Labels(task_B=parts[3], answer_B=parts[4], text_id_B=parts[5])
        self.rates = parts[7].view(torch.float64)
        # Pinned, so that the copy is asynchronous; several, so that the next step can be written meanwhile.
        self._here = [
            torch.empty_like(self._there, device="cpu", pin_memory=device.type == "cuda") for _ in range(AHEAD)
        ]
        self._copied: list[torch.cuda.Event | None] = [None] * AHEAD
        self._next = 0

    def clear(self) -> None:
        """No sequences at all."""
        self._there.zero_()

    def send(self, packed: Packed, seed: int, rates: Sequence[float]) -> None:
        """Fill it for the next step."""
        slot, self._next = self._next, (self._next + 1) % AHEAD
        copied = self._copied[slot]
        if copied is not None:
            copied.synchronize()
        here = self._here[slot]
        numbers = (packed.source, packed.cu_seqlens, packed.inverse_perm, packed.task, packed.answer, packed.text_id)
        at = 0
        for part in numbers:
            here[at : at + len(part)] = torch.from_numpy(part)
            at += len(part)
        here[at] = seed
        here[at + 1 :].view(torch.float64)[:] = torch.tensor(rates, dtype=torch.float64)
        self._there.copy_(here, non_blocking=True)
        if self.device.type == "cuda":
            copied = self._copied[slot] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
