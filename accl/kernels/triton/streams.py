"""A CUDA stream for kernels that the current stream does not wait for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """CUDA stream beside the current one: kernels that are too small for the device fill it together.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)
        self._keepalive: list[Tensor] = []

    @contextmanager
    def on_stream(self, *used: Tensor) -> Iterator[None]:
        """Run the body's kernels on this stream, after all that was enqueued on the current stream so far.

        Args:
            used: tensors of the current stream that the body reads. References to them are held until `join`, so that
                the allocator does not give their memory to later kernels of the current stream.
        """
        self._keepalive += used
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def record_event(self) -> torch.cuda.Event:
        """Return an event that fires when all that was enqueued on this stream so far is done."""
        event: torch.cuda.Event = self._stream.record_event()
        return event

    def join(self) -> None:
        """Make the current stream wait for this one, and release the tensors held; the host does not wait."""
        torch.cuda.current_stream().wait_stream(self._stream)
        self._keepalive.clear()
