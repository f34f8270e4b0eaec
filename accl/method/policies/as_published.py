"""Draw tasks by the softmax of raw confusion sums: the method's rule to the letter, which collapses.

    p = softmax(confusion_t / T),    confusion_t = sum over other tasks u of C[t, u]

with C the sum of positive cosines of contrastive embeddings, never forgotten. The first update gives nearly all
probability to one task, and a batch of one task has no pairs to correct it. No uniform share is mixed in.

Source: the method, "adaptive curriculum".
"""

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats

USES_EPSILON = False


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    sum_KK = stats.literal_KK.double()
    return ((sum_KK.sum(-1) - sum_KK.diagonal()) / params.temperature).softmax(-1)
