"""The reference backend: `accl.training.step.train_step` as it stands, on any device and for any encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.method.model import ModelOutput
from accl.training.backends.backend import StepMetrics
from accl.training.context import TrainingContext
from accl.training.device import exclusive_randomness, to_device
from accl.training.optim import load_optimizer_state, make_optimizer, optimizer_state
from accl.training.step import train_step


class ReferenceBackend:
    """Plain torch; see `accl.training.backends.backend.StepBackend`. Other backends inherit what they do not replace.

    Args:
        optimizer: over the model's parameters; AdamW of the configuration by default.
    """

    name = "reference"

    def __init__(self, context: TrainingContext, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.context = context
        self.optimizer = optimizer or make_optimizer(context.model, context.config.optim)

    def prepare(self, progress: Callable[[int, int], None]) -> None:
        """Plain torch needs no preparation."""

    def step(self, step: int) -> StepMetrics:
        with exclusive_randomness():
            return StepMetrics.of(train_step(self.context, self.optimizer, step))

    @torch.no_grad()
    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        context = self.context
        batch = to_device(context.assembler.batch(questions), context.placement.device)
        with context.placement.autocasting():
            output: ModelOutput = context.model(batch.chunks, batch.inverse_perm_N, batch.labels.task_B)
        return output

    def optimizer_state(self) -> dict[str, Tensor]:
        return optimizer_state(self.context.model, self.optimizer)

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        load_optimizer_state(self.context.model, self.optimizer, state)

    def sync_weights(self) -> None:
        """Steps read the model's own weights."""
