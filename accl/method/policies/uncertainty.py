"""Draw tasks more often whose questions the model is least sure of.

    p = (1 - epsilon) softmax(z / T) + epsilon / K

with z the mean normalised entropy of each task's predictions, standardised over tasks.
"""

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, standardised_softmax


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    return standardised_softmax(stats.entropy_K, params.temperature, params.epsilon)
