"""The reference: the encoder as transformers has it, one kernel after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.sampler import Draw
from accl.kernels.cpu.contrast import Contrast
from accl.kernels.triton.aside import NOT_ASIDE, Aside
from accl.method.model import ModelOutput
from accl.training.backends.heads import Judged, enable_bank, judge, watch
from accl.training.device import Labels, seed_step, to_device
from accl.training.optim import make_optimizer
from accl.training.setup import Workbench


class EagerPath:
    """Optimizer steps and forward passes of a workbench's model; every other path is measured against this one.

    Attributes:
        name: of the path, as in the configuration. optimizer: with the moments, for checkpoints.
    """

    name = "reference"

    def __init__(
        self,
        bench: Workbench,
        optimizer: torch.optim.Optimizer | None = None,
        aside: Aside = NOT_ASIDE,
        contrast: Contrast | None = None,
    ) -> None:
        self.bench = bench
        self._aside, self._contrast = aside, contrast
        self.optimizer = optimizer or make_optimizer(bench.model, bench.config.optim)
        self._parameters = list(bench.model.parameters())

    def warm_up(self, progress: Callable[[int, int], None]) -> None:
        """Get ready; ``progress`` is told how much of how much is done. Nothing, on this path."""

    def settle(self) -> None:
        """Do what a step may have left to the next one; before weights or moments are looked at. Nothing, here."""

    def refresh(self) -> None:
        """Take note of weights that were put into the model. Nothing to do, on this path."""

    def step(self, step: int, draw: Draw, rate: float) -> Tensor:
        """One optimizer step on the questions drawn, at a learning rate.

        Returns:
            ``(*FIGURES, "grad_norm")`` of the batch, on the device, not waited for.
        """
        bench = self.bench
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        enable_bank(bench, step)
        seed_step(bench.config.train.seed, step, bench.placement.device)
        pooled_ND, labels = self._pooled(draw)
        return torch.cat(self._learn(pooled_ND, judge(bench, pooled_ND, labels, self._aside, self._contrast)))

    def _pooled(self, draw: Draw) -> tuple[Tensor, Labels]:
        """The encoder's features of every sequence of a draw."""
        bench = self.bench
        batch = to_device(bench.assembler.batch(draw.questions, draw.option_order), bench.placement.device)
        with bench.placement.autocasting():
            return bench.model.pooled(batch.chunks, batch.inverse_perm_N), batch.labels

    def _learn(self, pooled_ND: Tensor, judged: Judged) -> tuple[Tensor, Tensor]:
        """Update by the gradients, which are dropped, and show the batch; its figures, and the gradients' norm, 1."""
        norms = judged.backward()
        torch.autograd.backward(pooled_ND, judged.shared_ND.grad)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.bench.config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        watch(self.bench, judged)
        return judged.figures(norms), norm.detach().float().reshape(1)

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """The model's output for some questions, as evaluation needs it."""
        batch = to_device(self.bench.assembler.batch(questions), self.bench.placement.device)
        with self.bench.placement.autocasting():
            output: ModelOutput = self.bench.model(batch.chunks, batch.inverse_perm_N, batch.labels.task_B)
        return output
