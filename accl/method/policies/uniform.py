"""Draw every task equally often: stratified sampling, the bar for every other policy.

    p_t = 1 / K

Source: Aioli (Chen et al., ICLR 2025), which finds that most mixing methods do not beat it.
"""

from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, uniform

UPDATES_NEEDED = 0
USES_EPSILON = False


def compute_weights(stats: TaskStats, _params: PolicyParams) -> Tensor:
    return uniform(len(stats.questions_K))
