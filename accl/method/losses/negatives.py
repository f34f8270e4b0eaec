"""Divide by the negatives alone, as published: decoupled contrastive learning, unbounded below.

    l_i = - 1/|P(i)| sum_{p in P(i)} ( s_ip - log sum_{n in N(i)} e^{s_in} )

Source: the method; Yeh et al. (2022, arXiv 2110.06848).
"""

from torch import Tensor

from accl.method.pairs import Pairs


def compute_losses(pairs: Pairs, log_negatives_B: Tensor, _parameter: float) -> Tensor:
    return log_negatives_B - pairs.mean_positive_B
