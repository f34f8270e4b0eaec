"""Draw tasks more often whose uncertainty changes, whether it falls or rises.

    p = (1 - epsilon) softmax(z / T) + epsilon / K

with z the absolute change of mean normalised entropy between two updates, standardised over tasks. The method's
wording, "uncertainty gradient", gives no sign. The absolute value is taken: falling uncertainty says that a task is
being learned, rising uncertainty that it is being forgotten, and both call for its questions. A task that stands still
is mastered or out of reach; the signed rule would rank it above one that is being learned.

Source: the method, "uncertainty gradient".
"""

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, standardised_softmax

UPDATES_NEEDED = 2


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    return standardised_softmax(stats.entropy_change_K.abs(), params.temperature, params.epsilon)
