"""The path for DeBERTa-v2 and -v3 on a CPU: the reference, but without padding, and with the encoder run by
`accl.fast.rows`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from accl.data.hub import cache_folder
from accl.data.packed import Packer
from accl.data.sampler import Draw
from accl.fast.native import load
from accl.fast.rows import RowEncoder
from accl.training.device import Labels
from accl.training.optim import JoinedAdamW
from accl.training.paths.eager import EagerPath
from accl.training.paths.heads import Learnt, account
from accl.training.setup import Workbench


class RowsPath(EagerPath):
    """See `accl.training.paths.eager.EagerPath`. Takes torch's threads over for the whole process."""

    name = "rows"

    def __init__(self, bench: Workbench) -> None:
        self._joined = JoinedAdamW(bench.model, bench.config.optim)
        super().__init__(bench, self._joined)
        self._aside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._packer = Packer(bench.assembler)
        kernels = load(cache_folder())
        self._encoder = bench.model.encode = RowEncoder(bench.model.encoder, kernels, torch.get_num_threads())
        # Each thread takes whole rows through all layers; torch's own would only take the cores from them.
        torch.set_num_threads(1)
        # Rows are cut by length there.
        bench.assembler.chunk_rows = None

    def _pooled(self, draw: Draw) -> tuple[Tensor, Labels]:
        packed = self._packer.pack(draw.questions, draw.option_order)
        begin = packed.begin
        source_T = np.repeat(packed.source - begin[:-1], np.diff(begin)) + np.arange(packed.total)
        ids_T = torch.from_numpy(self._packer.tokens[source_T].astype(np.int64))
        mean_ND = self._encoder.means(ids_T, np.diff(begin[:: self._packer.segments]))
        labels = (torch.from_numpy(known) for known in (packed.task, packed.answer, packed.text))
        return mean_ND[torch.from_numpy(packed.place)], Labels(*labels)

    def _conclude(self, learnt: Learnt) -> tuple[Tensor, Tensor]:
        # Beside each other: what is shown of a batch does not depend on the update.
        norm = self._aside.submit(self._joined.step)
        return account(self.bench, learnt), norm.result().reshape(1)
