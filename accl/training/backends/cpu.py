"""The backend for DeBERTa-v2 and -v3 on a CPU: questions without padding, encoder and update computed in C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accl.data.cache import cache_folder
from accl.data.packed import Packed, Packer
from accl.kernels.cpu.encoder import ForwardContext, PackedEncoder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import ThreadPool, one_torch_thread
from accl.method.model import ModelOutput
from accl.training.backends.backend import StepMetrics
from accl.training.backends.flat_adamw import FlatCpuAdamW
from accl.training.backends.reference import ReferenceBackend
from accl.training.context import TrainingContext
from accl.training.device import Labels, exclusive_randomness, seed_step
from accl.training.optim import learning_rate, set_learning_rate
from accl.training.step import compute_losses, step_metrics, update_trackers

# Tokens of a batch x weights of a layer for which one thread is enough; measured on up to 16 cores of an Intel Xeon.
WORK_PER_THREAD = 1.6e6


def useful_threads(tokens: float, weights: int, cores: int) -> int:
    """Return how many threads make a step about as short as it gets.

    A layer's arithmetic is divided among the threads, the overhead of each thread is not; their sum is least at the
    root of the ratio. More threads only take cores from other processes: a step of the demo took 7.3 ms with 16 threads
    and 7.7 with 12.

    Args:
        tokens: of a batch. weights: in the matrices of a layer.
    """
    return max(1, min(cores, round(math.sqrt(tokens * weights / WORK_PER_THREAD))))


class CpuBackend(ReferenceBackend):
    """Runs the encoder's own parameters through C; see `accl.training.backends.backend.StepBackend`."""

    name = "cpu"

    def __init__(self, context: TrainingContext) -> None:
        self._packer = Packer(context.assembler)
        sample = context.positions["train"][:256]
        tokens = self._packer.pack(sample).total / len(sample) * context.config.train.batch_size
        encoder: Any = context.model.encoder
        weights = sum(p.numel() for p in encoder.encoder.layer[0].parameters() if p.ndim == 2)
        kernels = load(cache_folder())
        threads = ThreadPool(useful_threads(tokens, weights, torch.get_num_threads()), kernels)
        self._adamw = FlatCpuAdamW(context.model, context.config.optim, kernels, threads)
        super().__init__(context, self._adamw)
        self._encoder = PackedEncoder(encoder, kernels, threads)

    def step(self, step: int) -> StepMetrics:
        context, config = self.context, self.context.config
        draw = context.sampler.draw(step, context.curriculum.weights)
        packed = self._packer.pack(draw.questions, draw.option_order)
        labels = Labels(*map(torch.from_numpy, (packed.task, packed.answer, packed.text_id)))
        context.enable_bank(step)
        set_learning_rate(self.optimizer, learning_rate(config.optim, step, context.total_steps))
        with exclusive_randomness(), one_torch_thread():
            seed_step(config.train.seed, step, context.placement.device)
            encoding = self._encode(packed, with_gradients=True)
            pooled_ND = encoding.mean_ND.requires_grad_()
            losses = compute_losses(context, pooled_ND, labels)
            update_trackers(context, losses.output, labels)
            losses.total.backward()
            assert pooled_ND.grad is not None
            encoding.backward(pooled_ND.grad)
            return StepMetrics.of(step_metrics(losses, labels, self._adamw.update()[0]))

    @torch.no_grad()
    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        packed = self._packer.pack(questions)
        with exclusive_randomness(), one_torch_thread():  # seeds are drawn, although nothing is dropped
            pooled_ND = self._encode(packed, with_gradients=False).mean_ND
            return self.context.model.heads(pooled_ND, torch.from_numpy(packed.task))

    def _encode(self, packed: Packed, with_gradients: bool) -> ForwardContext:
        """Mean hidden state of every sequence, N x D, in the order of the questions."""
        begin = packed.cu_seqlens
        source_T = np.repeat(packed.source - begin[:-1], np.diff(begin)) + np.arange(packed.total)
        ids_T = torch.from_numpy(self._packer.tokens[source_T].astype(np.int64))
        lengths_N = np.diff(begin[:: self._packer.segments])
        return self._encoder.forward(ids_T, lengths_N, torch.from_numpy(packed.perm), with_gradients=with_gradients)
