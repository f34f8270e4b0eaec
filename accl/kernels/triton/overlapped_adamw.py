"""The pending AdamW update, overlapped with the next step's forward pass.

AdamW is bound by memory, which the small kernels of heads and losses hardly use, and matrix products use less than
other kernels: overlapped they take less time than one after the other. Every weight is updated before it is read, so
the results are those of an update at the end of the step.
"""

from __future__ import annotations

import torch

from accl.kernels.triton.flat import FlatAdamW, FlatParameters

# Sections of the parameters, in the order of the memory: those outside of the layers that weight decay applies to, the
# layers' matrices, the layers' vectors, other ones without weight decay, the word embedding.
DECAYED, MATRICES, VECTORS, UNDECAYED, WORDS = range(5)
# Share of the multiprocessors that update the words: the heads' products need clusters of eight free ones.
SM_SHARE = 0.5


class OverlappedAdamW:
    """Update of the parameters in the order in which a forward pass reads them.

    One step calls, in this order: `begin`, `update_outside_layers`, `wait_for_layer` for each layer, `update_words`,
    `join`.

    Args:
        layers: number of layers, whose matrices are of equal size. side: stream for what overlaps with the pass.
    """

    def __init__(self, adamw: FlatAdamW, flat: FlatParameters, layers: int, side: torch.cuda.Stream) -> None:
        self._adamw, self._flat, self._layers, self._side = adamw, flat, layers, side
        self._layer_done: list[torch.cuda.Event] = []
        self._words_done: torch.cuda.Event | None = None
        device = flat.values.device
        sms = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
        self._num_sms = int(sms * SM_SHARE)

    def begin(self) -> None:
        """Update all vectors on the current stream, and the first layer's matrices on the side stream."""
        bounds = self._flat.bounds
        self._layer_done = []
        self._side.wait_stream(torch.cuda.current_stream())
        self._update_layer(0)
        # The backward pass adds to these gradients instead of writing them, so they must start at 0.
        self._adamw.apply_update(bounds[VECTORS], bounds[WORDS], zero_grad=True)

    def update_outside_layers(self) -> None:
        """Update the heads' matrices on the current stream, then the other layers' matrices on the side stream.

        The words can wait: `accl.kernels.triton.embedding.embed` reads them as if they were up to date.
        """
        self._adamw.apply_update(self._flat.bounds[DECAYED], self._flat.bounds[MATRICES], zero_grad=True)
        self._side.wait_stream(torch.cuda.current_stream())
        for layer in range(1, self._layers):
            self._update_layer(layer)

    def wait_for_layer(self, layer: int) -> None:
        """Make the current stream wait for a layer's matrices."""
        torch.cuda.current_stream().wait_event(self._layer_done[layer])

    def update_words(self) -> None:
        """Update the words on part of the device, while the many small kernels of the heads leave most of it idle."""
        bounds = self._flat.bounds
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._adamw.apply_update(bounds[WORDS], bounds[WORDS + 1], zero_grad=True, num_sms=self._num_sms)
            self._words_done = self._side.record_event()

    def join(self) -> None:
        """Make the current stream wait for the whole update."""
        if self._words_done is not None:
            torch.cuda.current_stream().wait_event(self._words_done)

    def _update_layer(self, layer: int) -> None:
        begin, end = self._flat.bounds[MATRICES], self._flat.bounds[VECTORS]
        size = (end - begin) // self._layers
        with torch.cuda.stream(self._side):
            # Gradients of matrices are written by the backward pass, so they need not be 0.
            self._adamw.apply_update(begin + layer * size, begin + (layer + 1) * size, zero_grad=False)
            self._layer_done.append(self._side.record_event())
