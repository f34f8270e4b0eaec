"""Memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

# A new buffer is larger than asked for by this factor, so that it fits the next request, which differs a little.
SLACK = 1.25


class BufferPool:
    """Working memory for kernels, acquired and released.

    A buffer that has just been in use is in the processor's caches, or at least in its page tables, whereas the system
    hands out other memory each time: without the pool a step of the demo took up to a tenth longer.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def acquire(self, count: int) -> Tensor:
        """Return at least ``count`` floats, uninitialised."""
        for i in reversed(range(len(self._free))):
            if len(self._free[i]) >= count:
                return self._free.pop(i)
        # A new buffer replaces one that was too small.
        del self._free[-1:]
        return torch.empty(int(SLACK * count))

    def release(self, buffer: Tensor) -> None:
        """Return the buffer to the pool."""
        self._free.append(buffer)
