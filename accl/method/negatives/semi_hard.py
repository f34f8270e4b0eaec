"""Contrast with negatives that are less similar than the positives, but by less than a margin.

    c_i - margin < cos(z_i, z_n) < c_i

with c_i the mean cosine of anchor i with its positives.

Source: Schroff et al. (2015, arXiv 1503.03832), section 3.2, there in squared distances of one positive at a time; on
the unit sphere ||a - b||^2 = 2 - 2 cos(a, b), so this margin is half of theirs.
"""

from torch import Tensor

from accl.method.pairs import Pairs, log_sum

PARAMETER = {"name": "margin", "above": 0, "default": 0.2, "about": "width of the band below the positives, in cosines"}


def select(pairs: Pairs, parameter: float) -> tuple[Tensor, Tensor]:
    upper_B1 = pairs.mean_positive_B.detach()[:, None]
    lower_B1 = upper_B1 - parameter / pairs.temperature
    negative_BM = pairs.negative_BM & (pairs.sim_BM < upper_B1) & (pairs.sim_BM > lower_B1)
    return negative_BM, log_sum(pairs.sim_BM, negative_BM)
