"""Messages between the comparison and its workers: a `Candidate`, then commands, each of which has one result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from accl.config import Config
from accl.errors import TrainingError

# Commands: time a window, which gives a `MeasuredWindow`; measure the device, which gives `Rates`.
WINDOW, RATES = "window", "rates"


@dataclass(frozen=True)
class Candidate:
    """One way to compute optimizer steps.

    Attributes:
        steps: steps of one timed window.
        warmup: least number of untimed steps before the first window.
        backend: value of ``train.backend`` for accl; "" for a peer.
        peer: value of ``--peer`` for a peer; "" for accl.
        tracking: whether accl's curriculum tracks the batches.
        min_tokens: shorter training questions are left out.
    """

    name: str
    config: Config
    steps: int
    warmup: int
    backend: str = ""
    peer: str = ""
    tracking: bool = True
    min_tokens: int = 0

    @property
    def compile(self) -> bool:
        """Whether a peer compiles its model."""
        return self.peer == "compile"


class Work(NamedTuple):
    """The work of some steps; padding is not counted."""

    steps: int
    questions: int
    tokens: int
    flops: float


@dataclass(frozen=True)
class MeasuredWindow:
    """One timed window.

    Attributes:
        began, ended: seconds on the clock that all processes of a machine share; the device was idle at both.
        memory: bytes. GPU: the most that the process held within the window, with what its allocator keeps and what
            captured graphs work in. CPU: resident set of the process after it.
        allocated: bytes. GPU: the most that tensors took within the window, captured graphs not counted. CPU: None.
        compilations: number of torch's compilations within the window.
    """

    began: float
    ended: float
    memory: int
    allocated: int | None
    work: Work
    compilations: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def ms_per_step(self) -> float:
        return 1000 * self.seconds / self.work.steps


@dataclass(frozen=True)
class Rates:
    """The highest rates measured on a device.

    Attributes:
        precision: precision of the matrix product.
        flops: operations per second of a large product of random matrices.
        bytes: bytes read and written per second by a large copy within the device's memory.
        vendor_flops: the vendor's peak for that precision; None when not known.
    """

    device: str
    precision: str
    flops: float
    bytes: float
    vendor_flops: float | None


class WorkerError(TrainingError):
    """A candidate could not be measured; the message is the worker's reason."""
