"""The rows of a word embedding that a corpus uses, alone on the device.

A row that no question uses has no gradient, and AdamW without weight decay leaves it as it is, to the bit. So only the
others need memory on the device, beside their gradients and moments: of DeBERTa-v3's 128,100 rows, MMLU uses about a
quarter.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CompactEmbedding(nn.Module):
    """Replacement for an embedding whose parameter has the used rows alone; state dicts are those of the whole.

    Args:
        whole: V x D. used: V'; token ids that may occur, without repetition.

    Attributes:
        weight: V' x D. place_V: int64; row of each token id in ``weight``, -1 for those that do not occur.
    """

    place_V: Tensor

    def __init__(self, whole: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        used = used.to(whole.weight.device)
        self.weight = nn.Parameter(whole.weight.detach()[used].clone())
        self.used = used.cpu()
        place_V = torch.full((whole.num_embeddings,), -1, dtype=torch.long, device=used.device)
        place_V[used] = torch.arange(len(used), device=used.device)
        # Not in state dicts: it follows from the corpus.
        self.register_buffer("place_V", place_V, persistent=False)
        padding = -1 if whole.padding_idx is None else int(place_V[whole.padding_idx])
        self.padding_idx = None if padding < 0 else padding
        self._whole_VD = whole.weight.detach().cpu().clone()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings of token ids, which must be among ``used``; one dimension, D, more than ``ids``."""
        return F.embedding(self.place_V[ids], self.weight, self.padding_idx)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        whole_VD = self._whole_VD.clone()
        whole_VD[self.used] = self.weight.detach().to(whole_VD)
        destination[prefix + "weight"] = whole_VD

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        key = prefix + "weight"
        whole_VD = state_dict.get(key)
        if whole_VD is not None and whole_VD.shape == self._whole_VD.shape:
            self._whole_VD.copy_(whole_VD)
            state_dict = {**state_dict, key: whole_VD[self.used.to(whole_VD.device)]}
        super()._load_from_state_dict(state_dict, prefix, *arguments)
