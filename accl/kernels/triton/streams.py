"""CUDA streams: those beside the current one, one for each thread of a process, and one that its threads share.

Torch hands out 32 streams in turns, and then the same ones again. Where several runs share a process, kernels that one
launches on a stream while another captures with it would become part of the graph. So neither a thread's own stream nor
the common one is ever one that captures use. Captures take place one at a time, and may use the same ones.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

POOL = 32
# More than one backend uses, so that its streams differ.
NUM_SIDE_STREAMS = 8
_lock = threading.Lock()
_side: deque[torch.cuda.Stream] = deque()
_own: list[torch.cuda.Stream] = []
_common: list[torch.cuda.Stream] = []


def own_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream that nothing else in this process is put on, for a thread that launches kernels.

    Raises:
        RuntimeError: there is none left; there are 23.
    """
    with _lock:
        _own.append(_unlike(device))
        return _own[-1]


def on_own_stream() -> bool:
    """Return whether the current stream is an `own_stream`: then other threads of this process use the device too."""
    current = torch.cuda.current_stream().cuda_stream
    with _lock:
        return any(stream.cuda_stream == current for stream in _own)


@contextmanager
def on_common_stream(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """Run the body's kernels on a stream that the process has once, between those of the current stream.

    Torch gives memory that was freed to later kernels of the same stream only, and never back by itself. So what
    threads do at times, and what takes much memory, is done here: the memory is held once, and not by each of them.

    Tensors that the body makes and that are used after it must live as long as the kernels that use them.
    """
    with _lock:
        if not _common:
            _common.append(_unlike(device))
    stream, current = _common[0], torch.cuda.current_stream()
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            yield stream
    finally:
        current.wait_stream(stream)


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    with _lock:
        if len(_side) < NUM_SIDE_STREAMS:
            _side.append(_unlike(device))
        else:
            _side.rotate(-1)
        return _side[-1]


def _unlike(device: torch.device) -> torch.cuda.Stream:
    taken = {other.cuda_stream for other in (*_own, *_side, *_common)}
    for _ in range(POOL):
        stream: torch.cuda.Stream = torch.cuda.Stream(device)
        if stream.cuda_stream not in taken:
            return stream
    raise RuntimeError("no CUDA stream is left for another thread of this process")


class SideStream:
    """CUDA stream beside the current one: kernels that are too small for the device fill it together.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _side_stream(device)
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
