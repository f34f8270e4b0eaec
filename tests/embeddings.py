"""Embeddings, and the contrastive loss of them, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.method.contrastive import anchor_losses, weighted_mean


def unit(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random points of the sphere, count x dim."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


@dataclass(frozen=True)
class Contrasted:
    """The contrastive loss of a batch, and which anchors count."""

    loss: Tensor
    counted_B: Tensor


def contrastive_loss(z_BD: Tensor, task_B: Tensor, text_id_B: Tensor, weight_B: Tensor, **options: Any) -> Contrasted:
    """From embeddings to the loss, as training makes it in two steps; options as for `anchor_losses`."""
    loss_B, counted_B = anchor_losses(z_BD, task_B, text_id_B, **options)
    return Contrasted(weighted_mean(loss_B, counted_B, weight_B), counted_B)
