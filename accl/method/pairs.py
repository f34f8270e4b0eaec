"""Anchors against their candidates: the similarities and masks that negatives and losses are computed from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Finite, so that a row without any candidate gives a number and not NaN in the backward pass; in fp32
# exp(EXCLUDED - anything sensible) is exactly 0.
EXCLUDED = -1e9


@dataclass(frozen=True)
class Pairs:
    """B anchors against M candidates, which are the batch and the memory bank.

    Attributes:
        sim_BM: cos(z_i, z_j) / tau, in at least fp32. temperature: tau > 0.
        positive_BM, negative_BM: masks of the candidates that are positives P(i) and negatives N(i) of each anchor,
            before any selection.
        positives_B: number of positives of each anchor, in the type of the similarities.
        mean_positive_B: mean similarity of each anchor with its positives; 0 without any.
    """

    sim_BM: Tensor
    positive_BM: Tensor
    negative_BM: Tensor
    temperature: float
    positives_B: Tensor = field(init=False)
    mean_positive_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        positives_B = self.positive_BM.sum(-1, dtype=self.sim_BM.dtype)
        mean_B = (self.sim_BM * (self.positive_BM / positives_B.clamp(min=1)[:, None])).sum(-1)
        object.__setattr__(self, "positives_B", positives_B)
        object.__setattr__(self, "mean_positive_B", mean_B)


def log_sum(sim_BM: Tensor, mask_BM: Tensor) -> Tensor:
    """Return log sum exp(sim_ij) over the candidates j of the mask, B; about `EXCLUDED` for a row without any.

    Equals ``masked_fill`` with ``logsumexp``, in fewer operations, and with 2^x: on a CPU, e^x takes several times as
    long where it comes out as 0.
    """
    sim_BM = torch.add(sim_BM, ~mask_BM, alpha=EXCLUDED)
    top_B1 = sim_BM.detach().amax(-1, keepdim=True)
    return ((sim_BM - top_B1) * math.log2(math.e)).exp2().sum(-1).log() + top_B1[:, 0]
