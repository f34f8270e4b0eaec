"""Contrast with every negative of the batch and the memory bank.

log sum_{n in N(i)} e^{s_in}
"""

from __future__ import annotations

from torch import Tensor

from accl.method.pairs import Pairs, log_sum


def select(pairs: Pairs, _parameter: float) -> tuple[Tensor, Tensor]:
    """Return the mask of all negatives, B x M, and the log of their sum, B."""
    return pairs.negative_BM, log_sum(pairs.sim_BM, pairs.negative_BM)
