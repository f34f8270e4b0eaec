"""Statistics of tasks, and the weights that policies make of them, for tests."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from accl.method.curriculum import PolicyParams, TaskStats, load_policy


def nothing_observed(tasks: int) -> TaskStats:
    """The statistics of a run that has just begun."""
    unknown_K = torch.full((tasks,), math.nan, dtype=torch.float64)
    return TaskStats(
        similarity_KK=unknown_K.expand(tasks, tasks),
        literal_KK=torch.zeros(tasks, tasks),
        entropy_K=unknown_K,
        entropy_change_K=unknown_K,
        fast_loss_K=unknown_K,
        slow_loss_K=unknown_K,
        gain_K=torch.zeros(tasks),
        updates=0.0,
        questions_K=torch.ones(tasks),
    )


def weights(policy: str, temperature: float, epsilon: float, **observed: Any) -> Tensor:
    """The weights of a policy, such as ``proportional(0.5)``, from the given statistics and none beside them."""
    (tasks, *_) = next(value.shape for value in observed.values() if isinstance(value, Tensor))
    loaded = load_policy(policy)
    stats = TaskStats(**{**vars(nothing_observed(tasks)), **observed})
    return loaded.compute_weights(stats, PolicyParams(temperature, epsilon, loaded.parameter))
