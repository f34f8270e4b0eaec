"""The packed backend on a CPU: questions end to end through transformers' own layers, by torch's own kernels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from accl.data.packed import Packed, Packer
from accl.kernels.layers.attention import ChunkedOperations
from accl.kernels.layers.chunks import Chunks
from accl.kernels.layers.encoders import packed_forward
from accl.kernels.layers.functions import CpuFunctions
from accl.method.model import ModelOutput
from accl.training.backends.backend import StepMetrics
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.device import Labels, exclusive_randomness, seed_step, step_seed
from accl.training.optim import learning_rate, set_learning_rate
from accl.training.step import compute_losses, step_metrics, update_trackers


class PackedCpuBackend(ReferenceBackend):
    """Runs the encoder on packed sequences; see `accl.training.backends.backend.StepBackend`."""

    name = "packed"

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        self._packer, self._functions = Packer(context.assembler), CpuFunctions()
        self._encode = packed_forward(context.model.encoder)

    def step(self, step: int) -> StepMetrics:
        context, config = self.context, self.context.config
        draw = context.sampler.draw(step, context.curriculum.weights)
        packed = self._packer.pack(draw.questions, draw.option_order)
        labels = Labels(*map(torch.from_numpy, (packed.task, packed.answer, packed.text_id)))
        self._functions.seed(step_seed(config.train.seed, step))
        context.enable_bank(step)
        set_learning_rate(self.optimizer, learning_rate(config.optim, step, context.total_steps))
        with exclusive_randomness():  # dropout of the heads
            seed_step(config.train.seed, step, context.placement.device)
            losses = compute_losses(context, self._pooled(packed), labels)
        update_trackers(context, losses.output, labels)
        losses.total.backward()
        grad_norm = nn.utils.clip_grad_norm_(context.model.parameters(), config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepMetrics.of(step_metrics(losses, labels, grad_norm))

    @torch.no_grad()
    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        packed = self._packer.pack(questions)
        pooled_ND = self._pooled(packed)
        with self.context.placement.autocasting():
            return self.context.model.heads(pooled_ND, torch.from_numpy(packed.task))

    def _pooled(self, packed: Packed) -> Tensor:
        """Return the mean hidden state of every sequence, N x D, in the order of the questions."""
        begin = packed.cu_seqlens
        source_T = np.repeat(packed.source - begin[:-1], np.diff(begin)) + np.arange(packed.total)
        ids_T = torch.from_numpy(self._packer.tokens[source_T].astype(np.int64))
        lengths_N = np.diff(begin[:: self._packer.segments])
        chunks = Chunks(lengths_N)
        with self.context.placement.autocasting(), self._functions:
            hidden_TD = self._encode(ids_T, chunks.position_T, ChunkedOperations(chunks, self._functions))
        mean_ND = torch.segment_reduce(hidden_TD.float(), "mean", lengths=torch.from_numpy(lengths_N))
        return mean_ND[torch.from_numpy(packed.inverse_perm)]
