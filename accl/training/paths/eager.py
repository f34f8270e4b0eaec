"""The reference: the encoder as transformers has it, one kernel after the other."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.sampler import Draw
from accl.method.model import ModelOutput
from accl.training.device import DeviceBatch, seed_step, to_device
from accl.training.objective import objective
from accl.training.setup import Workbench


class EagerPath:
    """Optimizer steps and forward passes of a workbench's model; every other path is measured against this one.

    Attributes:
        name: of the path, as in the configuration.
    """

    name = "eager"

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._parameters = list(bench.model.parameters())

    def step(self, step: int, draw: Draw, rate: float) -> Tensor:
        """One optimizer step on the questions drawn, at a learning rate.

        Returns:
            ``(*FIGURES, "grad_norm")`` of the batch, on the device, not waited for.
        """
        bench = self.bench
        config = bench.config
        batch = to_device(bench.assembler.batch(draw.questions, draw.option_order), bench.placement.device)
        seed_step(config.train.seed, step)
        for group in bench.optimizer.param_groups:
            group["lr"] = rate
        open_bank(bench, step)
        with bench.placement.autocasting():
            pooled_ND = bench.model.pooled(batch.chunks, batch.place_N)
        output, figures = learn(bench, pooled_ND, batch)
        norm = nn.utils.clip_grad_norm_(self._parameters, config.optim.max_grad_norm)
        bench.optimizer.step()
        bench.optimizer.zero_grad(set_to_none=True)
        remember(bench, output, batch)
        return torch.cat([figures, norm.detach().float().reshape(1)])

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """The model's output for some questions, as evaluation needs it."""
        batch = to_device(self.bench.assembler.batch(questions), self.bench.placement.device)
        with self.bench.placement.autocasting():
            output: ModelOutput = self.bench.model(batch.chunks, batch.place_N, batch.task_B)
        return output


def open_bank(bench: Workbench, step: int) -> None:
    """Let the contrastive loss see the memory bank from the step on from which it may."""
    if bench.bank is not None:
        bench.bank.open(step > bench.bank_start)


def learn(bench: Workbench, pooled_ND: Tensor, batch: DeviceBatch) -> tuple[ModelOutput, Tensor]:
    """Heads, loss, and gradients of everything that ``pooled_ND`` and the loss were made from.

    Returns:
        the heads' output, and all of `accl.training.objective.FIGURES`.
    """
    shared_ND = pooled_ND.detach().requires_grad_()
    with bench.placement.autocasting():
        output = bench.model.heads(shared_ND, batch.task_B)
    result = objective(output, batch.answer_B, batch.task_B, batch.text_B, bench.config.loss, bench.bank)
    figures = result.backward(shared_ND)
    torch.autograd.backward(pooled_ND, shared_ND.grad)
    return output, figures


def remember(bench: Workbench, output: ModelOutput, batch: DeviceBatch) -> None:
    """What curriculum and memory bank keep of a batch."""
    bench.curriculum.observe(output, batch.answer_B, batch.task_B)
    if bench.bank is not None:
        bench.bank.write(output.z_BE, batch.task_B, batch.text_B)
