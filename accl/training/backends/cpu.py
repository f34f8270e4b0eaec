"""The path for DeBERTa-v2 and -v3 on a CPU: the reference, but without padding, and with the encoder run by
`accl.kernels.cpu.rows`."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accl.data.hub import cache_folder
from accl.data.packed import Packer
from accl.data.sampler import Draw
from accl.kernels.cpu.contrast import Contrast
from accl.kernels.cpu.native import load
from accl.kernels.cpu.rows import Passage, RowEncoder
from accl.kernels.cpu.team import Partner, Team
from accl.kernels.triton.aside import Aside
from accl.training.backends.flat_adamw import JoinedAdamW
from accl.training.backends.heads import Judged, watch
from accl.training.backends.reference import EagerPath
from accl.training.device import Labels
from accl.training.setup import Workbench

# Tokens of a batch x weights of a layer for which one thread is enough; measured on up to 16 cores of an Intel Xeon.
WORTH = 1.6e6


def useful_threads(tokens: float, weights: int, cores: int) -> int:
    """How many threads make a step about as short as it gets: the arithmetic of a layer is shared out among them, what
    each needs for itself is not, and the sum of both is least at the root of their ratio. More only take cores from
    others: a step of the demo took 7.3 ms with 16 and 7.7 with 12, one of a quarter of its size the same from 6 on.

    Args:
        tokens: of a batch. weights: in the matrices of a layer.
    """
    return max(1, min(cores, round(math.sqrt(tokens * weights / WORTH))))


class RowsPath(EagerPath):
    """See `accl.training.backends.reference.EagerPath`. Takes torch's threads over for the whole process."""

    name = "cpu"
    _passage: Passage  # of the step that is being taken

    def __init__(self, bench: Workbench) -> None:
        self._packer = Packer(bench.assembler)
        some = bench.positions["train"][:256]
        tokens = self._packer.pack(some).total / len(some) * bench.config.train.batch_size
        encoder: Any = bench.model.encoder
        weights = sum(p.numel() for p in encoder.encoder.layer[0].parameters() if p.ndim == 2)
        kernels = load(cache_folder())
        team = Team(useful_threads(tokens, weights, torch.get_num_threads()), kernels)
        self._joined = JoinedAdamW(bench.model, bench.config.optim, kernels, team)
        aside = Aside(bench.placement.device, Partner() if team.size > 1 else None)
        super().__init__(bench, self._joined, aside, Contrast(kernels))
        self._encoder = bench.model.encode = RowEncoder(encoder, kernels, team)
        self._beside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        # Each thread takes whole rows through all layers; torch's own would only take the cores from them.
        torch.set_num_threads(1)
        # Rows are cut by length there.
        bench.assembler.chunk_rows = None

    def _pooled(self, draw: Draw) -> tuple[Tensor, Labels]:
        packed = self._packer.pack(draw.questions, draw.option_order)
        cu_seqlens = packed.cu_seqlens
        source_T = np.repeat(packed.source - cu_seqlens[:-1], np.diff(cu_seqlens)) + np.arange(packed.total)
        ids_T = torch.from_numpy(self._packer.tokens[source_T].astype(np.int64))
        perm_N = torch.from_numpy(packed.perm)
        labels = (torch.from_numpy(known) for known in (packed.task, packed.answer, packed.text_id))
        self._passage = self._encoder.run(ids_T, np.diff(cu_seqlens[:: self._packer.segments]), perm_N, learning=True)
        return self._passage.out, Labels(*labels)

    def _learn(self, pooled_ND: Tensor, judged: Judged) -> tuple[Tensor, Tensor]:
        # Beside, what nothing in the step waits for: while torch goes back through the heads, a core has nothing to do.
        watching = self._beside.submit(watch, self.bench, judged)
        showing = self._beside.submit(judged.figures, judged.backward())
        self._passage.back(judged.shared_ND.grad)  # type: ignore[arg-type]  # it has one now
        norm = self._joined.update()
        watching.result()
        return showing.result(), norm
