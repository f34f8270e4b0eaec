"""Divide by positives and negatives: supervised contrastive learning (SupCon), bounded below.

    l_i = - 1/|P(i)| sum_{p in P(i)} ( s_ip - log( sum_{n in N(i)} e^{s_in} + sum_{p in P(i)} e^{s_ip} ) )

Source: Khosla et al. (2020, arXiv 2004.11362), L_out.
"""

import torch
from torch import Tensor

from accl.method.pairs import Pairs, log_sum


def compute_losses(pairs: Pairs, log_negatives_B: Tensor, _parameter: float) -> Tensor:
    return torch.logaddexp(log_negatives_B, log_sum(pairs.sim_BM, pairs.positive_BM)) - pairs.mean_positive_B
