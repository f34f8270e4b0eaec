"""The path for DeBERTa-v2 and -v3 on a CPU: the reference, with the encoder run by `accl.fast.rows`."""

from __future__ import annotations

import torch

from accl.fast.rows import RowEncoder
from accl.training.paths.eager import EagerPath
from accl.training.setup import Workbench


class RowsPath(EagerPath):
    """See `accl.training.paths.eager.EagerPath`. Takes torch's threads over for the whole process."""

    name = "rows"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        bench.model.encode = RowEncoder(bench.model.encoder, torch.get_num_threads())
        # Each thread takes whole rows through all layers; torch's own would only take the cores from them.
        torch.set_num_threads(1)
        # Rows are cut by length there.
        bench.assembler.chunk_rows = None
