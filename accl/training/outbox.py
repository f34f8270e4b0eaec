"""Figures on their way from the device to the host, which neither of the two waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor


class Outbox:
    """Copies tensors to the host beside whatever else is done, and acts on each once it is there, in order.

    A host that waits for a figure leaves a GPU without work: what is queued runs out, and the next step is only
    prepared when the wait is over.
    """

    def __init__(self, device: torch.device) -> None:
        self._behind = device.type == "cuda"
        self._underway: deque[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], object]]] = deque()

    def send(self, figures: Tensor, act: Callable[[Tensor], object]) -> None:
        """Have ``act`` called with what ``figures`` holds now, on the host: at once where that is the device."""
        if not self._behind:
            act(figures)
            return
        here = torch.empty_like(figures, device="cpu", pin_memory=True)
        here.copy_(figures, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._underway.append((arrived, here, act))

    def deliver(self) -> None:
        """Act on what has arrived."""
        while self._underway and self._underway[0][0].query():  # type: ignore[no-untyped-call]
            self._act()

    def drain(self) -> None:
        """Act on everything, and wait for it."""
        while self._underway:
            self._underway[0][0].synchronize()
            self._act()

    def _act(self) -> None:
        _, here, act = self._underway.popleft()
        act(here)
