"""Embeddings for tests of what is computed from them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random points of the sphere, count x dim."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1).to(dtype)
