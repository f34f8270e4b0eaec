"""Draw tasks by exponential weights over the training loss as a bandit's reward.

    p = (1 - epsilon) softmax(eta G / T) + epsilon / K,    eta = sqrt(8 ln K / updates)

with G the gains of `accl.method.statistics.TaskStatistics`. EXP3 and Online Data Mixing explore by
min(1/K, sqrt(ln K / (K t))), which at K = 57 is all uniform for 230 updates: longer than a run. They draw one task per
update, though, while between two updates here hundreds of questions show nearly every task. So the rate is that of
Hedge, which sees all rewards, reached at T = 1; exploration is the constant epsilon.

Source: Cesa-Bianchi and Lugosi (2006), theorem 2.3; Albalak et al. (2023, arXiv 2312.02406).
"""

import math

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, mix_uniform


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    rate = math.sqrt(8 * math.log(len(stats.gain_K)) / stats.updates) if stats.updates > 0 else 0.0
    return mix_uniform((rate * stats.gain_K.double() / params.temperature).softmax(-1), params.epsilon)
