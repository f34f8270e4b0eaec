"""The update that a step owes, done beside the next step's forward pass.

AdamW only waits for the memory, which the small kernels of heads and losses hardly touch, and products less than other
kernels: side by side they take less than one after the other. Every weight is updated before it is read, so nothing
else differs.
"""

from __future__ import annotations

import torch

from accl.kernels.triton.aside import wait
from accl.kernels.triton.flat import FlatAdamW, FlatParameters

# Sections of the parameters, in the order of the memory: decayed ones outside of the layers, the layers' matrices and
# vectors, other ones that do not decay, the word embedding.
OTHERS, MATRICES, VECTORS, PLAIN, WORDS = range(5)
# Of the device's multiprocessors, those that update the words. The heads' products want clusters of eight free ones.
SHARE = 0.5


class Overdue:
    """Does what is owed, in the order in which a forward pass needs it.

    Args:
        layers: their number; the matrices of each take the same room. side: a stream for what runs beside the pass.
    """

    def __init__(self, adamw: FlatAdamW, flat: FlatParameters, layers: int, side: torch.cuda.Stream) -> None:
        self._adamw, self._flat, self._layers, self._side = adamw, flat, layers, side
        self._ready: list[torch.cuda.Event] = []
        self._done: torch.cuda.Event | None = None
        device = flat.values.device
        units = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
        self._units = int(units * SHARE)

    def begin(self) -> None:
        """What embeddings and the position table need, and beside it the first layer's matrices."""
        bounds = self._flat.bounds
        self._ready = []
        self._side.wait_stream(torch.cuda.current_stream())
        self._layer(0)
        # Gradients that the backward pass adds to, not writes, begin at 0.
        self._adamw.apply(bounds[VECTORS], bounds[WORDS], clear=True)

    def others(self) -> None:
        """The heads' matrices, and then beside what follows those of the other layers.

        The words were embedded as if they were up to date (`accl.kernels.triton.embedding.embed`): they have time.
        """
        self._adamw.apply(self._flat.bounds[OTHERS], self._flat.bounds[MATRICES], clear=True)
        self._side.wait_stream(torch.cuda.current_stream())
        for layer in range(1, self._layers):
            self._layer(layer)

    def before(self, layer: int) -> None:
        """Wait for a layer's matrices."""
        torch.cuda.current_stream().wait_event(self._ready[layer])

    def words(self) -> None:
        """The words, while the heads leave the device idle; with room for their many small kernels."""
        bounds = self._flat.bounds
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._adamw.apply(bounds[WORDS], bounds[WORDS + 1], clear=True, units=self._units)
            self._done = self._side.record_event()

    def end(self) -> None:
        """Wait for all of it."""
        wait(self._done)

    def _layer(self, number: int) -> None:
        begin, end = self._flat.bounds[MATRICES], self._flat.bounds[VECTORS]
        size = (end - begin) // self._layers
        with torch.cuda.stream(self._side):
            self._adamw.apply(begin + number * size, begin + (number + 1) * size, clear=False)
            self._ready.append(self._side.record_event())
