"""Draw tasks more often whose loss moves.

    p = (1 - epsilon) softmax(z / T) + epsilon / K

with z = |fast - slow| mean loss of each task, standardised over tasks.

Source: Graves et al. (2017, arXiv 1704.03003), loss-driven progress; the absolute value, so that forgetting counts as
well, is that of Matiisen et al. (2017, arXiv 1707.00183).
"""

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, standardised_softmax


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    return standardised_softmax((stats.fast_loss_K - stats.slow_loss_K).abs(), params.temperature, params.epsilon)
