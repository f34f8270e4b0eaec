"""Draw tasks by a power of their number of training questions, from the first step on.

    p_t = n_t^alpha / sum_u n_u^alpha

with n_t training questions of task t: alpha = 1 is the natural distribution, 0 is uniform over tasks with questions.
A task without questions has weight 0.

Source: temperature sampling of multilingual models (Devlin, 2019), with alpha = 1/T.
"""

import torch
from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats

PARAMETER = {
    "name": "alpha",
    "least": -100,
    "most": 100,
    "default": 0.5,
    "about": "exponent of the number of training questions",
}
UPDATES_NEEDED = 0
USES_EPSILON = False


def compute_weights(stats: TaskStats, params: PolicyParams) -> Tensor:
    n_K = stats.questions_K.double()
    return torch.where(n_K > 0, params.parameter * n_K.clamp(min=1).log(), -torch.inf).softmax(-1)
