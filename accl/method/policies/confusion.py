"""Draw tasks more often whose encoder features are like those of other tasks: the method's rule, corrected.

    p = (1 - epsilon) softmax(z / T) + epsilon / K

with z the mean positive cosine of each task with the others, standardised over tasks. Means, unlike the sums of
`as_published`, do not depend on how often a task was drawn.

Source: the method, "adaptive curriculum".
"""

from torch import Tensor

from accl.method.confusion import task_confusion
from accl.method.curriculum import PolicyParams, TaskStats, standardised_softmax


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    return standardised_softmax(task_confusion(stats.similarity_KK.double()), params.temperature, params.epsilon)
