"""The contract of a backend: a way to compute the same optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.method.model import ModelOutput


class UnavailableError(Exception):
    """A backend cannot compute the steps of this run; the message says why in a few words."""


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of a step, on the device and not waited for.

    One tensor holds all of them: a tensor for each would cost the host more than drawing the step's batch.

    Attributes:
        names: M, without repetition. values_M: fp32, in their order.
    """

    names: Sequence[str]
    values_M: Tensor

    @classmethod
    def of(cls, metrics: Mapping[str, Tensor]) -> StepMetrics:
        """Join scalars, as `accl.training.step.step_metrics` returns them."""
        return cls(list(metrics), torch.stack(list(metrics.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.values_M[self.names.index(name)]


class StepBackend(Protocol):
    """Computes the steps of one run, each equal to `accl.training.step.train_step` but for rounding.

    A backend trains the context's model in place. Of the context it changes nothing else but what a step changes:
    sampler, curriculum and memory bank.

    Attributes:
        name: the value of ``train.backend``.
    """

    name: str

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Compile and capture whatever steps need; call it once, before a checkpoint is loaded.

        Args:
            progress: called with how many parts are done, and how many there are.

        Raises:
            UnavailableError: this run's encoder cannot be computed so.
        """

    def step(self, step: int) -> StepMetrics:
        """Take optimizer step 1, 2, ... on the next draw of the sampler, and return its metrics."""

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """Return the model's output for questions at these positions, options in their own order, without gradient.
        The model is in evaluation mode."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """Bring the model's weights up to date, and return step and moments as
        `accl.training.optim.optimizer_state` does."""

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an `optimizer_state`, of this backend or of another."""

    def sync_weights(self) -> None:
        """Take over weights that were put into the model, such as those of a checkpoint."""
