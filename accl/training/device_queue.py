"""Copies from the device to the host that neither of the two waits for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor


class DeviceToHostQueue:
    """Copies tensors to the host in the background, and calls back for each in order once it has arrived.

    A host that waits for a value leaves a GPU idle: its queue of kernels runs empty meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._asynchronous = device.type == "cuda"
        self._pending: deque[tuple[torch.cuda.Event, Tensor, Callable[[Tensor], object]]] = deque()

    def enqueue(self, tensor: Tensor, callback: Callable[[Tensor], object]) -> None:
        """Call back with the present content of ``tensor`` on the host: at once if it lies there already."""
        if not self._asynchronous:
            callback(tensor)
            return
        host = torch.empty_like(tensor, device="cpu", pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._pending.append((copied, host, callback))

    def poll(self) -> None:
        """Call back for every copy that has arrived."""
        while self._pending and self._pending[0][0].query():
            self._call_back()

    def flush(self) -> None:
        """Wait for every copy, and call back for each."""
        while self._pending:
            self._pending[0][0].synchronize()
            self._call_back()

    def _call_back(self) -> None:
        _, host, callback = self._pending.popleft()
        callback(host)
