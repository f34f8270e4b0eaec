"""Contrast with every negative of the batch and the memory bank.

log sum_{n in N(i)} e^{s_in}
"""

from torch import Tensor

from accl.method.pairs import Pairs, log_sum


def select(pairs: Pairs, _parameter: float) -> tuple[Tensor, Tensor]:
    return pairs.negative_BM, log_sum(pairs.sim_BM, pairs.negative_BM)
