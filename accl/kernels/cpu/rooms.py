"""Memory that is used again and again."""

from __future__ import annotations

import torch
from torch import Tensor

# Of what is asked for is made, so that what is needed next, which differs a little, finds room as well.
SLACK = 1.25


class Rooms:
    """Floats to work in, taken and given back. What has just been in use is in the processor's caches, at least in its
    page tables; the system hands out other memory each time: a step of the demo took up to a tenth longer."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, count: int) -> Tensor:
        """At least so many floats, whatever they are."""
        for i in reversed(range(len(self._free))):
            if len(self._free[i]) >= count:
                return self._free.pop(i)
        # In place of one that was too small, if there is one.
        del self._free[-1:]
        return torch.empty(int(SLACK * count))

    def give(self, room: Tensor) -> None:
        """Nobody uses it any more."""
        self._free.append(room)
