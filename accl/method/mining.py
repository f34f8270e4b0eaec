"""Which negatives an anchor is contrasted with: all, the hardest, the semi-hard, or all with a correction for those
that are no true negatives.

Similarities are s_ij = cos(z_i, z_j) / tau, B anchors by M candidates (the batch and the memory bank).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Negatives = Literal["all", "hardest", "semi_hard", "debiased"]

# Finite, so that a row without any candidate gives a number and not NaN in the backward pass; in fp32
# exp(EXCLUDED - anything sensible) is exactly 0.
EXCLUDED = -1e9


def check_negatives(negatives: str, parameter: float) -> None:
    """Whether ``negatives`` is known and its parameter in range: k a whole number of at least 1, a margin above 0,
    a class prior of 0 <= prior < 1. ``all`` has no parameter.

    Raises:
        ValueError: it is not.
    """
    if negatives not in get_args(Negatives):
        raise ValueError(f"negatives={negatives!r} is unknown; write one of {', '.join(get_args(Negatives))}")
    if negatives == "hardest" and not (float(parameter).is_integer() and parameter >= 1):
        raise ValueError(f"hardest({parameter:g}) needs a whole number of at least 1, such as hardest(16)")
    if negatives == "semi_hard" and not parameter > 0:
        raise ValueError(f"semi_hard({parameter:g}) needs a margin above 0 in cosines, such as semi_hard(0.2)")
    if negatives == "debiased" and not 0 <= parameter < 1:
        raise ValueError(f"debiased({parameter:g}) needs a class prior of 0 <= prior < 1, such as debiased(0.1)")


def log_sum(sim_BM: Tensor, mask_BM: Tensor) -> Tensor:
    """log sum exp(sim_ij) over the candidates j that the mask has, B; about `EXCLUDED` where it has none.

    What ``masked_fill`` and ``logsumexp`` compute, in fewer operations, and with 2^x: on a CPU, e^x takes several times
    as long where it comes out as 0.
    """
    sim_BM = torch.add(sim_BM, ~mask_BM, alpha=EXCLUDED)
    top_B1 = sim_BM.detach().amax(-1, keepdim=True)
    return ((sim_BM - top_B1) * math.log2(math.e)).exp2().sum(-1).log() + top_B1[:, 0]


@torch.no_grad()
def hardest(sim_BM: Tensor, negative_BM: Tensor, k: int) -> Tensor:
    """The k negatives most similar to each anchor, as a mask B x M; all of them where there are fewer.

    Among equal similarities any may be chosen, but never more than k. Source: hard negative mining as in Robinson
    et al., 2021, arXiv 2010.04592, in its limit of full concentration on the hardest.

    Args:
        sim_BM: similarities at any temperature. negative_BM: where the negatives are.
    """
    # sorted=False: only membership matters. What fills up a row short of negatives is taken off by the last mask.
    sim_BM = torch.add(sim_BM, ~negative_BM, alpha=EXCLUDED)
    top_Bk = sim_BM.topk(min(k, sim_BM.shape[1]), sorted=False).indices
    return torch.zeros_like(negative_BM).scatter_(1, top_Bk, True) & negative_BM


@torch.no_grad()
def semi_hard(
    sim_BM: Tensor, negative_BM: Tensor, mean_positive_B: Tensor, margin: float, temperature: float
) -> Tensor:
    """Negatives less similar to the anchor than its positives, but by less than the margin, as a mask B x M:

        c_i - margin < cos(z_i, z_n) < c_i       with c_i the mean cosine of anchor i with its positives

    Source: Schroff et al., 2015, arXiv 1503.03832, section 3.2, there in squared distances of one positive at a
    time; on the unit sphere ||a - b||^2 = 2 - 2 cos(a, b), so this margin is half of theirs.

    Args:
        sim_BM: similarities cos / temperature. negative_BM: where the negatives are.
        mean_positive_B: c_i / temperature. margin: in cosines. temperature: tau.
    """
    upper_B1 = mean_positive_B[:, None]
    return negative_BM & (sim_BM < upper_B1) & (sim_BM > upper_B1 - margin / temperature)


def debiased_log_sum(
    sim_BM: Tensor, positive_BM: Tensor, negative_BM: Tensor, prior: float, temperature: float
) -> Tensor:
    """log of the negative sum, corrected for negatives that are in truth positives, B:

        log( N max{ ( mean_n e^{s_in} - prior * mean_p e^{s_ip} ) / (1 - prior), e^{-1/tau} } )

    over the N negatives n and the positives p of anchor i. A floored anchor gives its negatives no gradient. Just
    above the floor the slope of the logarithm is steep, as that of the formula is. Rows without a positive or without
    a negative give a finite number that means nothing. With a prior of 0 it is the plain logsumexp.

    Source: Chuang et al., 2020, arXiv 2007.00224, equations 7 and 8.

    Args:
        sim_BM: similarities cos / temperature. prior: tau+ in [0, 1), the share of negatives that are none.
    """
    log_negatives_B = negative_BM.sum(-1, dtype=sim_BM.dtype).clamp(min=1).log()
    log_positives_B = positive_BM.sum(-1, dtype=sim_BM.dtype).clamp(min=1).log()
    log_negative_B, log_positive_B = log_sum(sim_BM, negative_BM), log_sum(sim_BM, positive_BM)
    floor_B = log_negatives_B - 1 / temperature
    # log(n - p) = log n + log(1 - p/n), for neither n nor p fits into fp32 at small temperatures.
    log_prior = math.log(prior) if prior > 0 else -math.inf
    log_share_B = log_prior + log_negatives_B + log_positive_B - log_positives_B - log_negative_B
    # Where nothing is left beyond rounding, an arbitrary share stands in: the gradient of the branch not taken must
    # not be NaN.
    left_B = log_share_B < -torch.finfo(sim_BM.dtype).eps
    log_rest_B = torch.log(-torch.expm1(torch.where(left_B, log_share_B, -1.0)))
    corrected_B = log_negative_B + log_rest_B - math.log1p(-prior)
    return torch.where(left_B & (corrected_B > floor_B), corrected_B, floor_B)
