"""Contrast with every negative, their sum corrected for a share of them that are in truth positives.

    log( N max{ ( mean_n e^{s_in} - prior * mean_p e^{s_ip} ) / (1 - prior), e^{-1/tau} } )

over the N negatives n and the positives p of anchor i. An anchor at the lower bound gives its negatives no gradient;
just above the bound the slope of the logarithm is steep, as that of the formula is. With a prior of 0 it is `all`.

Source: Chuang et al. (2020, arXiv 2007.00224), equations 7 and 8.
"""

import math

import torch
from torch import Tensor

from accl.method.pairs import Pairs, log_sum

PARAMETER = {
    "name": "prior",
    "least": 0,
    "below": 1,
    "default": 0.1,
    "about": "share of negatives that are in truth positives",
}


def select(pairs: Pairs, parameter: float) -> tuple[Tensor, Tensor]:
    sim_BM, negative_BM = pairs.sim_BM, pairs.negative_BM
    log_negatives_B = negative_BM.sum(-1, dtype=sim_BM.dtype).clamp(min=1).log()
    log_positives_B = pairs.positives_B.clamp(min=1).log()
    log_negative_B, log_positive_B = log_sum(sim_BM, negative_BM), log_sum(sim_BM, pairs.positive_BM)
    bound_B = log_negatives_B - 1 / pairs.temperature
    # log(n - p) = log n + log(1 - p/n), for neither n nor p fits into fp32 at small temperatures.
    log_prior = math.log(parameter) if parameter > 0 else -math.inf
    log_share_B = log_prior + log_negatives_B + log_positive_B - log_positives_B - log_negative_B
    # Where nothing is left beyond rounding, an arbitrary share stands in: the gradient of the branch not taken must
    # not be NaN.
    left_B = log_share_B < -torch.finfo(sim_BM.dtype).eps
    log_rest_B = torch.log(-torch.expm1(torch.where(left_B, log_share_B, -1.0)))
    corrected_B = log_negative_B + log_rest_B - math.log1p(-parameter)
    return negative_BM, torch.where(left_B & (corrected_B > bound_B), corrected_B, bound_B)
