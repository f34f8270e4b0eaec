"""Contrast with the k negatives that are most similar to the anchor; with all of them where there are fewer.

Among equal similarities any may be chosen, but never more than k.

Source: hard negative mining as in Robinson et al. (2021, arXiv 2010.04592), in its limit of full concentration on the
hardest.
"""

import torch
from torch import Tensor

from accl.method.pairs import EXCLUDED, Pairs, log_sum

PARAMETER = {"name": "k", "least": 1, "whole": True, "default": 16, "about": "negatives kept per anchor"}


def select(pairs: Pairs, parameter: float) -> tuple[Tensor, Tensor]:
    # sorted=False: only membership matters. What fills up a row short of negatives is taken off by the last mask.
    sim_BM = torch.add(pairs.sim_BM.detach(), ~pairs.negative_BM, alpha=EXCLUDED)
    top_Bk = sim_BM.topk(min(int(parameter), sim_BM.shape[1]), sorted=False).indices
    negative_BM = torch.zeros_like(pairs.negative_BM).scatter_(1, top_Bk, True) & pairs.negative_BM
    return negative_BM, log_sum(pairs.sim_BM, negative_BM)
