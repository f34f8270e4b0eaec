"""Another stream, or another thread, for what the next operation does not wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from accl.kernels.cpu.thread_pool import BackgroundThread

One = TypeVar("One")
Other = TypeVar("Other")


class Aside:
    """Kernels beside those of the stream in use: two that are too small for the device fill it together.

    On the CPU there is one order, but for `both`.

    Args:
        partner: who takes part in `both`, on the CPU.
    """

    def __init__(self, device: torch.device, partner: BackgroundThread | None = None) -> None:
        self._partner = partner
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._used: list[Tensor] = []

    @contextmanager
    def __call__(self, *used: Tensor) -> Iterator[None]:
        """A context that runs beside, after all that was asked for so far; ``used`` live until `join`."""
        if self._stream is None:
            yield
            return
        self._used += used
        self._stream.wait_stream(torch.cuda.current_stream())
        with self.again():
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """A context that runs beside, after what runs there already and without waiting for more."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield

    def both(self, work: Callable[[], One], other: Callable[[], Other], *used: Tensor) -> tuple[One, Other]:
        """The results of two things that do not wait for each other: the first runs beside; ``used`` as above."""
        if self._partner is not None:
            return self._partner.run_concurrently(work, other)
        with self(*used):
            one = work()
        return one, other()

    def mark(self) -> torch.cuda.Event | None:
        """What it was asked for so far."""
        return None if self._stream is None else self._stream.record_event()

    def join(self) -> None:
        """Wait for it, on the stream in use."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._used.clear()


def wait(event: torch.cuda.Event | None) -> None:
    """Let the stream in use wait for what `Aside.mark` gave."""
    if event is not None:
        torch.cuda.current_stream().wait_event(event)


# In the one order that there is.
NOT_ASIDE = Aside(torch.device("cpu"))
