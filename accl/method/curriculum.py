"""From confusion to task weights: the distribution p_K that the sampler draws tasks from.

The method writes w_t = softmax(confusion_t / T). Taken to the letter (`seed_literal`) this collapses: with C
a raw sum, the first update gives nearly all probability to one task, and a batch of one task has no
pairs to correct it; with the mean instead of the sum and T = 2 it never leaves 1 % of uniform. The
corrected rule (`confusion`) standardises the mean confusion over tasks first and keeps a uniform share.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from accl.method.confusion import task_confusion

Policy = Literal["uniform", "confusion", "seed_literal"]

# Of mean cosines that were summed in fp32 over thousands of steps.
ROUNDING = 1e-5


def uniform(tasks: int) -> Tensor:
    """p_t = 1/K, float64."""
    return torch.full((tasks,), 1 / tasks, dtype=torch.float64)


def with_floor(p_K: Tensor, floor: float) -> Tensor:
    """(1 - floor) p + floor / K: no task is ever forgotten."""
    return (1 - floor) * p_K + floor / len(p_K)


def confusion_policy(mean_KK: Tensor, temperature: float, floor: float) -> Tensor:
    """The corrected rule: p = (1 - floor) softmax(z / T) + floor / K with z the standardised confusion of tasks.

    It depends on mean similarities alone, so not on how often a task was drawn. A task without observation has
    z = 0, the mean; when all tasks are equally confusable, p is uniform.

    Args:
        mean_KK: mean positive cosine of task pairs, NaN where unobserved. temperature: T > 0. floor: in [0, 1].
    """
    c_K = task_confusion(mean_KK.double())
    seen_K = ~c_K.isnan()
    if seen_K.sum() < 2:
        return uniform(len(c_K)).to(c_K.device)
    mean, spread = c_K[seen_K].mean(), c_K[seen_K].std(correction=0)
    # Equal to rounding means equal: dividing by the spread of fp32 sums would make weights of noise.
    z_K = torch.where(seen_K & (spread > ROUNDING), (c_K - mean) / spread.clamp(min=ROUNDING), 0.0)
    return with_floor((z_K / temperature).softmax(-1), floor)


def seed_literal_policy(sum_KK: Tensor, temperature: float) -> Tensor:
    """The rule as written, p = softmax(confusion_t / T) with confusion_t the raw row sum over other tasks."""
    sum_KK = sum_KK.double()
    return ((sum_KK.sum(-1) - sum_KK.diagonal()) / temperature).softmax(-1)
