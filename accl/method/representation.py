"""What contrastive training does to the embeddings, in two numbers (Wang & Isola, 2020, arXiv 2005.10242)."""

from __future__ import annotations

import torch
from torch import Tensor

# The paper's t: how fast closeness fades with squared distance.
UNIFORMITY_SCALE = 2.0


@torch.no_grad()
def alignment_and_uniformity(z_BE: Tensor, task_B: Tensor, text_B: Tensor) -> tuple[Tensor, Tensor]:
    """How close positives are, and how evenly embeddings cover the sphere; two fp32 scalars, lower is better in both.

        alignment  = mean ||z_i - z_j||^2              over positive pairs i < j          in [0, 4]
        uniformity = log mean exp(-2 ||z_i - z_j||^2)  over all pairs i < j               in [-8, 0]

    Questions without task (index below 0) do not count. Positive pairs are those of the loss: of the same task and
    of different text. NaN where there is no pair.

    Source: Wang & Isola, 2020, arXiv 2005.10242, with alpha = 2 and t = 2.

    Args:
        z_BE: unit embeddings. task_B: task index of each. text_B: an id that equal texts share.
    """
    z_BE = z_BE if z_BE.dtype == torch.float64 else z_BE.float()
    with torch.autocast(z_BE.device.type, enabled=False):
        distance_BB = (2 - 2 * (z_BE @ z_BE.T)).clamp(min=0)  # squared, of unit vectors
    known_B = task_B >= 0
    pair_BB = (known_B[:, None] & known_B).triu(1)
    positive_BB = pair_BB & (task_B[:, None] == task_B) & (text_B[:, None] != text_B)
    # Without a pair these are 0/0, which is the NaN that is meant.
    alignment = (distance_BB * positive_BB).sum() / positive_BB.sum()
    closeness = ((-UNIFORMITY_SCALE * distance_BB).exp() * pair_BB).sum() / pair_BB.sum()
    return alignment.float(), closeness.log().float()


@torch.no_grad()
def quantiles(values_B: Tensor, shares: tuple[float, ...]) -> tuple[Tensor, ...]:
    """The quantiles of B >= 1 values, linearly interpolated as in ``torch.quantile``.

    Positions are made of B on the host and the values are sorted once, so that nothing waits for the device.

    Args:
        shares: which quantiles, each in [0, 1].
    """
    sorted_B = values_B.sort().values
    results = []
    for share in shares:
        position = share * (len(sorted_B) - 1)
        below = int(position)
        above = min(below + 1, len(sorted_B) - 1)
        results.append(torch.lerp(sorted_B[below], sorted_B[above], position - below))
    return tuple(results)
