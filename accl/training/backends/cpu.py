"""The path for DeBERTa-v2 and -v3 on a CPU: the reference, but without padding, and with the encoder run by
`accl.kernels.cpu.encoder`."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.data.hub import cache_folder
from accl.data.packed import Packed, Packer
from accl.data.sampler import Draw
from accl.kernels.cpu.encoder import ForwardContext, PackedEncoder
from accl.kernels.cpu.native import load
from accl.kernels.cpu.thread_pool import BackgroundThread, ThreadPool, one_torch_thread
from accl.kernels.triton.aside import Aside
from accl.method.model import ModelOutput
from accl.training.backends.flat_adamw import FlatCpuAdamW
from accl.training.backends.heads import Judged, watch
from accl.training.backends.reference import EagerPath
from accl.training.device import Labels
from accl.training.setup import Workbench

# Tokens of a batch x weights of a layer for which one thread is enough; measured on up to 16 cores of an Intel Xeon.
WORTH = 1.6e6


def useful_threads(tokens: float, weights: int, cores: int) -> int:
    """Return the number of threads from which on a step gets hardly shorter.

    The arithmetic of a layer is divided among threads, and each thread has a constant cost: their sum is least at the
    root of their ratio. More threads only take cores from others: a step of the demo took 7.3 ms with 16 and 7.7 with
    12, one of a quarter of its size the same from 6 on.

    Args:
        tokens: of a batch. weights: in the matrices of a layer.
    """
    return max(1, min(cores, round(math.sqrt(tokens * weights / WORTH))))


class RowsPath(EagerPath):
    """Optimizer steps over packed sequences by kernels in C; see `accl.training.backends.reference.EagerPath`."""

    name = "rows"
    _forward: ForwardContext  # of the step that is being taken

    def __init__(self, bench: Workbench) -> None:
        self._packer = Packer(bench.assembler)
        some = bench.positions["train"][:256]
        tokens = self._packer.pack(some).total / len(some) * bench.config.train.batch_size
        encoder: Any = bench.model.encoder
        weights = sum(p.numel() for p in encoder.encoder.layer[0].parameters() if p.ndim == 2)
        kernels = load(cache_folder())
        threads = ThreadPool(useful_threads(tokens, weights, torch.get_num_threads()), kernels)
        self._adamw = FlatCpuAdamW(bench.model, bench.config.optim, kernels, threads)
        aside = Aside(bench.placement.device, BackgroundThread() if threads.size > 1 else None)
        super().__init__(bench, self._adamw, aside)
        self._encoder = PackedEncoder(encoder, kernels, threads)
        self._beside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, step: int, draw: Draw, rate: float) -> Tensor:
        """One optimizer step; as in `EagerPath.step`."""
        with one_torch_thread():
            return super().step(step, draw, rate)

    def forward(self, questions: NDArray[np.int64]) -> ModelOutput:
        """As in `EagerPath.forward`."""
        packed = self._packer.pack(questions)
        with one_torch_thread(), self.bench.placement.autocasting():
            pooled_ND = self._encode(packed, with_gradients=False).mean_ND
            return self.bench.model.heads(pooled_ND, torch.from_numpy(packed.task))

    def _encode(self, packed: Packed, *, with_gradients: bool) -> ForwardContext:
        begin = packed.begin
        source_T = np.repeat(packed.source - begin[:-1], np.diff(begin)) + np.arange(packed.total)
        ids_T = torch.from_numpy(self._packer.tokens[source_T].astype(np.int64))
        length_N = np.diff(begin[:: self._packer.segments])
        return self._encoder.forward(ids_T, length_N, torch.from_numpy(packed.order), with_gradients=with_gradients)

    def _pooled(self, draw: Draw) -> tuple[Tensor, Labels]:
        packed = self._packer.pack(draw.questions, draw.option_order)
        self._forward = self._encode(packed, with_gradients=True)
        labels = (torch.from_numpy(known) for known in (packed.task, packed.answer, packed.text))
        return self._forward.mean_ND, Labels(*labels)

    def _learn(self, pooled_ND: Tensor, judged: Judged) -> tuple[Tensor, Tensor]:
        # Nothing in the step waits for these: they run while the backward pass of the heads leaves a core idle.
        watching = self._beside.submit(watch, self.bench, judged)
        showing = self._beside.submit(judged.figures, judged.backward())
        self._forward.backward(judged.shared_ND.grad)  # type: ignore[arg-type]  # it has one now
        norm = self._adamw.update()
        watching.result()
        return showing.result(), norm
