"""Alignment and uniformity of embeddings, and quantiles without a sync."""

from __future__ import annotations

import torch
from torch import Tensor

# The paper's t, which multiplies squared distances.
UNIFORMITY_SCALE = 2.0


@torch.no_grad()
def alignment_and_uniformity(z_BE: Tensor, task_B: Tensor, text_id_B: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how close positives are, and how evenly embeddings cover the sphere: two fp32 scalars, lower is better.

        alignment  = mean ||z_i - z_j||^2              over positive pairs i < j          in [0, 4]
        uniformity = log mean exp(-2 ||z_i - z_j||^2)  over all pairs i < j               in [-8, 0]

    Questions without task (index below 0) do not count. Positive pairs are those of the loss: the same task and
    different texts. NaN where there is no pair.

    Source: Wang & Isola, 2020, arXiv 2005.10242, with alpha = 2 and t = 2. ``z_BE`` are unit embeddings.
    """
    z_BE = z_BE if z_BE.dtype == torch.float64 else z_BE.float()
    # Without matrix products, whose rounding would keep equal embeddings apart.
    distance_BB = torch.cdist(z_BE, z_BE, compute_mode="donot_use_mm_for_euclid_dist").square()
    known_B = task_B >= 0
    pair_BB = (known_B[:, None] & known_B).triu(1)
    positive_BB = pair_BB & (task_B[:, None] == task_B) & (text_id_B[:, None] != text_id_B)
    value_2BB = torch.stack([distance_BB, (-UNIFORMITY_SCALE * distance_BB).exp()])
    among_2BB = torch.stack([positive_BB, pair_BB])
    # 0 / 0 without a pair: NaN, as documented.
    alignment, closeness = (value_2BB * among_2BB).sum((1, 2)) / among_2BB.sum((1, 2))
    return alignment.float(), closeness.log().float()


@torch.no_grad()
def quantiles(values_B: Tensor, shares: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Return quantiles at ``shares`` in [0, 1] of B >= 1 values, linearly interpolated as in ``torch.quantile``.

    Positions follow from B on the host and the values are sorted once, so that the host does not wait for the device.
    """
    sorted_B = values_B.sort().values
    last = len(sorted_B) - 1
    belows = [int(share * last) for share in shares]
    aboves = [min(below + 1, last) for below in belows]
    parts = [share * last - below for share, below in zip(shares, belows, strict=True)]
    return tuple(torch._foreach_lerp([sorted_B[i] for i in belows], [sorted_B[i] for i in aboves], parts))
